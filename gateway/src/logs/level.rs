//! What is logged at all: by the environment, else by the configuration, else by what this is.

use tracing_subscriber::EnvFilter;

/// The least important lines that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What telemetry says of itself.
const TELEMETRY: [&str; 2] = ["opentelemetry", "throughline::telemetry"];

// === impl Level ===

impl Level {
    /// The names, the quietest first.
    pub(crate) const NAMES: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    /// By its name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
        Self::NAMES.iter().position(|known| *known == name).map(|at| all[at])
    }

    fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// The filter, and what of the environment could not be honoured.
pub(super) fn filter(configured: Option<Level>, quiet: bool, env: Env<'_>) -> (EnvFilter, Vec<String>) {
    let env = |name: &str| env(name).filter(|value| !value.trim().is_empty());
    let mut complaints = Vec::new();
    let mut wanted = default(configured, quiet, &env);
    if let Some(asked) = env("THROUGHLINE_LOG") {
        match EnvFilter::try_new(&asked) {
            Ok(_) => wanted = asked,
            Err(error) => {
                complaints.push(format!("THROUGHLINE_LOG is no log filter ({error}): logging at {wanted}"));
            }
        }
    }
    if let Some(asked) = env("OTEL_LOG_LEVEL") {
        match telemetry(&asked) {
            Some(level) => {
                let directives = TELEMETRY.map(|target| format!("{target}={}", level.as_str()));
                wanted = format!("{},{wanted}", directives.join(","));
            }
            None => complaints.push(
                "OTEL_LOG_LEVEL is not one of none, error, warn, info, debug, trace: ignored".to_owned(),
            ),
        }
    }
    (EnvFilter::new(wanted), complaints)
}

/// In production, warnings and errors, and what telemetry says of itself: that it is switched off is no warning, and has to
/// be found all the same.
fn default(configured: Option<Level>, quiet: bool, env: Env<'_>) -> String {
    match configured {
        Some(level) => level.as_str().to_owned(),
        // The demonstration's requests fail on purpose now and then: its report counts them.
        None if quiet => "warn,throughline::requests=off".to_owned(),
        None if env("ENVIRONMENT").as_deref() == Some("production") => {
            "warn,throughline::telemetry=info".to_owned()
        }
        None => "info".to_owned(),
    }
}

fn telemetry(name: &str) -> Option<Level> {
    match name.trim().to_ascii_lowercase().as_str() {
        "none" => Some(Level::Off),
        "warning" => Some(Level::Warn),
        "verbose" | "all" => Some(Level::Trace),
        "fatal" => Some(Level::Error),
        other => Level::named(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(configured: Option<Level>, quiet: bool, variables: &[(&str, &str)]) -> (String, Vec<String>) {
        let env =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let (filter, complaints) = filter(configured, quiet, &env);
        (filter.to_string(), complaints)
    }

    #[test]
    fn the_environment_wins_over_the_configuration_and_that_over_the_default() {
        let none: &[(&str, &str)] = &[];
        assert_eq!(shown(None, false, none).0, "info");
        assert_eq!(shown(Some(Level::Debug), false, none).0, "debug");
        assert_eq!(shown(Some(Level::Debug), false, &[("THROUGHLINE_LOG", "error")]).0, "error");
        assert_eq!(shown(None, false, &[("THROUGHLINE_LOG", " ")]).0, "info", "empty is unset");
    }

    #[test]
    fn production_is_quieter_unless_it_is_told_otherwise() {
        let production = &[("ENVIRONMENT", "production")];
        assert_eq!(shown(None, false, production).0, "throughline::telemetry=info,warn");
        assert_eq!(shown(Some(Level::Info), false, production).0, "info");
        assert_eq!(shown(None, false, &[("ENVIRONMENT", "development")]).0, "info");
        assert_eq!(shown(None, true, &[]).0, "throughline::requests=off,warn");
    }

    #[test]
    fn the_standards_variable_is_about_telemetry() {
        let (filter, complaints) = shown(None, false, &[("OTEL_LOG_LEVEL", "DEBUG")]);
        assert_eq!(filter, "throughline::telemetry=debug,opentelemetry=debug,info");
        assert_eq!(complaints, [""; 0]);
        assert!(shown(None, false, &[("OTEL_LOG_LEVEL", "none")]).0.contains("opentelemetry=off"));
    }

    #[test]
    fn what_cannot_be_honoured_is_said() {
        let (filter, complaints) =
            shown(None, false, &[("THROUGHLINE_LOG", "a=b=c=["), ("OTEL_LOG_LEVEL", "loud")]);
        assert_eq!(filter, "info");
        assert!(complaints[0].starts_with("THROUGHLINE_LOG is no log filter ("), "{complaints:?}");
        assert!(complaints[0].ends_with("): logging at info"), "{complaints:?}");
        assert_eq!(
            complaints[1],
            "OTEL_LOG_LEVEL is not one of none, error, warn, info, debug, trace: ignored"
        );
    }
}
