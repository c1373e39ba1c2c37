//! `[server]` and `[telemetry]`: what this process listens on, and the bounds of a request.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use throughline::telemetry::EndpointSecurity;
use toml::{Spanned, Value};

use super::check::Check;
use super::metrics;

/// Where and within which bounds requests are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// The address of the API. Default: 127.0.0.1:8080.
    pub(crate) listen: SocketAddr,
    /// Whether other machines may send requests, none of which needs a key. Default: false.
    pub(crate) allow_public_without_auth: bool,
    /// The largest request body, in bytes, at least 1. Default: 10 MiB.
    pub(crate) max_body: usize,
    /// How deep a request body may be nested, 1 to 100. Default: 64.
    pub(crate) max_json_depth: usize,
    /// The most messages of a request, at least 1. Default: 2048.
    pub(crate) max_messages: usize,
    /// The most connections at a time, at least 1; others wait to be accepted. Default: 4096.
    pub(crate) max_connections: usize,
    /// How long a client may take to send its headers. Above zero. Default: 10 s.
    pub(crate) header_timeout: Duration,
    /// How long a shutdown waits for requests under way. Above zero. Default: 10 s.
    pub(crate) drain_timeout: Duration,
    /// The request header that says whose request it is. Default: authorization.
    pub(crate) tenant_header: HeaderName,
}

/// What the telemetry is called and where it is served.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    /// The `service.name` of traces and the `service` of `build_info`. Default: throughline.
    pub(crate) service_name: String,
    /// The address of `/metrics`; one that other machines reach needs `security` that asks for something.
    /// Default: 127.0.0.1:9464.
    pub(crate) metrics_listen: SocketAddr,
    /// Whether traces with an error in them are exported also where the sampler has declined them. Default: false.
    pub(crate) keep_errors: bool,
    /// From how long on a trace is exported also where the sampler has declined it. Above zero. Default: never.
    pub(crate) keep_slower_than: Option<Duration>,
    /// Who may read there. Default: whoever reaches it.
    pub(crate) security: EndpointSecurity,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct ServerFile {
    listen: Option<Spanned<String>>,
    #[serde(default)]
    allow_public_without_auth: bool,
    max_body: Option<Spanned<Value>>,
    max_json_depth: Option<Spanned<i64>>,
    max_messages: Option<Spanned<i64>>,
    max_connections: Option<Spanned<i64>>,
    header_timeout: Option<Spanned<Value>>,
    drain_timeout: Option<Spanned<Value>>,
    tenant_header: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct TelemetryFile {
    service_name: Option<Spanned<String>>,
    metrics_listen: Option<Spanned<String>>,
    #[serde(default)]
    keep_errors: bool,
    keep_slower_than: Option<Spanned<Value>>,
    web_config_file: Option<Spanned<String>>,
    bearer_tokens: Option<Vec<Spanned<Value>>>,
}

pub(super) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Whether other machines reach `address`.
pub(super) fn is_public(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// Refuses an address that other machines reach, unless that is allowed.
fn permitted(listen: SocketAddr, allow_public: bool) -> Result<(), String> {
    if allow_public || !is_public(listen) {
        return Ok(());
    }
    Err(format!(
        "`listen` is {listen}, where other machines can send requests without a key: use a loopback address such \
         as 127.0.0.1, or set allow_public_without_auth = true"
    ))
}

// === impl Server ===

impl Server {
    /// Listens on `address` instead.
    ///
    /// # Errors
    /// When other machines reach that address and that is not allowed.
    pub(crate) fn listen_on(&mut self, address: SocketAddr) -> Result<(), String> {
        permitted(address, self.allow_public_without_auth)?;
        self.listen = address;
        Ok(())
    }
}

// === impl Telemetry ===

impl Telemetry {
    /// Whether metrics may be served on `address`.
    ///
    /// # Errors
    /// When other machines reach it and nothing is asked of them.
    pub(crate) fn permits(&self, address: SocketAddr) -> Result<(), String> {
        if self.security.authenticates() || !is_public(address) {
            return Ok(());
        }
        Err(format!(
            "metrics would be served on {address}, where other machines can read them without a key: use a \
             loopback address such as 127.0.0.1, or ask for one with web_config_file or bearer_tokens"
        ))
    }
}

// === impl ServerFile ===

impl ServerFile {
    /// Checks the section.
    pub(super) fn check(self, check: &mut Check<'_>) -> Server {
        let listen = check.address("listen", self.listen.as_ref(), loopback(8080));
        let allow_public_without_auth = self.allow_public_without_auth;
        if let (Some(written), Err(problem)) = (self.listen, permitted(listen, allow_public_without_auth)) {
            check.refuse(written.span(), problem);
        }
        let seconds = Duration::from_secs;
        Server {
            listen,
            allow_public_without_auth,
            max_body: check.size("max_body", self.max_body.as_ref(), 10 << 20),
            max_json_depth: check.whole("max_json_depth", self.max_json_depth.as_ref(), 1..=100, 64),
            max_messages: check.whole("max_messages", self.max_messages.as_ref(), 1..=100_000, 2048),
            max_connections: check.whole(
                "max_connections",
                self.max_connections.as_ref(),
                1..=1_000_000,
                4096,
            ),
            header_timeout: check.timeout("header_timeout", self.header_timeout.as_ref(), seconds(10)),
            drain_timeout: check.timeout("drain_timeout", self.drain_timeout.as_ref(), seconds(10)),
            tenant_header: self.tenant_header.map_or(AUTHORIZATION, |header| check.header(&header)),
        }
    }
}

// === impl TelemetryFile ===

impl TelemetryFile {
    /// Checks the section.
    pub(super) fn check(self, check: &mut Check<'_>) -> Telemetry {
        let metrics_listen = check.address("metrics_listen", self.metrics_listen.as_ref(), loopback(9464));
        let service_name = self.service_name.map(|written| check.text("service_name", written));
        let security = metrics::security(check, self.web_config_file, self.bearer_tokens.unwrap_or_default());
        let slower = self.keep_slower_than.as_ref();
        let telemetry = Telemetry {
            service_name: service_name.unwrap_or_else(|| "throughline".to_owned()),
            metrics_listen,
            keep_errors: self.keep_errors,
            keep_slower_than: slower
                .map(|written| check.timeout("keep_slower_than", Some(written), Duration::MAX)),
            security: security.clone().unwrap_or_default(),
        };
        // Security that is refused already says enough.
        if let (Some(written), Some(_), Err(problem)) =
            (self.metrics_listen, security, telemetry.permits(metrics_listen))
        {
            check.refuse(written.span(), problem);
        }
        telemetry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{accepted, refused};

    #[test]
    fn all_keys_have_defaults() {
        let config = accepted("");
        assert_eq!(
            config.server,
            Server {
                listen: "127.0.0.1:8080".parse().unwrap(),
                allow_public_without_auth: false,
                max_body: 10 * 1024 * 1024,
                max_json_depth: 64,
                max_messages: 2048,
                max_connections: 4096,
                header_timeout: Duration::from_secs(10),
                drain_timeout: Duration::from_secs(10),
                tenant_header: AUTHORIZATION,
            }
        );
        let telemetry = config.telemetry;
        assert_eq!(telemetry.service_name, "throughline");
        assert_eq!(telemetry.metrics_listen, "127.0.0.1:9464".parse().unwrap());
        assert!(!telemetry.security.authenticates() && !telemetry.security.encrypts());
        assert_eq!((telemetry.keep_errors, telemetry.keep_slower_than), (false, None));
    }

    #[test]
    fn all_keys_are_read() {
        let config = accepted(
            "[server]\nlisten = \"[::1]:1\"\nmax_body = \"1KiB\"\nmax_json_depth = 3\nmax_messages = 4\n\
             max_connections = 5\n             header_timeout = \"5s\"\ndrain_timeout = \"6ms\"\n\
             tenant_header = \"X-Team\"\n\
             [telemetry]\nservice_name = \"a b\"\nmetrics_listen = \"127.0.0.2:0\"\n\
             keep_errors = true\nkeep_slower_than = \"2s\"\n",
        );
        assert_eq!(
            config.server,
            Server {
                listen: "[::1]:1".parse().unwrap(),
                allow_public_without_auth: false,
                max_body: 1024,
                max_json_depth: 3,
                max_messages: 4,
                max_connections: 5,
                header_timeout: Duration::from_secs(5),
                drain_timeout: Duration::from_millis(6),
                tenant_header: HeaderName::from_static("x-team"),
            }
        );
        assert_eq!(config.telemetry.service_name, "a b");
        assert_eq!(config.telemetry.metrics_listen, "127.0.0.2:0".parse().unwrap());
        assert!(config.telemetry.keep_errors);
        assert_eq!(config.telemetry.keep_slower_than, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_public_address_is_refused_unless_allowed() {
        assert_eq!(
            refused("[server]\nlisten = \"0.0.0.0:80\"\n"),
            "t.toml:2:10: `listen` is 0.0.0.0:80, where other machines can send requests without a key: use a \
             loopback address such as 127.0.0.1, or set allow_public_without_auth = true\n    \
             2 | listen = \"0.0.0.0:80\"\n      |          ^^^^^^^^^^^^"
        );
        let config = accepted("[server]\nlisten = \"0.0.0.0:80\"\nallow_public_without_auth = true\n");
        assert_eq!(config.server.listen, "0.0.0.0:80".parse().unwrap());
    }

    #[test]
    fn an_address_given_later_is_held_to_the_same_rule() {
        let mut closed = accepted("").server;
        closed.listen_on("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(closed.listen, "127.0.0.1:0".parse().unwrap());
        let refusal = closed.listen_on("0.0.0.0:0".parse().unwrap()).unwrap_err();
        assert!(refusal.ends_with("or set allow_public_without_auth = true"), "{refusal}");
        assert_eq!(closed.listen, "127.0.0.1:0".parse().unwrap());
        let mut open = accepted("server.allow_public_without_auth = true\n").server;
        open.listen_on("0.0.0.0:0".parse().unwrap()).unwrap();
    }

    #[test]
    fn loopback_is_known_in_all_its_spellings() {
        for address in ["127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            accepted(&format!("[server]\nlisten = \"{address}\"\n"));
        }
        for address in ["[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            assert!(refused(&format!("[server]\nlisten = \"{address}\"\n")).contains("without a key"));
        }
    }

    #[test]
    fn an_address_that_is_not_one_is_refused() {
        assert_eq!(
            refused("[server]\nlisten = \"localhost:80\"\n"),
            "t.toml:2:10: `listen` is `localhost:80`: write an ip address and a port, such as `127.0.0.1:8080`\n    \
             2 | listen = \"localhost:80\"\n      |          ^^^^^^^^^^^^^^"
        );
    }

    #[test]
    fn public_metrics_are_refused_even_when_the_api_may_be_public() {
        assert_eq!(
            refused("server.allow_public_without_auth = true\ntelemetry.metrics_listen = \"0.0.0.0:9\"\n"),
            "t.toml:2:28: metrics would be served on 0.0.0.0:9, where other machines can read them without a key: \
             use a loopback address such as 127.0.0.1, or ask for one with web_config_file or bearer_tokens\n    \
             2 | telemetry.metrics_listen = \"0.0.0.0:9\"\n      |                            ^^^^^^^^^^^"
        );
    }

    #[test]
    fn one_address_for_two_uses_is_refused_but_any_port_twice_is_not() {
        assert_eq!(
            refused("[server]\nlisten = \"127.0.0.1:9464\"\n"),
            "t.toml: server.listen and telemetry.metrics_listen are both 127.0.0.1:9464: give them different ports"
        );
        accepted("server.listen = \"127.0.0.1:0\"\ntelemetry.metrics_listen = \"127.0.0.1:0\"\n");
    }

    #[test]
    fn a_service_without_a_name_is_refused() {
        assert_eq!(
            refused("[telemetry]\nservice_name = \" \"\n"),
            "t.toml:2:16: `service_name` is empty: write some text\n    \
             2 | service_name = \" \"\n      |                ^^^"
        );
    }
}
