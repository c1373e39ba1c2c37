//! `OTEL_PROPAGATORS`: which headers carry a trace from one process to the next.

use super::{Env, Settings, list, shown, word};
use crate::propagation::Propagators;

const KNOWN: &str = "tracecontext, baggage, none";

// === impl Settings ===

impl Settings {
    pub(super) fn apply_propagators(&mut self, env: Env<'_>) {
        let Some(value) = env("OTEL_PROPAGATORS") else { return };
        let (mut found, mut none, mut unknown) = (Propagators::NONE, false, Vec::new());
        for name in list(&value) {
            match word(name).as_str() {
                "tracecontext" => found.trace_context = true,
                "baggage" => found.baggage = true,
                "none" => none = true,
                _ => unknown.push(shown(name)),
            }
        }
        if !unknown.is_empty() {
            let (names, verb) = (unknown.join("`, `"), if unknown.len() == 1 { "is" } else { "are" });
            self.warn(format!("OTEL_PROPAGATORS: `{names}` {verb} not among {KNOWN}: ignored"));
        }
        if none && found != Propagators::NONE {
            self.warn("OTEL_PROPAGATORS: `none` beside others says nothing: ignored".to_owned());
        }
        // Where nothing is left that can be honoured, it is as if nothing had been said.
        self.propagators = if none || found != Propagators::NONE { found } else { Propagators::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;

    #[test]
    fn each_value_says_which_headers_are_read() {
        let unknown = |names: &str| format!("OTEL_PROPAGATORS: {names} not among {KNOWN}: ignored");
        let beside = "OTEL_PROPAGATORS: `none` beside others says nothing: ignored".to_owned();
        for (value, trace_context, baggage, warnings) in [
            ("tracecontext,baggage", true, true, vec![]),
            ("tracecontext", true, false, vec![]),
            (" Baggage , ", false, true, vec![]),
            ("baggage,tracecontext,baggage", true, true, vec![]),
            ("none", false, false, vec![]),
            ("NONE", false, false, vec![]),
            ("tracecontext,none", true, false, vec![beside]),
            ("b3", true, true, vec![unknown("`b3` is")]),
            ("tracecontext,b3,jaeger", true, false, vec![unknown("`b3`, `jaeger` are")]),
            ("none,xray", false, false, vec![unknown("`xray` is")]),
            (",", true, true, vec![]),
        ] {
            let found = settings(&[("OTEL_PROPAGATORS", value)]);
            assert_eq!(found.propagators, Propagators { trace_context, baggage }, "{value}");
            assert_eq!(found.warnings, warnings, "{value}");
        }
    }
}
