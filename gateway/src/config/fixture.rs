//! What tests of all sections share: the smallest file that works, with a text put before it.

use super::Config;
use super::error::ConfigErrors;

/// The smallest configuration.
pub(super) const SMALLEST: &str = "\
[providers.sim.simulated]
[models.m.routes.r]
provider = \"sim\"
model = \"small\"
";

/// Reads a text as `t.toml`, in an environment where `KEY` is set, `EMPTY` is empty and `ODD` is not a key.
pub(super) fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, "t.toml", &|name| match name {
        "KEY" => Some("sk-live-123".to_owned()),
        "EMPTY" => Some("\n".to_owned()),
        "ODD" => Some("sk live".to_owned()),
        _ => None,
    })
}

/// What is made of `text` followed by the smallest configuration.
pub(super) fn accepted(text: &str) -> Config {
    parse(&format!("{text}\n{SMALLEST}")).unwrap_or_else(|errors| panic!("{errors}"))
}

/// What is said about `text` followed by the smallest configuration.
pub(super) fn refused(text: &str) -> String {
    parse(&format!("{text}\n{SMALLEST}")).expect_err("this configuration must be refused").to_string()
}
