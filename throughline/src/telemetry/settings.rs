//! What telemetry is told to do, by code and by the environment.
//!
//! An empty variable counts as unset. A value that cannot be honoured is a warning in the log and
//! never an error.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::delivery::Delivery;

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
    /// How spans and pushed metrics leave.
    pub(super) delivery: Delivery,
    pub(super) warnings: Vec<String>,
}

pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Variables of the standard that change nothing here, so that setting them deserves a word.
const NOT_HONOURED: [&str; 4] =
    ["OTEL_CONFIG_FILE", "OTEL_LOGS_EXPORTER", "OTEL_PROPAGATORS", "OTEL_SEMCONV_STABILITY_OPT_IN"];

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
            delivery: Delivery::default(),
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
        let console = self.environment.as_deref() == Some("development");
        if !self.delivery.apply(env, console, &mut self.warnings) {
            self.metrics = None;
        }
        self.apply_metrics(env);
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
    use super::super::delivery::Traces;
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
        assert_eq!(defaults.delivery.traces, [], "no console traces unless asked for");
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
        assert_eq!(settings(&[("ENVIRONMENT", "development")]).delivery.traces, [Traces::Console]);
        assert_eq!(
            settings(&[("ENVIRONMENT", "development"), ("OTEL_TRACES_EXPORTER", "none")]).delivery.traces,
            []
        );
        assert_eq!(settings(&[("ENVIRONMENT", "production")]).delivery.traces, []);
        assert_eq!(settings(&[("OTEL_METRICS_EXPORTER", "none")]).metrics, None);
        let moved = settings(&[
            ("OTEL_EXPORTER_PROMETHEUS_HOST", "localhost"),
            ("OTEL_EXPORTER_PROMETHEUS_PORT", "9999"),
        ]);
        assert_eq!(moved.metrics.unwrap().to_string(), "127.0.0.1:9999");
    }

    #[test]
    fn says_what_it_cannot_honour() {
        let odd = settings(&[
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_METRICS_EXPORTER", "prometheus,statsd"),
            ("OTEL_EXPORTER_PROMETHEUS_PORT", "many"),
            ("OTEL_CONFIG_FILE", "otel.yaml"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
        ]);
        assert_eq!(odd.warnings.len(), 5, "{:?}", odd.warnings);
        assert!(odd.metrics.is_some());
    }
}
