//! The requests, and the trace that each of them must become.

use super::span::Tree;

/// What no backend may ever see.
pub(crate) const QUESTION: &str = "the-question-of-the-run";
pub(crate) const ANSWER: &str = "the-answer-of-the-run";
pub(crate) const REASON: &str = "the-reason-of-the-provider";
pub(crate) const UPSTREAM_KEY: &str = "the-key-of-the-gateway";
pub(crate) const CLIENT_KEY: &str = "the-key-of-the-client";
pub(crate) const SECRETS: [&str; 5] = [QUESTION, ANSWER, REASON, UPSTREAM_KEY, CLIENT_KEY];

/// What the provider does, by words in the prompt; only the first time a request comes, where that is said.
pub(crate) const FAIL_FIRST: &str = "please fail first";
pub(crate) const HANG_FIRST: &str = "please be slow first";
pub(crate) const HANG: &str = "please hang";

/// A request to the gateway, except [`Case::Parallel`]: no configuration makes branches, the library does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Miss,
    Hit,
    Routed,
    Retried,
    Hedged,
    TimedOut,
    Cancelled,
    Streamed,
    Parallel,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) model: &'static str,
    pub(crate) prompt: String,
    pub(crate) stream: bool,
    /// Whether the client goes away in the middle of the answer.
    pub(crate) leave: bool,
    /// What the gateway must answer.
    pub(crate) status: u16,
}

/// The models that the cases name, each with the wrappers that its case is about.
pub(crate) const MODELS: &str = r#"
[models.cached]
cache = { ttl = "1h" }
timeout = { limit = "1h" }
[models.cached.routes.only]
provider = "up"
model = "gpt-4o-mini"

[models.routed]
default_route = "cheap"
rules = [{ route = "dear", when = { prompt_chars_at_least = 500 } }]
[models.routed.routes.cheap]
provider = "up"
model = "gpt-4o-mini"
[models.routed.routes.dear]
provider = "up"
model = "gpt-4o"

[models.retried.routes.only]
provider = "up"
model = "gpt-4o-mini"
retry = { attempts = 2, first_delay = "1ms", longest_delay = "1ms" }

[models.hedged.routes.only]
provider = "up"
model = "gpt-4o-mini"
hedge = { after = "50ms" }

[models.hasty]
timeout = { limit = "1s" }
[models.hasty.routes.only]
provider = "up"
model = "gpt-4o-mini"

[models.plain.routes.only]
provider = "up"
model = "gpt-4o-mini"
"#;

// === impl Case ===

impl Case {
    /// In the order in which they are sent: the hit is of what the miss has stored.
    pub(crate) const ALL: [Self; 9] = [
        Self::Miss,
        Self::Hit,
        Self::Routed,
        Self::Retried,
        Self::Hedged,
        Self::TimedOut,
        Self::Cancelled,
        Self::Streamed,
        Self::Parallel,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Hit => "hit",
            Self::Routed => "routed",
            Self::Retried => "retried",
            Self::Hedged => "hedged",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Streamed => "streamed",
            Self::Parallel => "parallel",
        }
    }

    /// How the provider knows it.
    pub(crate) fn marker(self) -> String {
        format!("<{}>", self.name())
    }

    /// The prompt that asks the provider to `act`.
    pub(crate) fn prompt(self, act: &str) -> String {
        format!("{} {QUESTION} {act}", self.marker())
    }

    /// `None` for what is not a request to the gateway.
    pub(crate) fn ask(self) -> Option<Ask> {
        let ask = |model, act: &str| Ask {
            model,
            prompt: self.prompt(act),
            stream: false,
            leave: false,
            status: 200,
        };
        Some(match self {
            Self::Miss => ask("cached", ""),
            Self::Hit => return Self::Miss.ask(),
            Self::Routed => ask("routed", &"at length ".repeat(60)),
            Self::Retried => ask("retried", FAIL_FIRST),
            Self::Hedged => ask("hedged", HANG_FIRST),
            Self::TimedOut => Ask { status: 504, ..ask("hasty", HANG) },
            Self::Cancelled => Ask { stream: true, leave: true, ..ask("plain", HANG) },
            Self::Streamed => Ask { stream: true, ..ask("plain", "") },
            Self::Parallel => return None,
        })
    }

    /// Parents, names, kinds and ends.
    pub(crate) fn tree(self) -> Tree {
        match self {
            Self::Miss => MISS.to_owned(),
            Self::Hit => HIT.to_owned(),
            Self::Routed => ROUTED.to_owned(),
            Self::Retried => RETRIED.to_owned(),
            Self::Hedged => HEDGED.to_owned(),
            Self::TimedOut => TIMED_OUT.to_owned(),
            Self::Cancelled => {
                PLAIN.replace("(ok)", "(error: cancelled)").replace(ANSWERED_FIRST, "  CLIENT POST (ok)")
            }
            Self::Streamed => PLAIN.to_owned(),
            Self::Parallel => PARALLEL.to_owned(),
        }
    }

    /// What the attributes say of what happened: span, attribute, value.
    pub(crate) fn told(self) -> &'static [(&'static str, &'static str, &'static str)] {
        match self {
            Self::Miss => &[("cache cached", "throughline.cache.outcome", "miss")],
            Self::Hit => &[("cache cached", "throughline.cache.outcome", "hit")],
            Self::Routed => &[("router routed", "throughline.router.route", "dear")],
            Self::Retried => &[
                ("retry retried/only", "throughline.outcome", "recovered"),
                ("retry retried/only", "throughline.retry.attempts", "2"),
            ],
            Self::Hedged => &[("hedge hedged/only", "throughline.hedge.won_by", "hedge_1")],
            Self::TimedOut => &[
                ("timeout hasty", "throughline.outcome", "timeout"),
                ("POST /v1/chat/completions", "http.response.status_code", "504"),
            ],
            Self::Cancelled | Self::Streamed => &[("chat gpt-4o-mini", "gen_ai.request.stream", "true")],
            Self::Parallel => &[("parallel both", "throughline.outcome", "success")],
        }
    }
}

const MISS: &str = "\
SERVER POST /v1/chat/completions (ok)
  INTERNAL invoke_workflow cached (ok)
    INTERNAL timeout cached (ok)
      INTERNAL cache cached (ok)
        INTERNAL router cached (ok)
          CLIENT chat gpt-4o-mini (ok)
            CLIENT POST (ok)
";

const HIT: &str = "\
SERVER POST /v1/chat/completions (ok)
  INTERNAL invoke_workflow cached (ok)
    INTERNAL timeout cached (ok)
      INTERNAL cache cached (ok)
";

const ROUTED: &str = "\
SERVER POST /v1/chat/completions (ok)
  INTERNAL invoke_workflow routed (ok)
    INTERNAL router routed (ok)
      CLIENT chat gpt-4o (ok)
        CLIENT POST (ok)
";

const RETRIED: &str = "\
SERVER POST /v1/chat/completions (ok)
  INTERNAL invoke_workflow retried (ok)
    INTERNAL router retried (ok)
      INTERNAL retry retried/only (ok)
        CLIENT chat gpt-4o-mini (error: upstream)
          CLIENT POST (error: upstream)
        CLIENT chat gpt-4o-mini (ok)
          CLIENT POST (ok)
";

/// The first attempt hangs, so the second one wins.
const HEDGED: &str = "\
SERVER POST /v1/chat/completions (ok)
  INTERNAL invoke_workflow hedged (ok)
    INTERNAL router hedged (ok)
      INTERNAL hedge hedged/only (ok)
        CLIENT chat gpt-4o-mini (error: cancelled)
          CLIENT POST (error: cancelled)
        CLIENT chat gpt-4o-mini (ok)
          CLIENT POST (ok)
";

const TIMED_OUT: &str = "\
SERVER POST /v1/chat/completions (error: 504)
  INTERNAL invoke_workflow hasty (error: timeout)
    INTERNAL timeout hasty (error: timeout)
      INTERNAL router hasty (error: cancelled)
        CLIENT chat gpt-4o-mini (error: cancelled)
          CLIENT POST (error: cancelled)
";

const PLAIN: &str = "\
SERVER POST /v1/chat/completions (ok)
  INTERNAL invoke_workflow plain (ok)
    INTERNAL router plain (ok)
      CLIENT chat gpt-4o-mini (ok)
        CLIENT POST (ok)
";

/// The provider had begun to answer when the client left, and a call ends with the head of its answer.
const ANSWERED_FIRST: &str = "  CLIENT POST (error: cancelled)";

const PARALLEL: &str = "\
INTERNAL invoke_workflow two_models (ok)
  INTERNAL parallel both (ok)
    CLIENT chat gpt-4o (ok)
      CLIENT POST (ok)
    CLIENT chat gpt-4o-mini (ok)
      CLIENT POST (ok)
  INTERNAL step prepare (ok)
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_is_the_same_request_as_the_miss_before_it() {
        let at = |wanted| Case::ALL.into_iter().position(|case| case == wanted);
        assert!(at(Case::Miss) < at(Case::Hit));
        assert_eq!(Case::Hit.ask(), Case::Miss.ask());
    }

    #[test]
    fn every_model_that_is_asked_is_configured() {
        for ask in Case::ALL.into_iter().filter_map(Case::ask) {
            assert!(MODELS.contains(&format!("[models.{}", ask.model)), "{}", ask.model);
        }
    }

    #[test]
    fn only_the_call_of_a_cancelled_stream_ended_well() {
        let tree = Case::Cancelled.tree();
        let well: Vec<_> = tree.lines().filter(|line| line.ends_with("(ok)")).collect();
        assert_eq!(well, ["        CLIENT POST (ok)"], "{tree}");
    }

    #[test]
    fn every_span_that_must_tell_something_is_in_its_tree() {
        for case in Case::ALL {
            for (span, ..) in case.told() {
                assert!(case.tree().contains(&format!(" {span} (")), "{span} in\n{}", case.tree());
            }
        }
    }
}
