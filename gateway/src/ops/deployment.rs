//! What is written by hand in `ops/`: how to run a gateway and what stands around it.
//!
//! A file that is not listed here is not exported, and `cargo xtask gen --check` refuses it in `ops/`.

use super::options::Options;
use super::pack::File;

/// Path below `ops/`, and text.
macro_rules! by_hand {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../ops/", $path)))),*]
    };
}

/// Every file, by folder.
static FILES: &[(&str, &str)] = by_hand![];

/// The files, for the job of the options.
pub(super) fn files(options: &Options) -> Vec<File> {
    FILES.iter().map(|(path, text)| File::new(*path, options.for_job(text))).collect()
}
