//! `[stores.NAME.disk]`: answers in a file, which survive a restart.

use std::time::Duration;

use serde::Deserialize;
use throughline::cache::disk::DiskConfig;
use toml::{Spanned, Value};

use super::check::Check;

/// The file's size, where nothing else is written, and the least of use.
const SIZE: usize = 1 << 30;
const SMALLEST: usize = 4 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct DiskFile {
    path: Spanned<String>,
    max_bytes: Option<Spanned<Value>>,
    deadline: Option<Spanned<Value>>,
}

// === impl DiskFile ===

impl DiskFile {
    /// The path is looked for beside the configuration.
    pub(super) fn check(self, check: &mut Check<'_>) -> DiskConfig {
        if self.path.get_ref().is_empty() {
            check.refuse(self.path.span(), "`path` is empty: name the file to keep answers in");
        }
        let path = check.dir.join(self.path.get_ref());
        let mut size = check.size("max_bytes", self.max_bytes.as_ref(), SIZE);
        if let Some(written) = self.max_bytes.as_ref().filter(|_| size < SMALLEST) {
            check.refuse(written.span(), format!("`max_bytes` is {size} bytes: it must be at least 4MiB"));
            size = SMALLEST;
        }
        let deadline = check.timeout("deadline", self.deadline.as_ref(), Duration::from_millis(20));
        let config = DiskConfig::new(path, size as u64).and_then(|config| config.deadline(deadline));
        config.expect("both have been checked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Store;
    use crate::config::fixture::{accepted, refused};

    fn store(text: &str) -> DiskConfig {
        match &accepted(&format!("[stores.kept.disk]\n{text}")).stores["kept"] {
            Store::Disk(config) => config.clone(),
            Store::Redis(config) => panic!("a disk was written: {config:?}"),
        }
    }

    fn refusal(text: &str) -> String {
        refused(&format!("[stores.kept.disk]\n{text}")).lines().next().unwrap().to_owned()
    }

    #[test]
    fn only_the_path_is_needed() {
        let config = store("path = \"answers.cache\"");
        assert_eq!((config.path().to_str(), config.max_bytes()), (Some("answers.cache"), 1 << 30));
        assert_eq!(config.call_deadline(), Duration::from_millis(20));
        assert_eq!(refusal(""), "t.toml:1:1: missing key `path`");
    }

    #[test]
    fn all_keys_are_read() {
        let config = store("path = \"/var/cache/a\"\nmax_bytes = \"64MiB\"\ndeadline = \"50ms\"");
        assert_eq!((config.max_bytes(), config.call_deadline()), (64 << 20, Duration::from_millis(50)));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        assert_eq!(
            refusal("path = \"a\"\nmax_bytes = \"1MiB\""),
            "t.toml:3:13: `max_bytes` is 1048576 bytes: it must be at least 4MiB"
        );
        assert_eq!(refusal("path = \"\""), "t.toml:2:8: `path` is empty: name the file to keep answers in");
    }
}
