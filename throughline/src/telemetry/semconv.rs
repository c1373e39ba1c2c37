//! Which names of the GenAI conventions are used, and whether content is recorded.
//!
//! The conventions are still in development, and metrics of model calls are being renamed. The names of version
//! 1.41, which dashboards and backends read today, are the default; the standard's switch gives the newer ones, or both.

use super::settings::{Env, Settings};

/// The names of the GenAI metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GenAiNames {
    /// Those of the semantic conventions 1.41.
    #[default]
    V1_41,
    /// Those of the conventions that are being written.
    Latest,
    /// Both, side by side.
    Both,
}

/// What of the GenAI conventions a telemetry instance follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Semconv {
    /// Which names metrics have. Default: those of 1.41.
    pub gen_ai: GenAiNames,
    /// Whether spans carry what was asked and answered, redacted and cut. Default: false.
    pub content: bool,
    /// Whether what was asked and answered, redacted and cut, is recorded as an event of its own
    /// (`gen_ai.client.inference.operation.details`), which is sent as a log record. Default: false.
    pub events: bool,
}

// === impl GenAiNames ===

impl GenAiNames {
    /// Whether the names of 1.41 are used.
    #[must_use]
    pub const fn v1_41(self) -> bool {
        matches!(self, Self::V1_41 | Self::Both)
    }

    /// Whether the newer names are used.
    #[must_use]
    pub const fn latest(self) -> bool {
        matches!(self, Self::Latest | Self::Both)
    }
}

// === impl Semconv ===

impl Semconv {
    /// With these names.
    #[must_use]
    pub const fn named(self, gen_ai: GenAiNames) -> Self {
        Self { gen_ai, ..self }
    }

    /// With or without content on spans.
    #[must_use]
    pub const fn with_content(self, content: bool) -> Self {
        Self { content, ..self }
    }

    /// With or without events that carry content. Who receives them is said by the environment: `OTEL_EXPORTER_OTLP_ENDPOINT`
    /// and its like.
    #[must_use]
    pub const fn with_events(self, events: bool) -> Self {
        Self { events, ..self }
    }
}

const OPT_IN: &str = "OTEL_SEMCONV_STABILITY_OPT_IN";
const LATEST: &str = "gen_ai_latest_experimental";
const BOTH: &str = "gen_ai_latest_experimental/dup";
const CAPTURE: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";

/// Lets the environment choose.
pub(super) fn apply(settings: &mut Settings, env: Env<'_>) {
    if let Some(list) = env(OPT_IN) {
        opt_in(settings, &list);
    }
    if let Some(value) = env(CAPTURE) {
        capture(settings, value.trim());
    }
}

/// A list with commas, in which other conventions have entries of their own.
fn opt_in(settings: &mut Settings, list: &str) {
    let mut names = GenAiNames::default();
    for entry in list.split(',').map(str::trim) {
        match entry {
            BOTH => names = GenAiNames::Both,
            LATEST if names != GenAiNames::Both => names = GenAiNames::Latest,
            LATEST => {}
            unknown if unknown.starts_with("gen_ai") => settings
                .warn(format!("{OPT_IN}: an entry for gen_ai is neither `{LATEST}` nor `{BOTH}`: ignored")),
            _ => {}
        }
    }
    settings.semconv.gen_ai = names;
}

fn capture(settings: &mut Settings, value: &str) {
    let is = |word: &str| value.eq_ignore_ascii_case(word);
    let (content, events) = if is("true") || is("SPAN_ONLY") {
        (true, false)
    } else if is("EVENT_ONLY") {
        (false, true)
    } else if is("SPAN_AND_EVENT") {
        (true, true)
    } else if is("false") || is("NO_CONTENT") {
        (false, false)
    } else {
        return settings.warn(format!(
            "{CAPTURE} is none of true, false, NO_CONTENT, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT: \
             no content is recorded"
        ));
    };
    (settings.semconv.content, settings.semconv.events) = (content, events);
}

/// What is to be said of events that are wanted and do not come: they have no receiver, or no span, because nothing is `traced`.
pub(super) fn unheard(settings: &Settings, traced: bool) -> Option<&'static str> {
    match settings.semconv.events {
        true if settings.delivery.events.is_none() => Some(
            "events with content are asked for, which nobody takes: set OTEL_EXPORTER_OTLP_ENDPOINT, and OTEL_LOGS_EXPORTER to \
             otlp if it is set",
        ),
        true if !traced => Some(
            "events with content are asked for, and none will come: they belong to spans, and no traces are exported; set \
             OTEL_TRACES_EXPORTER to otlp and OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> (Semconv, Vec<String>) {
        let mut settings = Settings::default();
        settings.apply(&|asked| (asked == name).then(|| value.to_owned()));
        (settings.semconv, settings.warnings)
    }

    #[test]
    fn the_names_are_those_of_1_41_unless_newer_ones_are_asked_for() {
        for (value, names) in [
            ("", GenAiNames::V1_41),
            ("http,database/dup", GenAiNames::V1_41),
            ("gen_ai_latest_experimental", GenAiNames::Latest),
            (" http , gen_ai_latest_experimental/dup", GenAiNames::Both),
            ("gen_ai_latest_experimental/dup,gen_ai_latest_experimental", GenAiNames::Both),
        ] {
            let (semconv, warnings) = with(OPT_IN, value);
            assert_eq!((semconv.gen_ai, warnings.len()), (names, 0), "{value}: {warnings:?}");
        }
        let (semconv, warnings) = with(OPT_IN, "gen_ai,http");
        assert_eq!(semconv.gen_ai, GenAiNames::V1_41);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn content_is_recorded_only_when_that_is_asked_for() {
        assert!(!Semconv::default().content);
        for (value, content, events, warned) in [
            ("true", true, false, 0),
            ("TRUE", true, false, 0),
            ("SPAN_ONLY", true, false, 0),
            ("span_and_event", true, true, 0),
            ("false", false, false, 0),
            ("NO_CONTENT", false, false, 0),
            ("EVENT_ONLY", false, true, 0),
            ("yes", false, false, 1),
        ] {
            let (semconv, warnings) = with(CAPTURE, value);
            assert_eq!((semconv.content, semconv.events), (content, events), "{value}");
            assert_eq!(warnings.len(), warned, "{value}: {warnings:?}");
        }
    }

    #[test]
    fn events_that_will_not_come_are_said_to() {
        let unheard = |events: bool, variables: &[(&str, &str)]| {
            let mut settings = Settings::default();
            settings.apply(&|asked| {
                let set = variables.iter().find(|(name, _)| *name == asked)?;
                Some(set.1.to_owned())
            });
            settings.semconv = settings.semconv.with_events(events);
            unheard(&settings, settings.delivery.traces())
        };
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1");
        let for_logs = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c:1/v1/logs");
        let no_traces = ("OTEL_TRACES_EXPORTER", "none");
        assert_eq!(unheard(false, &[]), None);
        assert_eq!(unheard(true, &[endpoint]), None);
        assert!(unheard(true, &[]).unwrap().contains("which nobody takes"));
        for without_traces in [&[for_logs][..], &[endpoint, no_traces]] {
            assert!(unheard(true, without_traces).unwrap().contains("no traces are exported"));
        }
    }
}
