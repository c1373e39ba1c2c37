//! `[providers.NAME.openai]`: OpenAI, or any server that speaks its language.

use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use secrecy::SecretString;
use serde::Deserialize;
use toml::{Spanned, Value};

use super::check::Check;
use super::secret;

/// How a server that speaks OpenAI's language is reached.
#[derive(Clone, Debug)]
pub(crate) struct OpenAiConfig {
    /// What paths such as `/chat/completions` are appended to: http or https, without a slash at the end.
    pub(crate) base_url: String,
    /// What is sent as a bearer token. Visible ASCII, not empty.
    pub(crate) api_key: Option<SecretString>,
    /// How long it may take to connect. Above zero. Default: 5 s.
    pub(crate) connect_timeout: Duration,
    /// Whether streams are asked to end with their usage. Default: true.
    pub(crate) stream_usage: bool,
    /// What it is called in telemetry. Default: by its address.
    pub(crate) provider_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct OpenAiFile {
    base_url: Spanned<String>,
    api_key: Option<Spanned<Value>>,
    connect_timeout: Option<Spanned<Value>>,
    stream_usage: Option<bool>,
    provider_name: Option<Spanned<String>>,
}

// === impl OpenAiFile ===

impl OpenAiFile {
    /// Checks the section.
    pub(super) fn check(self, check: &mut Check<'_>) -> OpenAiConfig {
        if let Err(problem) = usable(self.base_url.get_ref(), self.api_key.is_some()) {
            check.refuse(self.base_url.span(), problem);
        }
        OpenAiConfig {
            base_url: self.base_url.into_inner().trim_end_matches('/').to_owned(),
            api_key: self.api_key.and_then(|written| secret::read(check, "api_key", &written)),
            connect_timeout: check.timeout(
                "connect_timeout",
                self.connect_timeout.as_ref(),
                Duration::from_secs(5),
            ),
            stream_usage: self.stream_usage.unwrap_or(true),
            provider_name: self.provider_name.and_then(|name| provider_name(check, name)),
        }
    }
}

/// A name that is fit to be a label.
fn provider_name(check: &mut Check<'_>, name: Spanned<String>) -> Option<String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-');
    let (span, name) = (name.span(), name.into_inner());
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        let wanted = "write 1 to 64 of a-z, 0-9, `_`, `.` and `-`, such as `mistral_ai`";
        check.refuse(span, format!("`provider_name` is no name for telemetry: {wanted}"));
        return None;
    }
    Some(name)
}

/// Says why an address cannot be used, without repeating it: it may hold a password.
fn usable(url: &str, with_key: bool) -> Result<(), String> {
    let wanted = "write an address such as `https://api.openai.com/v1`";
    // `Uri` drops a fragment without a word.
    if url.contains(['?', '#']) {
        return Err(format!("`base_url` has a query or a fragment: {wanted}"));
    }
    let uri: Uri = url.parse().map_err(|_| format!("`base_url` is not a web address: {wanted}"))?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!("`base_url` is not an http or https address: {wanted}"));
    };
    if authority.as_str().contains('@') {
        return Err("`base_url` has a user name or password: put the key in `api_key`".to_owned());
    }
    let host = authority.host();
    let has_port = authority.as_str().len() > host.len();
    if host.is_empty() || has_port && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(format!("`base_url` has no usable host and port: {wanted}"));
    }
    if with_key && scheme == "http" && !is_loopback(host) {
        return Err(format!(
            "`base_url` is plain http and `api_key` would travel unencrypted to `{host}`: use https"
        ));
    }
    Ok(())
}

/// Whether a host, as an address names it, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Provider;
    use crate::config::fixture::{accepted, refused};
    use secrecy::ExposeSecret as _;

    fn openai(text: &str) -> OpenAiConfig {
        match accepted(&format!("[providers.p.openai]\n{text}\n")).providers.remove("p") {
            Some(Provider::OpenAi(config)) => config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_address_is_needed() {
        let config = openai("base_url = \"http://10.0.0.7:11434/v1/\"");
        assert_eq!(config.base_url, "http://10.0.0.7:11434/v1");
        assert!(config.api_key.is_none());
        assert_eq!(config.connect_timeout, Duration::from_secs(5));
        assert!(config.stream_usage);
    }

    #[test]
    fn all_keys_are_read_and_the_secret_is_not_in_debug() {
        let config = openai(
            "base_url = \"https://h\"\napi_key = \"env:KEY\"\nconnect_timeout = \"1s\"\nstream_usage = false\nprovider_name = \"ollama\"",
        );
        assert_eq!(config.api_key.as_ref().unwrap().expose_secret(), "sk-live-123");
        assert_eq!(config.connect_timeout, Duration::from_secs(1));
        assert!(!config.stream_usage);
        assert_eq!(config.provider_name.as_deref(), Some("ollama"));
        assert!(!format!("{config:?}").contains("sk-live"));
    }

    #[test]
    fn an_address_that_is_not_http_is_refused() {
        for wrong in ["ftp://h/v1", "//h/v1", "h:80", "/v1"] {
            let marks = "^".repeat(wrong.len() + 2);
            assert_eq!(
                refused(&format!("[providers.p.openai]\nbase_url = \"{wrong}\"\n")),
                format!(
                    "t.toml:2:12: `base_url` is not an http or https address: write an address such as \
                     `https://api.openai.com/v1`\n    2 | base_url = \"{wrong}\"\n      |            {marks}"
                )
            );
        }
    }

    #[test]
    fn an_address_with_parts_that_cannot_be_used_is_refused() {
        for (wrong, why) in [
            ("", "is not a web address"),
            ("https://h h", "is not a web address"),
            ("https://h/v1?a=b", "has a query or a fragment"),
            ("https://h/v1#a", "has a query or a fragment"),
            ("https://h:99999/v1", "has no usable host and port"),
            ("https://h:0/v1", "has no usable host and port"),
            ("https://h:/v1", "has no usable host and port"),
        ] {
            let message = usable(wrong, false).expect_err(wrong);
            assert_eq!(
                message,
                format!("`base_url` {why}: write an address such as `https://api.openai.com/v1`")
            );
        }
        assert!(usable("https://", false).is_err());
        assert!(usable("https://:80", false).is_err());
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_shown() {
        assert_eq!(
            refused("[providers.p.openai]\nbase_url = \"https://me:pw@h/v1\"\n"),
            "t.toml:2:12: `base_url` has a user name or password: put the key in `api_key`\n    \
             2 | base_url = ********************\n      |            ^^^^^^^^^^^^^^^^^^^^"
        );
    }

    #[test]
    fn a_key_is_not_sent_over_plain_http_except_to_this_machine() {
        assert_eq!(
            refused("[providers.p.openai]\nbase_url = \"http://h/v1\"\napi_key = \"env:KEY\"\n"),
            "t.toml:2:12: `base_url` is plain http and `api_key` would travel unencrypted to `h`: use https\n    \
             2 | base_url = \"http://h/v1\"\n      |            ^^^^^^^^^^^^^"
        );
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000", "[::ffff:127.0.0.1]"] {
            assert_eq!(usable(&format!("http://{host}/v1"), true), Ok(()), "{host}");
        }
        for host in ["localhost.evil.example", "127.0.0.1.evil.example", "[::2]", "0.0.0.0"] {
            assert!(usable(&format!("http://{host}/v1"), true).is_err(), "{host}");
        }
    }

    #[test]
    fn a_provider_name_that_is_no_label_is_refused() {
        for wrong in ["", "My Provider", "a/b", &"a".repeat(65)] {
            let message = refused(&format!(
                "[providers.p.openai]\nbase_url = \"https://h\"\nprovider_name = \"{wrong}\"\n"
            ));
            assert!(
                message.starts_with("t.toml:3:17: `provider_name` is no name for telemetry: write"),
                "{message}"
            );
        }
    }

    #[test]
    fn an_address_is_needed() {
        assert_eq!(
            refused("[providers.p.openai]\n"),
            "t.toml:1:1: missing key `base_url`\n    1 | [providers.p.openai]\n      | ^^^^^^^^^^^^^^^^^^^^"
        );
    }
}
