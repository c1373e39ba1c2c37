//! `[trace_context]`: what is believed of a caller's trace, and which providers learn of ours.

use std::net::SocketAddr;

use serde::Deserialize;
use toml::Spanned;

use super::check::Check;
use super::error::unknown;
use super::provider::Provider;
use super::server::is_public;

/// What is believed of a request's `traceparent`, `tracestate` and `baggage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inbound {
    /// All: the caller's trace is continued, its decision on recording is kept, its baggage is taken over.
    Trust,
    /// That there is such a trace: the request begins its own, which points at it.
    Link,
    /// Nothing.
    Ignore,
}

/// How traces come in and go out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TraceContext {
    /// What is believed of callers. Default: `trust` on a loopback address, else `link`.
    inbound: Option<Inbound>,
    /// The providers that are sent a `traceparent`; each exists, is called over HTTP and is named once. Default: none.
    pub(crate) forward_to: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct TraceContextFile {
    inbound: Option<Spanned<String>>,
    #[serde(default)]
    forward_to: Vec<Spanned<String>>,
}

// === impl TraceContext ===

impl TraceContext {
    /// What is believed of those who call on `listen`.
    pub(crate) fn inbound(&self, listen: SocketAddr) -> Inbound {
        self.inbound.unwrap_or(if is_public(listen) { Inbound::Link } else { Inbound::Trust })
    }

    /// Whether the provider called `name` is sent a `traceparent`.
    pub(crate) fn forwards_to(&self, name: &str) -> bool {
        self.forward_to.iter().any(|provider| provider == name)
    }
}

// === impl TraceContextFile ===

impl TraceContextFile {
    /// Checks the section.
    pub(super) fn check(self, check: &mut Check<'_>, providers: &[(String, Kind)]) -> TraceContext {
        TraceContext {
            inbound: self.inbound.and_then(|written| inbound(&written, check)),
            forward_to: forward_to(self.forward_to, providers, check),
        }
    }
}

/// Whether a provider is called over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is.
    Http,
    /// It is in this process.
    Inside,
}

// === impl Kind ===

impl From<&Provider> for Kind {
    fn from(provider: &Provider) -> Self {
        match provider {
            Provider::OpenAi(_) => Self::Http,
            Provider::Simulated(_) => Self::Inside,
        }
    }
}

fn inbound(written: &Spanned<String>, check: &mut Check<'_>) -> Option<Inbound> {
    match written.get_ref().as_str() {
        "trust" => Some(Inbound::Trust),
        "link" => Some(Inbound::Link),
        "ignore" => Some(Inbound::Ignore),
        other => {
            let problem = unknown("choice", other, "allowed", ["trust", "link", "ignore"]);
            check.refuse(written.span(), problem);
            None
        }
    }
}

fn forward_to(
    written: Vec<Spanned<String>>,
    providers: &[(String, Kind)],
    check: &mut Check<'_>,
) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for provider in written {
        let name = provider.get_ref();
        check.known("provider", &provider, "configured", providers.iter().map(|(name, _)| name.as_str()));
        if found.contains(name) {
            check.refuse(
                provider.span(),
                format!("`{name}` is in `forward_to` already: name a provider once"),
            );
        }
        if providers.iter().any(|(known, kind)| known == name && *kind == Kind::Inside) {
            let problem = format!("`{name}` is simulated and is sent nothing: take it out of `forward_to`");
            check.refuse(provider.span(), problem);
        }
        found.push(provider.into_inner());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{accepted, refused};

    const OPENAI: &str = "[providers.openai.openai]\nbase_url = \"https://h/v1\"\n";

    fn on(text: &str, listen: &str) -> Inbound {
        accepted(text).trace_context.inbound(listen.parse().unwrap())
    }

    #[test]
    fn callers_on_this_machine_are_trusted_and_others_are_pointed_at() {
        for loopback in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(on("", loopback), Inbound::Trust, "{loopback}");
        }
        for public in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            assert_eq!(on("", public), Inbound::Link, "{public}");
        }
        assert_eq!(accepted("").trace_context, TraceContext::default());
    }

    #[test]
    fn what_is_written_holds_on_every_address() {
        for (word, expected) in
            [("trust", Inbound::Trust), ("link", Inbound::Link), ("ignore", Inbound::Ignore)]
        {
            let text = format!("[trace_context]\ninbound = \"{word}\"\n");
            assert_eq!((on(&text, "127.0.0.1:1"), on(&text, "0.0.0.0:1")), (expected, expected));
        }
    }

    #[test]
    fn a_choice_that_does_not_exist_is_refused() {
        assert_eq!(
            refused("[trace_context]\ninbound = \"turst\"\n"),
            "t.toml:2:11: unknown choice `turst`, did you mean `trust`? (allowed: trust, link, ignore)\n    \
             2 | inbound = \"turst\"\n      |           ^^^^^^^"
        );
    }

    #[test]
    fn a_key_that_does_not_exist_is_refused() {
        assert!(
            refused("[trace_context]\nforward = []\n").starts_with("t.toml:2:1: unknown key `forward`"),
            "the section knows its keys"
        );
    }

    #[test]
    fn providers_that_learn_of_traces_are_named() {
        let config = accepted(&format!("[trace_context]\nforward_to = [\"openai\"]\n{OPENAI}"));
        assert!(config.trace_context.forwards_to("openai") && !config.trace_context.forwards_to("sim"));
        assert!(!accepted(OPENAI).trace_context.forwards_to("openai"), "none unless it is named");
    }

    #[test]
    fn a_provider_that_does_not_exist_is_refused() {
        assert_eq!(
            refused(&format!("[trace_context]\nforward_to = [\"openai\", \"opnai\"]\n{OPENAI}")),
            "t.toml:2:25: unknown provider `opnai`, did you mean `openai`? (configured: openai, sim)\n    \
             2 | forward_to = [\"openai\", \"opnai\"]\n      |                         ^^^^^^^"
        );
    }

    #[test]
    fn a_provider_that_is_named_twice_or_is_sent_nothing_is_refused() {
        let shown = refused(&format!("[trace_context]\nforward_to = [\"openai\", \"openai\"]\n{OPENAI}"));
        assert!(shown.starts_with("t.toml:2:25: `openai` is in `forward_to` already: name a provider once"));
        assert_eq!(
            refused("[trace_context]\nforward_to = [\"sim\"]\n"),
            "t.toml:2:15: `sim` is simulated and is sent nothing: take it out of `forward_to`\n    \
             2 | forward_to = [\"sim\"]\n      |               ^^^^^"
        );
    }
}
