//! What telemetry is told to do, by code and by the environment.
//!
//! An empty variable counts as unset. A value that cannot be honoured is a warning in the log and
//! never an error. Names in values are read in either case.

mod address;
mod propagators;
mod resource;
mod switches;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::delivery::Delivery;
use super::semconv::{self, Semconv};
use crate::propagation::Propagators;

/// What [`Telemetry::builder`](super::Telemetry::builder) collects.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) enabled: bool,
    /// The variable that switched telemetry off, for the log.
    pub(super) off_by: Option<String>,
    pub(super) service_name: String,
    /// Default: this library's.
    pub(super) service_version: Option<String>,
    /// What else `OTEL_RESOURCE_ATTRIBUTES` says of the service.
    pub(super) attributes: Vec<(String, String)>,
    pub(super) environment: Option<String>,
    pub(super) propagators: Propagators,
    /// Whether histograms show sampled traces.
    pub(super) exemplars: bool,
    pub(super) metrics: Option<SocketAddr>,
    #[cfg(feature = "endpoint")]
    pub(super) security: super::EndpointSecurity,
    /// How spans and pushed metrics leave.
    pub(super) delivery: Delivery,
    pub(super) semconv: Semconv,
    pub(super) warnings: Vec<String>,
}

pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            off_by: None,
            service_name: "throughline".to_owned(),
            service_version: None,
            attributes: Vec::new(),
            environment: None,
            propagators: Propagators::default(),
            exemplars: true,
            metrics: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464)),
            #[cfg(feature = "endpoint")]
            security: super::EndpointSecurity::default(),
            delivery: Delivery::default(),
            semconv: Semconv::default(),
            warnings: Vec::new(),
        }
    }
}

impl Settings {
    /// Lets the environment speak: it wins over what was set before.
    pub(super) fn apply(&mut self, env: Env<'_>) {
        let env = &|name: &str| env(name).filter(|value| !value.trim().is_empty());
        self.apply_switches(env);
        self.apply_resource(env);
        self.apply_propagators(env);
        self.apply_exemplars(env);
        self.apply_delivery(env);
        self.apply_address(env);
        semconv::apply(self, env);
        if env("OTEL_CONFIG_FILE").is_some() {
            self.warn("OTEL_CONFIG_FILE: configuration by file is not supported, the file is not read: set the variables instead".to_owned());
        }
    }

    fn apply_exemplars(&mut self, env: Env<'_>) {
        let Some(filter) = env("OTEL_METRICS_EXEMPLAR_FILTER") else { return };
        self.exemplars = true;
        match word(&filter).as_str() {
            "always_off" => self.exemplars = false,
            "trace_based" => {}
            "always_on" => self.warn(
                "OTEL_METRICS_EXEMPLAR_FILTER: `always_on` would show traces that were not recorded: trace_based is used".to_owned(),
            ),
            _ => self.warn(format!(
                "OTEL_METRICS_EXEMPLAR_FILTER: `{}` is not one of always_off, trace_based: trace_based is used",
                shown(&filter)
            )),
        }
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// How spans and pushed metrics leave, and whether metrics are served at all.
    fn apply_delivery(&mut self, env: Env<'_>) {
        let console = self.environment.as_deref() == Some("development");
        if !self.delivery.apply(env, console, &mut self.warnings) {
            self.metrics = None;
        }
    }
}

/// The members of a list with commas, those that say something.
fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|member| !member.is_empty())
}

/// A name as it is compared.
fn word(value: &str) -> String {
    value.trim().to_ascii_lowercase()
}

/// A value as it may be shown in a log: short, and without what a terminal would act on.
fn shown(value: &str) -> String {
    const LONGEST: usize = 40;
    let short: String = value.trim().chars().take(LONGEST).flat_map(char::escape_default).collect();
    if value.trim().chars().count() > LONGEST { short + "…" } else { short }
}

#[cfg(test)]
mod tests {
    use super::super::delivery::Traces;
    use super::*;

    /// The defaults after an environment of these variables has spoken.
    pub(super) fn settings(variables: &[(&str, &str)]) -> Settings {
        applied(Settings::default(), variables)
    }

    pub(super) fn applied(mut settings: Settings, variables: &[(&str, &str)]) -> Settings {
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
        assert_eq!(defaults.propagators, Propagators::default());
        assert!(defaults.exemplars);
        assert_eq!(defaults.warnings, [""; 0]);
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
    }

    #[test]
    fn says_what_it_cannot_honour() {
        let odd = settings(&[
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_METRICS_EXPORTER", "prometheus,statsd"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
        ]);
        assert_eq!(odd.warnings.len(), 3, "{:?}", odd.warnings);
        assert!(odd.metrics.is_some());
    }

    const GUIDE: &str = include_str!("../../../docs/guides/telemetry-environment.md");

    /// The variables that are not about exporters.
    const VARIABLES: [&str; 13] = [
        "ENABLE_OBSERVABILITY",
        "ENABLE_APM",
        "OTEL_SDK_DISABLED",
        "OTEL_SERVICE_NAME",
        "OTEL_RESOURCE_ATTRIBUTES",
        "SERVICE_NAME",
        "ENVIRONMENT",
        "OTEL_PROPAGATORS",
        "OTEL_EXPORTER_PROMETHEUS_HOST",
        "OTEL_EXPORTER_PROMETHEUS_PORT",
        "OTEL_METRICS_EXEMPLAR_FILTER",
        "OTEL_LOGS_EXPORTER",
        "OTEL_CONFIG_FILE",
    ];

    #[test]
    fn the_guide_has_a_row_for_every_variable() {
        for name in VARIABLES {
            assert!(GUIDE.contains(&format!("\n| `{name}` |")), "the guide is silent on {name}");
        }
    }

    #[test]
    fn every_variable_is_looked_at() {
        for name in VARIABLES {
            let asked = std::cell::Cell::new(false);
            let look = |wanted: &str| {
                asked.set(asked.get() || wanted == name);
                None
            };
            Settings::default().apply(&look);
            assert!(asked.get(), "{name}");
        }
    }

    #[test]
    fn an_empty_variable_is_an_unset_one() {
        for name in VARIABLES {
            for empty in ["", " ", "\t"] {
                let found = format!("{:?}", settings(&[(name, empty)]));
                assert_eq!(found, format!("{:?}", Settings::default()), "{name}");
            }
        }
    }

    #[test]
    fn exemplars_are_of_recorded_traces_or_not_there() {
        for (value, exemplars, warning) in [
            ("always_off", false, None),
            ("ALWAYS_OFF", false, None),
            ("trace_based", true, None),
            (
                "always_on",
                true,
                Some("`always_on` would show traces that were not recorded: trace_based is used"),
            ),
            ("some", true, Some("`some` is not one of always_off, trace_based: trace_based is used")),
        ] {
            let found = settings(&[("OTEL_METRICS_EXEMPLAR_FILTER", value)]);
            assert_eq!(found.exemplars, exemplars, "{value}");
            let expected = warning.map(|text| format!("OTEL_METRICS_EXEMPLAR_FILTER: {text}"));
            assert_eq!(found.warnings, Vec::from_iter(expected), "{value}");
        }
    }

    #[test]
    fn events_go_where_logs_are_sent_and_nowhere_else() {
        const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1");
        const OWN: (&str, &str) = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c:1/logs");
        let goes = |variables: &[(&str, &str)]| {
            let settings = settings(variables);
            assert_eq!(settings.warnings, [""; 0], "{variables:?}");
            settings.delivery.events.is_some()
        };
        assert!(goes(&[BASE]) && goes(&[OWN]) && goes(&[("OTEL_LOGS_EXPORTER", "otlp")]));
        assert!(!goes(&[]) && !goes(&[BASE, ("OTEL_LOGS_EXPORTER", "none")]));
        assert_eq!(
            settings(&[("OTEL_LOGS_EXPORTER", "otlp,console")]).warnings,
            ["OTEL_LOGS_EXPORTER: `console` is not one of otlp, none: ignored"]
        );
    }

    #[test]
    fn a_configuration_file_is_not_passed_over_in_silence() {
        assert_eq!(
            settings(&[("OTEL_CONFIG_FILE", "otel.yaml")]).warnings,
            [
                "OTEL_CONFIG_FILE: configuration by file is not supported, the file is not read: set the variables instead"
            ]
        );
    }

    #[test]
    fn a_shown_value_is_short_and_harmless() {
        assert_eq!(shown(" b3\u{1b}[31m\n"), "b3\\u{1b}[31m");
        assert_eq!(shown(&"x".repeat(41)), "x".repeat(40) + "…");
    }
}
