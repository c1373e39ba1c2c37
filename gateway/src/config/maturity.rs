//! `[maturity]`: components whose figures are shown beside the gateway's own.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::check::Check;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct MaturityFile {
    file: Option<Spanned<String>>,
}

// === impl MaturityFile ===

impl MaturityFile {
    /// Checks the section: where the components are, looked for beside the configuration. What that file says is
    /// not the configuration's business: a gateway serves though it is broken.
    pub(super) fn check(self, check: &mut Check<'_>) -> Option<PathBuf> {
        self.file.map(|written| check.dir.join(check.text("file", written)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{accepted, refused};

    #[test]
    fn there_is_none_unless_it_is_written() {
        assert_eq!(accepted("").maturity, None);
        assert_eq!(accepted("[maturity]\nfile = \"m.toml\"\n").maturity, Some(PathBuf::from("m.toml")));
    }

    #[test]
    fn a_file_without_a_name_is_refused() {
        assert!(
            refused("[maturity]\nfile = \"\"\n").starts_with("t.toml:2:8: `file` is empty: write some text")
        );
        assert!(refused("[maturity]\nfil = \"\"\n").contains("did you mean `file`?"));
    }
}
