//! `web_config_file` and `bearer_tokens` of `[telemetry]`: who may read the metrics.

use secrecy::ExposeSecret as _;
use throughline::ConfigError;
use throughline::telemetry::EndpointSecurity;
use toml::{Spanned, Value};

use super::check::Check;
use super::secret;

/// What the two keys ask for; `None` when something is wrong with them.
pub(super) fn security(
    check: &mut Check<'_>,
    web_config: Option<Spanned<String>>,
    tokens: Vec<Spanned<Value>>,
) -> Option<EndpointSecurity> {
    let mut security = Some(EndpointSecurity::new());
    if let Some(written) = web_config {
        let path = check.dir.join(written.get_ref());
        security = add(check, &written, "web_config_file", security, |it| it.web_config_file(path));
    }
    for written in tokens {
        let Some(token) = secret::read(check, "bearer_tokens", &written) else {
            security = None;
            continue;
        };
        // A file is named to the endpoint, which reads it again when it changes.
        let file = written.get_ref().as_str().and_then(|reference| reference.strip_prefix("file:"));
        let path = file.map(|path| check.dir.join(path));
        security = add(check, &written, "bearer_tokens", security, |it| match path {
            Some(path) => it.bearer_token_file(path),
            None => it.bearer_token(token.expose_secret()),
        });
    }
    security
}

fn add<T>(
    check: &mut Check<'_>,
    written: &Spanned<T>,
    key: &str,
    security: Option<EndpointSecurity>,
    with: impl FnOnce(EndpointSecurity) -> Result<EndpointSecurity, ConfigError>,
) -> Option<EndpointSecurity> {
    // What follows a mistake is looked at all the same, to find every one of them.
    let added = with(security.clone().unwrap_or_default());
    let problem = added.as_ref().err().map(|why| format!("`{key}`: {why}"));
    if let Some(problem) = problem {
        check.refuse(written.span(), problem);
    }
    security.and(added.ok())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;
    use crate::config::fixture::{SMALLEST, accepted, refused};

    /// The configuration in `dir` with this section, or what is said about it without the directory's name.
    fn load(dir: &Path, section: &str) -> Result<Config, String> {
        let path = dir.join("t.toml");
        std::fs::write(&path, format!("[telemetry]\n{section}\n{SMALLEST}")).unwrap();
        let env = |name: &str| (name == "SCRAPE").then(|| "a-token-of-many-letters".to_owned());
        Config::load(&path, &env)
            .map_err(|errors| errors.to_string().replace(&format!("{}/", dir.display()), ""))
    }

    #[test]
    fn a_token_lets_metrics_be_public() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "another-token-of-letters\n").unwrap();
        let public = "metrics_listen = \"0.0.0.0:9464\"";
        for tokens in ["\"env:SCRAPE\"", "\"file:token\"", "\"env:SCRAPE\", \"file:./token\""] {
            let config = load(dir.path(), &format!("{public}\nbearer_tokens = [{tokens}]")).unwrap();
            assert!(config.telemetry.security.authenticates());
        }
        let refusal = load(dir.path(), &format!("{public}\nbearer_tokens = []")).unwrap_err();
        assert!(refusal.contains("or ask for one with web_config_file or bearer_tokens"), "{refusal}");
    }

    #[test]
    fn the_file_of_prometheus_is_looked_for_beside_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let hash = format!("$2y$10${}", ".".repeat(53));
        std::fs::write(dir.path().join("web.yml"), format!("basic_auth_users:\n  ada: {hash}\n")).unwrap();
        let config = load(dir.path(), "web_config_file = \"web.yml\"").unwrap();
        assert!(config.telemetry.security.authenticates() && !config.telemetry.security.encrypts());
        std::fs::write(dir.path().join("web.yml"), "basic_auth_user:\n").unwrap();
        let refusal = load(dir.path(), "web_config_file = \"web.yml\"").unwrap_err();
        assert!(
            refusal.starts_with(
                "t.toml:2:19: `web_config_file`: web.yml: basic_auth_user is not a key that is supported"
            ),
            "{refusal}"
        );
    }

    #[test]
    fn a_token_is_refused_where_it_stands_and_not_shown() {
        let shown = refused("[telemetry]\nbearer_tokens = [\"a-token-of-many-letters\"]\n");
        assert!(shown.starts_with("t.toml:2:18: `bearer_tokens` holds the key itself: put it in"), "{shown}");
        assert!(!shown.contains("many-letters"), "{shown}");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "short").unwrap();
        let shown = load(dir.path(), "bearer_tokens = [\"file:token\"]").unwrap_err();
        let expected = "t.toml:2:18: `bearer_tokens`: `token`: a bearer token of 5 characters can be guessed: use at \
                        least 16 random ones";
        assert_eq!(shown.lines().next(), Some(expected));
    }

    #[test]
    fn nothing_is_asked_for_unless_it_is_written() {
        assert!(!accepted("[telemetry]\nservice_name = \"a\"\n").telemetry.security.authenticates());
    }
}
