//! What of a caller's trace a request takes over.
//!
//! Who may write `traceparent` can join any trace, have it recorded and name what it likes. So callers are believed
//! only where [`Inbound::Trust`] says so: see [`Config::trace_context`](crate::config::Config).

use axum::http::{HeaderMap, HeaderValue};
use throughline::context::ContextBuilder;
use throughline::propagation::{self, Propagators};

use crate::config::Inbound;

/// Takes over what `headers` say of the caller, as far as that is believed and read at all.
pub(crate) fn take_over(
    mut cx: ContextBuilder,
    inbound: Inbound,
    read: Propagators,
    headers: &HeaderMap,
) -> ContextBuilder {
    let all = |name: &str| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    match inbound {
        Inbound::Ignore => {}
        Inbound::Link => {
            // Of a stranger the ids alone: what vendors noted would be a text of its own choice in our traces.
            let caller = propagation::trace_context(all("traceparent"), [""; 0]);
            if let Some(caller) = caller.filter(|_| read.trace_context) {
                cx = cx.link(caller);
            }
        }
        Inbound::Trust => {
            let caller = propagation::trace_context(all("traceparent"), all("tracestate"));
            if let Some(caller) = caller.filter(|_| read.trace_context) {
                cx = cx.parent(caller);
            }
            if read.baggage {
                cx = propagation::baggage(all("baggage"))
                    .into_iter()
                    .fold(cx, |cx, (name, value)| cx.baggage(name, value));
            }
        }
    }
    cx
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;
    use throughline::Context;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn taken(inbound: Inbound, read: Propagators, more: &[(&str, &str)]) -> Context {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let headers = [("traceparent", parent.as_str()), ("tracestate", "a=1"), ("tracestate", "b=2")];
        let headers = headers.iter().chain(&[("baggage", "shop=7")]).chain(more);
        let headers = headers
            .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), value.parse().unwrap()))
            .collect();
        take_over(Context::builder(), inbound, read, &headers).build()
    }

    #[test]
    fn who_is_trusted_is_continued_with_all_it_says() {
        let cx = taken(Inbound::Trust, Propagators::default(), &[("baggage", "tier=gold;p,x=%0a")]);
        assert_eq!(cx.trace_id().unwrap().to_string(), TRACE);
        assert_eq!(cx.span().trace_state().header(), "a=1,b=2");
        assert!(cx.span().is_sampled());
        assert_eq!(
            (cx.baggage("shop"), cx.baggage("tier"), cx.baggage("x")),
            (Some("7"), Some("gold"), None)
        );
    }

    #[test]
    fn who_is_pointed_at_or_ignored_says_nothing() {
        for inbound in [Inbound::Link, Inbound::Ignore] {
            let cx = taken(inbound, Propagators::default(), &[]);
            assert_eq!((cx.trace_id(), cx.baggage("shop")), (None, None), "{inbound:?}");
            assert_eq!(cx.span().trace_state().header(), "");
        }
    }

    #[test]
    fn a_second_parent_makes_both_invalid() {
        let second = format!("00-{TRACE}-00f067aa0ba902b8-01");
        let cx = taken(Inbound::Trust, Propagators::default(), &[("traceparent", &second)]);
        assert_eq!(cx.trace_id(), None);
        assert_eq!(cx.baggage("shop"), Some("7"), "which has nothing to do with it");
    }

    #[test]
    fn what_is_not_to_be_read_is_not() {
        let mut read = Propagators::NONE;
        let cx = taken(Inbound::Trust, read, &[]);
        assert_eq!((cx.trace_id(), cx.baggage("shop")), (None, None));
        read.baggage = true;
        let cx = taken(Inbound::Trust, read, &[]);
        assert_eq!((cx.trace_id(), cx.baggage("shop")), (None, Some("7")));
        let mut read = Propagators::NONE;
        read.trace_context = true;
        let cx = taken(Inbound::Trust, read, &[]);
        assert_eq!((cx.trace_id().is_some(), cx.baggage("shop")), (true, None));
    }
}
