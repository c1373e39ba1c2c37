//! What telemetry is told to do, by code and by the environment.
//!
//! An empty variable counts as unset. A value that cannot be honoured is a warning in the log and
//! never an error.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where spans go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Traces {
    /// To an OTLP receiver, by gRPC.
    OtlpGrpc,
    /// To an OTLP receiver, by HTTP with protobuf bodies.
    OtlpHttp,
    /// To standard error, a line a span.
    Console,
}

/// What [`Telemetry::builder`](super::Telemetry::builder) collects.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) enabled: bool,
    /// The variable that switched telemetry off, for the log.
    pub(super) off_by: Option<String>,
    pub(super) service_name: String,
    pub(super) service_version: String,
    pub(super) environment: Option<String>,
    pub(super) metrics: Option<SocketAddr>,
    #[cfg(feature = "endpoint")]
    pub(super) security: super::EndpointSecurity,
    pub(super) traces: Vec<Traces>,
    /// Why spans cannot be sent by OTLP although that was asked for.
    pub(super) otlp_refused: Option<&'static str>,
    pub(super) warnings: Vec<String>,
}

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Variables of the standard that change nothing here, so that setting them deserves a word.
const NOT_HONOURED: [&str; 13] = [
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_CONFIG_FILE",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_LOGS_EXPORTER",
    "OTEL_PROPAGATORS",
    "OTEL_SEMCONV_STABILITY_OPT_IN",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
];

/// The samplers that the SDK knows; it reads the variable itself and takes every trace for any other.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            off_by: None,
            service_name: "throughline".to_owned(),
            service_version: env!("CARGO_PKG_VERSION").to_owned(),
            environment: None,
            metrics: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464)),
            #[cfg(feature = "endpoint")]
            security: super::EndpointSecurity::default(),
            traces: Vec::new(),
            otlp_refused: None,
            warnings: Vec::new(),
        }
    }
}

impl Settings {
    /// Lets the environment speak: it wins over what was set before.
    pub(super) fn apply(&mut self, env: Env<'_>) {
        let env = &|name: &str| env(name).filter(|value| !value.trim().is_empty());
        self.apply_switches(env);
        if let Some(name) = env("OTEL_SERVICE_NAME").or_else(|| env("SERVICE_NAME")) {
            self.service_name = name;
        }
        self.environment = env("ENVIRONMENT").or(self.environment.take());
        self.apply_metrics(env);
        self.apply_traces(env);
        if env("OTEL_TRACES_SAMPLER").is_some_and(|sampler| !SAMPLERS.contains(&sampler.as_str())) {
            self.warn(format!(
                "OTEL_TRACES_SAMPLER is not one of {}: every trace is taken",
                SAMPLERS.join(", ")
            ));
        }
        for name in NOT_HONOURED {
            if env(name).is_some() {
                self.warn(format!("{name} is set, which this version does not honour"));
            }
        }
    }

    /// `ENABLE_OBSERVABILITY` decides; `ENABLE_APM` is its alias; `OTEL_SDK_DISABLED` is the standard's.
    fn apply_switches(&mut self, env: Env<'_>) {
        for (name, off) in
            [("ENABLE_OBSERVABILITY", false), ("ENABLE_APM", false), ("OTEL_SDK_DISABLED", true)]
        {
            let Some(value) = env(name) else { continue };
            match parse_switch(&value) {
                Some(value) if value == off => {
                    self.enabled = false;
                    self.off_by = Some(format!("{name}={value}"));
                    return;
                }
                Some(_) if name == "ENABLE_OBSERVABILITY" => return,
                Some(_) => {}
                None => self.warn(format!("{name} is neither true nor false: ignored")),
            }
        }
    }

    fn apply_metrics(&mut self, env: Env<'_>) {
        if let Some(exporters) = env("OTEL_METRICS_EXPORTER") {
            let mut prometheus = false;
            for exporter in exporters.split(',').map(str::trim) {
                match exporter {
                    "prometheus" => prometheus = true,
                    "none" => {}
                    _ => self.warn(format!(
                        "OTEL_METRICS_EXPORTER: metrics are served to Prometheus only, not to `{exporter}`"
                    )),
                }
            }
            if !prometheus {
                self.metrics = None;
            }
        }
        let Some(mut address) = self.metrics else { return };
        if let Some(host) = env("OTEL_EXPORTER_PROMETHEUS_HOST") {
            let host = if host == "localhost" { "127.0.0.1" } else { &host };
            match host.parse() {
                Ok(ip) => address.set_ip(ip),
                Err(_) => self.warn("OTEL_EXPORTER_PROMETHEUS_HOST is not an IP address: ignored".to_owned()),
            }
        }
        if let Some(port) = env("OTEL_EXPORTER_PROMETHEUS_PORT") {
            match port.parse() {
                Ok(port) => address.set_port(port),
                Err(_) => self.warn("OTEL_EXPORTER_PROMETHEUS_PORT is not a port: ignored".to_owned()),
            }
        }
        self.metrics = Some(address);
    }

    fn apply_traces(&mut self, env: Env<'_>) {
        let endpoint =
            env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| env("OTEL_EXPORTER_OTLP_ENDPOINT"));
        if endpoint.as_ref().is_some_and(|url| url.starts_with("https:")) {
            self.otlp_refused = Some(
                "https to an OTLP receiver is not supported yet: use http to a collector on this machine",
            );
        }
        let exporters = match env("OTEL_TRACES_EXPORTER") {
            Some(exporters) => exporters,
            None if endpoint.is_some() => "otlp".to_owned(),
            None if self.environment.as_deref() == Some("development") => "console".to_owned(),
            None => return,
        };
        self.traces.clear();
        for exporter in exporters.split(',').map(str::trim) {
            match exporter {
                "otlp" => {
                    let transport = self.otlp_transport(env);
                    self.traces.push(transport);
                }
                "console" => self.traces.push(Traces::Console),
                "none" => {}
                other => self.warn(format!(
                    "OTEL_TRACES_EXPORTER: `{other}` is not one of otlp, console, none: ignored"
                )),
            }
        }
    }

    fn otlp_transport(&mut self, env: Env<'_>) -> Traces {
        let protocol =
            env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| env("OTEL_EXPORTER_OTLP_PROTOCOL"));
        match protocol.as_deref() {
            Some("grpc") => Traces::OtlpGrpc,
            None | Some("http/protobuf") => Traces::OtlpHttp,
            Some(_) => {
                self.warn(
                    "OTEL_EXPORTER_OTLP_PROTOCOL is not one of grpc, http/protobuf: http/protobuf is used"
                        .to_owned(),
                );
                Traces::OtlpHttp
            }
        }
    }

    fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }
}

/// Booleans of the standard are `true` and `false`; the common spellings are understood as well.
fn parse_switch(value: &str) -> Option<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        settings.apply(&|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        });
        settings
    }

    #[test]
    fn defaults_bother_nobody() {
        let defaults = settings(&[]);
        assert!(defaults.enabled);
        assert_eq!(defaults.service_name, "throughline");
        assert_eq!(defaults.metrics.unwrap().to_string(), "127.0.0.1:9464");
        assert_eq!(defaults.traces, [], "no console traces unless asked for");
        assert_eq!(defaults.warnings, [""; 0]);
    }

    #[test]
    fn each_switch_turns_everything_off_and_the_first_one_decides() {
        for (name, value) in
            [("ENABLE_OBSERVABILITY", "false"), ("ENABLE_APM", "False"), ("OTEL_SDK_DISABLED", "TRUE")]
        {
            let off = settings(&[(name, value)]);
            assert!(!off.enabled, "{name}");
            assert!(off.off_by.unwrap().starts_with(name));
        }
        assert!(settings(&[("ENABLE_OBSERVABILITY", "true"), ("ENABLE_APM", "false")]).enabled);
        assert!(settings(&[("ENABLE_OBSERVABILITY", "")]).enabled, "empty is unset");
        let unclear = settings(&[("ENABLE_OBSERVABILITY", "perhaps")]);
        assert!(unclear.enabled);
        assert_eq!(unclear.warnings, ["ENABLE_OBSERVABILITY is neither true nor false: ignored"]);
    }

    #[test]
    fn the_service_name_comes_from_the_environment() {
        assert_eq!(settings(&[("SERVICE_NAME", "old")]).service_name, "old");
        assert_eq!(settings(&[("SERVICE_NAME", "old"), ("OTEL_SERVICE_NAME", "new")]).service_name, "new");
    }

    #[test]
    fn exporters_follow_the_standard_variables() {
        let grpc =
            settings(&[("OTEL_TRACES_EXPORTER", "otlp,console"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert_eq!(grpc.traces, [Traces::OtlpGrpc, Traces::Console]);
        assert_eq!(
            settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")]).traces,
            [Traces::OtlpHttp]
        );
        assert_eq!(settings(&[("ENVIRONMENT", "development")]).traces, [Traces::Console]);
        assert_eq!(settings(&[("ENVIRONMENT", "development"), ("OTEL_TRACES_EXPORTER", "none")]).traces, []);
        assert_eq!(settings(&[("ENVIRONMENT", "production")]).traces, []);
        assert_eq!(settings(&[("OTEL_METRICS_EXPORTER", "none")]).metrics, None);
        let moved = settings(&[
            ("OTEL_EXPORTER_PROMETHEUS_HOST", "localhost"),
            ("OTEL_EXPORTER_PROMETHEUS_PORT", "9999"),
        ]);
        assert_eq!(moved.metrics.unwrap().to_string(), "127.0.0.1:9999");
    }

    #[test]
    fn refuses_an_otlp_receiver_that_it_could_not_reach() {
        assert!(
            settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318")]).otlp_refused.is_some()
        );
        assert!(settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")]).otlp_refused.is_none());
    }

    #[test]
    fn says_what_it_cannot_honour() {
        let odd = settings(&[
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_METRICS_EXPORTER", "prometheus,otlp"),
            ("OTEL_EXPORTER_PROMETHEUS_PORT", "many"),
            ("OTEL_CONFIG_FILE", "otel.yaml"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
        ]);
        assert_eq!(odd.warnings.len(), 5, "{:?}", odd.warnings);
        assert!(odd.metrics.is_some());
    }
}
