//! The pack: every file that `ops export` writes.

use super::options::Options;
use super::{alertmanager, dashboards, deployment, prometheus, runbooks};

/// A file of the pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// Its path below the pack's folder, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every file, by path.
pub(crate) fn files(options: &Options) -> Vec<File> {
    let mut files = [
        prometheus::files(options),
        alertmanager::files(options),
        runbooks::files(options),
        dashboards::files(options),
        deployment::files(options),
    ]
    .concat();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

// === impl File ===

impl File {
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_plain_and_no_two_files_are_in_one_place() {
        let files = files(&Options::default());
        for pair in files.windows(2) {
            assert_ne!(pair[0].path, pair[1].path);
        }
        for File { path, text } in &files {
            assert!(!path.starts_with('/') && !path.contains("..") && !path.contains('\\'), "{path}");
            assert!(text.ends_with('\n'), "{path} ends without a line end");
        }
    }
}
