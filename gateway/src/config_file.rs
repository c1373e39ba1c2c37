//! Which configuration a command reads: the one that is named, else the one of the working directory.

use std::path::Path;

/// The configuration that is looked for when none is named.
pub(crate) const DEFAULT: &str = "throughline.toml";

/// The file that is read when `named` is or when nothing is; `None` where there is none.
pub(crate) fn find(named: Option<&Path>) -> Option<&Path> {
    // A link to nowhere is there: it is an error and no reason to take something else.
    named.or_else(|| Some(Path::new(DEFAULT)).filter(|path| path.symlink_metadata().is_ok()))
}
