//! What tests share: the smallest file that works, with a text put before it.

use super::file::Maturity;

/// The smallest file.
const SMALLEST: &str = "[components.a]\ndescription = \"A\"\nstage = \"development\"\n";

/// What is made of `text` followed by the smallest file.
pub(super) fn accepted(text: &str) -> Maturity {
    Maturity::parse(&format!("{text}\n{SMALLEST}"), "m.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

/// What is said about `text` followed by the smallest file.
pub(super) fn refused(text: &str) -> String {
    let read = Maturity::parse(&format!("{text}\n{SMALLEST}"), "m.toml");
    read.expect_err("this file must be refused").to_string()
}
