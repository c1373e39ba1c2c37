//! `OTEL_EXPORTER_OTLP_*`: how a receiver of OTLP is reached. A variable with the signal's name in it wins over the one
//! without.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::variables::Variables;

/// How a request is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::telemetry) enum Protocol {
    Grpc,
    #[default]
    Protobuf,
    Json,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Signal {
    Traces,
    Metrics,
    Logs,
}

/// How the receiver of one signal is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::telemetry) struct Otlp {
    pub(super) protocol: Protocol,
    base: Option<String>,
    own: Option<String>,
    insecure: bool,
    /// Sent with every request.
    pub(super) headers: Headers,
    /// How long one attempt may take. Default: 10 s.
    pub(super) timeout: Duration,
    /// Whether bodies are compressed. Default: no.
    pub(super) gzip: bool,
    /// What TLS needs beyond the certificates of this machine.
    pub(super) tls: TlsFiles,
}

/// Files in the PEM format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::telemetry) struct TlsFiles {
    /// Whom to trust, instead of the certificates of this machine.
    pub(super) authorities: Option<PathBuf>,
    /// Our own certificate, for a receiver that asks for one.
    pub(super) certificate: Option<PathBuf>,
    /// The key of our own certificate.
    pub(super) key: Option<PathBuf>,
}

/// Names and values. The values are secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub(in crate::telemetry) struct Headers(pub(super) Vec<(String, String)>);

// === impl Signal ===

impl Signal {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// What a message calls it.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "metrics",
            Self::Logs => "events",
        }
    }

    /// The variable of this signal that ends with `what`, and the one of all signals.
    fn names(self, what: &str) -> [String; 2] {
        let upper = self.as_str().to_ascii_uppercase();
        [format!("OTEL_EXPORTER_OTLP_{upper}_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")]
    }
}

// === impl Otlp ===

impl Default for Otlp {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            base: None,
            own: None,
            insecure: false,
            headers: Headers::default(),
            timeout: Duration::from_secs(10),
            gzip: false,
            tls: TlsFiles::default(),
        }
    }
}

impl Otlp {
    /// Whether the environment says where the receiver is.
    pub(super) fn has_endpoint(&self) -> bool {
        self.own.is_some() || self.base.is_some()
    }

    /// Where requests go. An address of the signal itself is used as it is; to one of all signals HTTP adds a path.
    pub(super) fn url(&self, protocol: Protocol, signal: Signal) -> String {
        let grpc = protocol == Protocol::Grpc;
        let default = if grpc { "http://localhost:4317" } else { "http://localhost:4318" };
        let given = self.own.as_deref().or(self.base.as_deref()).unwrap_or(default);
        let given = match given.contains("://") {
            true => given.to_owned(),
            false if grpc && !self.insecure => format!("https://{given}"),
            false => format!("http://{given}"),
        };
        match (grpc, &self.own) {
            (true, _) | (false, Some(_)) => given,
            (false, None) => format!("{}/v1/{}", given.trim_end_matches('/'), signal.as_str()),
        }
    }

    /// Host and port of the receiver, for people.
    pub(super) fn host(&self, protocol: Protocol, signal: Signal) -> String {
        let url = self.url(protocol, signal);
        let rest = url.split_once("://").map_or(&*url, |(_, rest)| rest);
        rest.split(['/', '?', '#']).next().unwrap_or_default().to_owned()
    }

    pub(super) fn apply(&mut self, signal: Signal, variables: &mut Variables<'_>) {
        self.apply_protocol(signal, variables);
        let [own, base] = signal.names("ENDPOINT");
        self.own = endpoint(&own, variables).or(self.own.take());
        self.base = endpoint(&base, variables).or(self.base.take());
        for name in signal.names("INSECURE").iter().rev() {
            variables.truth(name, &mut self.insecure);
        }
        if let Some((name, value)) = first(signal, "HEADERS", variables) {
            self.headers = Headers::read(&name, &value, variables);
        }
        let [own, base] = signal.names("TIMEOUT");
        variables.millis(&[&own, &base], &mut self.timeout);
        if let Some((name, value)) = first(signal, "COMPRESSION", variables) {
            self.gzip = value.eq_ignore_ascii_case("gzip");
            if !self.gzip && !value.eq_ignore_ascii_case("none") {
                variables.warn(format!("{name} is not one of gzip, none: bodies are not compressed"));
            }
        }
        let file = |what: &str, target: &mut Option<PathBuf>| {
            if let Some((_, value)) = first(signal, what, variables) {
                *target = Some(value.into());
            }
        };
        file("CERTIFICATE", &mut self.tls.authorities);
        file("CLIENT_CERTIFICATE", &mut self.tls.certificate);
        file("CLIENT_KEY", &mut self.tls.key);
    }

    fn apply_protocol(&mut self, signal: Signal, variables: &mut Variables<'_>) {
        let Some((name, value)) = first(signal, "PROTOCOL", variables) else { return };
        self.protocol = match value.to_ascii_lowercase().as_str() {
            "grpc" => Protocol::Grpc,
            "http/protobuf" => Protocol::Protobuf,
            "http/json" => Protocol::Json,
            _ => {
                variables.warn(format!(
                    "{name} is not one of grpc, http/protobuf, http/json: http/protobuf is used"
                ));
                Protocol::Protobuf
            }
        };
    }
}

fn first(signal: Signal, what: &str, variables: &Variables<'_>) -> Option<(String, String)> {
    signal.names(what).into_iter().find_map(|name| variables.get(&name).map(|value| (name, value)))
}

/// An address without the user and the password in it, which would end up in messages.
fn endpoint(name: &str, variables: &mut Variables<'_>) -> Option<String> {
    let given = variables.get(name)?;
    let (scheme, rest) = given.split_once("://").map_or(("", &*given), |(scheme, rest)| (scheme, rest));
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !authority.contains('@') && path.contains('@') {
        variables.warn(format!(
            "{name} has an `@` behind its host: if that ends a password with `/`, `?` or `#` in it, it is no address, so it \
             is ignored; in a path write %40"
        ));
        return None;
    }
    let Some((_, host)) = authority.rsplit_once('@') else { return Some(given) };
    variables.warn(format!(
        "{name} holds a user and a password, which are not sent: use OTEL_EXPORTER_OTLP_HEADERS for an authorization header"
    ));
    let colon = if scheme.is_empty() { "" } else { "://" };
    Some(format!("{scheme}{colon}{host}{path}"))
}

// === impl Headers ===

impl Headers {
    /// `name=value,name=value`, percent-encoded. What is malformed is left out, and only its place is said.
    fn read(variable: &str, text: &str, variables: &mut Variables<'_>) -> Self {
        let mut headers = Vec::new();
        for (at, pair) in text.split(',').enumerate().filter(|(_, pair)| !pair.trim().is_empty()) {
            match Self::pair(pair) {
                Some(header) => headers.push(header),
                None => variables
                    .warn(format!("{variable}: entry {} is not `name=value` of a header: left out", at + 1)),
            }
        }
        Self(headers)
    }

    fn pair(pair: &str) -> Option<(String, String)> {
        let decode = |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (decode(name)?.to_ascii_lowercase(), decode(value)?);
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let in_value = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        let fits = !name.is_empty() && name.bytes().all(in_name) && value.bytes().all(in_value);
        fits.then_some((name, value))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Set<'a> = &'a [(&'a str, &'a str)];

    fn read(signal: Signal, variables: Set<'_>) -> (Otlp, Vec<String>) {
        let env =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let (mut otlp, mut warnings) = (Otlp::default(), Vec::new());
        otlp.apply(signal, &mut Variables::new(&env, &mut warnings));
        (otlp, warnings)
    }

    #[test]
    fn endpoints_follow_the_rules_of_the_standard() {
        const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        const METRICS: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
        const INSECURE: &str = "OTEL_EXPORTER_OTLP_INSECURE";
        let (grpc, http) = (Protocol::Grpc, Protocol::Protobuf);
        let cases: [(Set<'_>, Protocol, &str); 14] = [
            (&[], grpc, "http://localhost:4317"),
            (&[], http, "http://localhost:4318/v1/traces"),
            (&[], Protocol::Json, "http://localhost:4318/v1/traces"),
            (&[(BASE, "http://c:1")], http, "http://c:1/v1/traces"),
            (&[(BASE, "http://c:1/")], http, "http://c:1/v1/traces"),
            (&[(BASE, "https://c/otlp/")], http, "https://c/otlp/v1/traces"),
            (&[(BASE, "http://c:1"), (OWN, "http://d:2/spans")], http, "http://d:2/spans"),
            (&[(BASE, "http://c:1"), (METRICS, "http://d:2/m")], http, "http://c:1/v1/traces"),
            (&[(BASE, "http://c:1")], grpc, "http://c:1"),
            (&[(BASE, "c:1")], grpc, "https://c:1"),
            (&[(BASE, "c:1"), (INSECURE, "TRUE")], grpc, "http://c:1"),
            (&[(BASE, "https://c:1"), (INSECURE, "true")], grpc, "https://c:1"),
            (
                &[(BASE, "c:1"), (INSECURE, "true"), ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false")],
                grpc,
                "https://c:1",
            ),
            (&[(BASE, "c:1")], http, "http://c:1/v1/traces"),
        ];
        for (variables, protocol, expected) in cases {
            let (otlp, warnings) = read(Signal::Traces, variables);
            assert_eq!(otlp.url(protocol, Signal::Traces), expected, "{variables:?}");
            assert_eq!(warnings, [""; 0], "{variables:?}");
        }
        let metrics = read(Signal::Metrics, &[(BASE, "http://c:1")]).0;
        assert_eq!(metrics.url(http, Signal::Metrics), "http://c:1/v1/metrics");
    }

    #[test]
    fn the_variables_of_a_signal_win() {
        let (otlp, warnings) = read(
            Signal::Traces,
            &[
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
                ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
                ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/all.pem"),
                ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/ca.pem"),
                ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert.pem"),
                ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
                ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2"),
            ],
        );
        let tls = TlsFiles {
            authorities: Some("/ca.pem".into()),
            certificate: Some("/cert.pem".into()),
            key: Some("/key.pem".into()),
        };
        let headers = Headers(vec![("b".to_owned(), "2".to_owned())]);
        let timeout = Duration::from_millis(250);
        let expected =
            Otlp { protocol: Protocol::Json, timeout, gzip: true, tls, headers, ..Otlp::default() };
        assert_eq!((otlp, warnings), (expected, Vec::new()));
    }

    #[test]
    fn headers_are_decoded_and_never_shown() {
        let value = "Authorization=Basic%20c2VjcmV0,x-tenant = a%2Cb ,,x-equals=a=b";
        let (otlp, warnings) = read(Signal::Traces, &[("OTEL_EXPORTER_OTLP_HEADERS", value)]);
        let expected = [("authorization", "Basic c2VjcmV0"), ("x-tenant", "a,b"), ("x-equals", "a=b")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!((otlp.headers.0.as_slice(), warnings), (expected.as_slice(), Vec::new()));
        let shown = format!("{otlp:?}");
        assert!(shown.contains("authorization") && !shown.contains("c2VjcmV0"), "{shown}");
    }

    #[test]
    fn what_is_no_header_is_left_out_and_not_repeated() {
        let value = "fine=1,s3cret,two words=2,=3,x=line%0Abreak,x=%ff";
        let (otlp, warnings) = read(Signal::Traces, &[("OTEL_EXPORTER_OTLP_HEADERS", value)]);
        assert_eq!(otlp.headers.0.len(), 1);
        let entries: Vec<_> = (2..=6)
            .map(|n| {
                format!("OTEL_EXPORTER_OTLP_HEADERS: entry {n} is not `name=value` of a header: left out")
            })
            .collect();
        assert_eq!(warnings, entries);
    }

    #[test]
    fn a_user_and_a_password_in_an_address_are_taken_out() {
        let variable = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://ann:pa%40ss@collector:4318/x@y")];
        let (otlp, warnings) = read(Signal::Traces, &variable);
        assert_eq!(otlp.url(Protocol::Protobuf, Signal::Traces), "https://collector:4318/x@y/v1/traces");
        assert_eq!(warnings.len(), 1);
        assert!(!warnings[0].contains("ann") && !format!("{otlp:?}").contains("pa%40ss"));
    }

    #[test]
    fn what_is_unknown_is_said() {
        let cases = [
            ("PROTOCOL", "thrift", "is not one of grpc, http/protobuf, http/json: http/protobuf is used"),
            ("COMPRESSION", "zstd", "is not one of gzip, none: bodies are not compressed"),
            ("TIMEOUT", "0", "is not a number of milliseconds above 0: 10000 are used"),
            ("INSECURE", "1", "is neither true nor false: it counts as false"),
        ];
        for (what, value, warning) in cases {
            let name = format!("OTEL_EXPORTER_OTLP_{what}");
            let (otlp, warnings) = read(Signal::Traces, &[(&name, value)]);
            assert_eq!(otlp, Otlp::default());
            assert_eq!(warnings, [format!("{name} {warning}")]);
        }
    }
}
