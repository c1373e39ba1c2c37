//! How far a long command is, on standard error; nothing where that is no terminal.

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

/// A bar over `length` parts of `what`.
pub(super) fn bar(length: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("  {bar:40} {percent}% {msg}").expect("the template is valid");
    let bar = ProgressBar::new(length).with_finish(ProgressFinish::AndClear).with_style(style);
    bar.set_message(what.to_owned());
    bar
}
