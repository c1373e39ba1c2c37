//! `OTEL_TRACES_SAMPLER`: which traces are recorded, decided where they begin.

use opentelemetry::TraceId;
use opentelemetry::trace::SpanContext;
use opentelemetry_sdk::trace::Sampler;

use super::variables::Variables;

/// The decision at the head of a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::telemetry) struct Head {
    /// Whether a trace that comes from elsewhere keeps the decision that was made there.
    by_parent: bool,
    /// The share of the other traces, 0 to 1.
    ratio: f64,
}

const VARIABLE: &str = "OTEL_TRACES_SAMPLER";
const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
const NAMES: &str = "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, \
                     parentbased_traceidratio";

// === impl Head ===

impl Default for Head {
    fn default() -> Self {
        Self { by_parent: true, ratio: 1.0 }
    }
}

impl Head {
    /// Whether it does as a parent in another process says.
    pub(in crate::telemetry) fn by_parent(self) -> bool {
        self.by_parent
    }

    pub(super) fn apply(&mut self, variables: &mut Variables<'_>) {
        let Some(name) = variables.word(VARIABLE) else { return };
        let (by_parent, rule) = match name.strip_prefix("parentbased_") {
            Some(rule) => (true, rule),
            None => (false, &*name),
        };
        let ratio = match rule {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => ratio(variables),
            _ => {
                variables.warn(format!("{VARIABLE} is not one of {NAMES}: parentbased_always_on is used"));
                *self = Self::default();
                return;
            }
        };
        *self = Self { by_parent, ratio };
    }

    /// Whether it ever declines a trace that begins here.
    pub(super) fn declines(self) -> bool {
        self.ratio < 1.0
    }

    /// Whether a span of `trace` under `parent`, which is not valid where there is none, is taken: what
    /// [`Head::sampler`] would say, without what it takes to ask it.
    pub(in crate::telemetry) fn samples(self, parent: &SpanContext, trace: TraceId) -> bool {
        if self.by_parent && parent.is_valid() {
            return parent.is_sampled();
        }
        self.ratio >= 1.0 || (self.ratio > 0.0 && share(trace) < bound(self.ratio))
    }

    /// The SDK's sampler.
    pub(in crate::telemetry) fn sampler(self) -> Sampler {
        let rule = if self.ratio >= 1.0 {
            Sampler::AlwaysOn
        } else if self.ratio <= 0.0 {
            Sampler::AlwaysOff
        } else {
            Sampler::TraceIdRatioBased(self.ratio)
        };
        if self.by_parent { Sampler::ParentBased(Box::new(rule)) } else { rule }
    }
}

/// Where a trace stands among all of them. As the SDK: half of the id's bits, and of those all but the last.
fn share(trace: TraceId) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = trace.to_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1
}

/// Which of them are taken: those below.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a ratio is between 0 and 1")]
fn bound(ratio: f64) -> u64 {
    (ratio * (1_u64 << 63) as f64) as u64
}

fn ratio(variables: &mut Variables<'_>) -> f64 {
    let Some(value) = variables.get(ARGUMENT) else { return 1.0 };
    match value.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
        _ => {
            variables.warn(format!("{ARGUMENT} is not a number from 0 to 1: every trace is taken"));
            1.0
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{
        SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    };
    use opentelemetry_sdk::trace::{SamplingDecision, ShouldSample as _};

    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Head, Vec<String>) {
        let env =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let (mut head, mut warnings) = (Head::default(), Vec::new());
        head.apply(&mut Variables::new(&env, &mut warnings));
        (head, warnings)
    }

    /// How many of a thousand traces under such a parent are taken, by the SDK's sampler as by ours.
    fn taken(head: Head, parent: Option<TraceFlags>) -> usize {
        let sampler = head.sampler();
        let mut ids = fastrand::Rng::with_seed(7);
        let taken = |_: &u32| {
            let trace = TraceId::from(ids.u128(1..));
            let mut cx = opentelemetry::Context::new();
            let mut under = SpanContext::NONE;
            if let Some(flags) = parent {
                under = SpanContext::new(trace, SpanId::from(1), flags, true, TraceState::NONE);
                cx = cx.with_remote_span_context(under.clone());
            }
            let result = sampler.should_sample(Some(&cx), trace, "x", &SpanKind::Internal, &[], &[]);
            let taken = result.decision == SamplingDecision::RecordAndSample;
            assert_eq!(head.samples(&under, trace), taken, "{head:?} of {trace} under {under:?}");
            taken
        };
        (0..1000).filter(taken).count()
    }

    #[test]
    fn all_six_samplers_decide_as_their_names_say() {
        let (on, off) = (Some(TraceFlags::SAMPLED), Some(TraceFlags::NOT_SAMPLED));
        let (all, some, none) = (1000..=1000, 200..=300, 0..=0);
        let cases = [
            ("always_on", &all, &all, &all),
            ("always_off", &none, &none, &none),
            ("traceidratio", &some, &some, &some),
            ("parentbased_always_on", &all, &all, &none),
            ("parentbased_always_off", &none, &all, &none),
            ("parentbased_traceidratio", &some, &all, &none),
        ];
        for (name, root, sampled, unsampled) in cases {
            let (head, warnings) = read(&[(VARIABLE, name), (ARGUMENT, "0.25")]);
            assert_eq!(warnings, [""; 0]);
            for (parent, expected) in [(None, root), (on, sampled), (off, unsampled)] {
                assert!(expected.contains(&taken(head, parent)), "{name} under {parent:?}");
            }
        }
    }

    #[test]
    fn the_default_takes_what_begins_here_and_follows_others() {
        let (head, _) = read(&[]);
        assert_eq!((taken(head, None), taken(head, Some(TraceFlags::NOT_SAMPLED))), (1000, 0));
    }

    #[test]
    fn what_is_no_sampler_or_no_ratio_is_said() {
        let (head, warnings) = read(&[(VARIABLE, "xray")]);
        assert_eq!(head, Head::default());
        assert!(
            warnings[0].ends_with("parentbased_traceidratio: parentbased_always_on is used"),
            "{warnings:?}"
        );
        for argument in ["1.5", "-0.1", "NaN", "half"] {
            let (head, warnings) = read(&[(VARIABLE, "traceidratio"), (ARGUMENT, argument)]);
            assert_eq!(head, Head { by_parent: false, ratio: 1.0 });
            assert_eq!(
                warnings,
                ["OTEL_TRACES_SAMPLER_ARG is not a number from 0 to 1: every trace is taken"]
            );
        }
        assert_eq!(read(&[(VARIABLE, "traceidratio")]).0, Head { by_parent: false, ratio: 1.0 });
    }
}
