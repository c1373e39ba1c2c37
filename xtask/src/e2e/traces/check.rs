//! What is right and wrong with what a backend has.

use std::time::Duration;

use super::backend::{Backend, Usage};
use super::case::SECRETS;
use super::convention;
use super::pass::Sent;
use super::span::{Trace, without_kinds};
use crate::e2e::interrupt::Interrupt;
use crate::failure::Failure;

/// Backends take spans in when it suits them.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The trace of a request, once it has the right shape; else what there is when `patience` ends, which is then
/// none for the next: all spans were sent before the first was asked for.
///
/// # Errors
/// When the run is to end.
pub(crate) fn read(
    backend: &dyn Backend,
    sent: &Sent,
    patience: &mut Duration,
    interrupt: &Interrupt,
) -> Result<Trace, Failure> {
    let mut last = Trace::default();
    let whole = interrupt.poll(*patience, || {
        if let Some(trace) = backend.trace(&sent.trace_id) {
            last = trace;
        }
        Ok(shape_fault(&last, sent).is_none().then_some(()))
    })?;
    if whole.is_none() {
        *patience = Duration::ZERO;
    }
    Ok(last)
}

/// Everything that is wrong with the trace of one request, a text each.
pub(crate) fn faults(trace: &Trace, raw: &str, sent: &Sent) -> Vec<String> {
    if trace.0.is_empty() {
        return vec![format!("there is no trace {}", sent.trace_id)];
    }
    let mut faults: Vec<_> = shape_fault(trace, sent).into_iter().collect();
    faults.extend(trace.0.iter().flat_map(convention::faults));
    faults.extend(sent.case.told().iter().filter_map(|told| told_fault(trace, told)));
    faults.extend(token_fault(trace, sent));
    faults.extend(secret_faults(raw));
    faults
}

fn shape_fault(trace: &Trace, sent: &Sent) -> Option<String> {
    let keeps_kinds = trace.0.iter().all(|span| span.kind.is_some());
    let expected = sent.case.tree();
    let expected = if keeps_kinds { expected } else { without_kinds(&expected) };
    let tree = trace.tree();
    (tree != expected).then(|| format!("the tree is\n{tree}and should be\n{expected}"))
}

fn told_fault(trace: &Trace, (name, key, wanted): &(&str, &str, &str)) -> Option<String> {
    let span = trace.0.iter().find(|span| span.name == *name)?;
    match span.attributes.get(*key) {
        Some(said) if said == wanted => None,
        said => Some(format!("`{name}` says {key} = {said:?}, and it is {wanted:?}")),
    }
}

/// The same numbers, a model call each.
fn token_fault(trace: &Trace, sent: &Sent) -> Option<String> {
    let mut reported: Vec<_> =
        sent.reported.iter().map(|usage| (usage.input.to_string(), usage.output.to_string())).collect();
    reported.sort();
    let told = trace.tokens();
    (told != reported).then(|| format!("the spans tell of tokens {told:?}, the provider of {reported:?}"))
}

fn secret_faults(raw: &str) -> impl Iterator<Item = String> {
    SECRETS
        .iter()
        .filter(move |secret| raw.contains(**secret))
        .map(|secret| format!("{secret} is in the trace"))
}

/// Whether two backends were told of one trace and tell of the same.
pub(crate) fn disagreement(one: &Trace, other: &Trace) -> Option<String> {
    let (one, other) = (one.identity(), other.identity());
    let only = |here: &[(&str, &str, &str, &_)], there: &[(&str, &str, &str, &_)]| -> Vec<String> {
        here.iter()
            .filter(|span| !there.contains(span))
            .map(|(id, _, name, _)| format!("{name} ({id})"))
            .collect()
    };
    let (here, there) = (only(&one, &other), only(&other, &one));
    (!here.is_empty() || !there.is_empty())
        .then(|| format!("the two backends differ: {} against {}", here.join(", "), there.join(", ")))
}

/// What a backend has beside the traces of the requests, and which of them it has not, once it has settled.
///
/// # Errors
/// When the run is to end.
pub(crate) fn count_faults(
    backend: &dyn Backend,
    sent: &[&Sent],
    interrupt: &Interrupt,
) -> Result<Vec<String>, Failure> {
    let mut wanted: Vec<_> = sent.iter().map(|sent| sent.trace_id.clone()).collect();
    wanted.sort();
    let mut had = None;
    interrupt.poll(PATIENCE, || {
        had = backend.ids().map(|mut ids| {
            ids.sort();
            ids
        });
        Ok((had.as_ref() == Some(&wanted)).then_some(()))
    })?;
    let Some(had) = had else { return Ok(vec!["it does not list its traces".to_owned()]) };
    let beside =
        had.iter().filter(|id| !wanted.contains(id)).map(|id| format!("trace {id} is of no request"));
    let missing = wanted.iter().filter(|id| !had.contains(id)).map(|id| format!("trace {id} is not listed"));
    let mut faults: Vec<_> = beside.chain(missing).collect();
    if faults.is_empty() && had != wanted {
        faults.push(format!("{} traces are listed for {} requests", had.len(), wanted.len()));
    }
    Ok(faults)
}

/// What is wrong with the tokens that a backend sums up for its pages about models.
///
/// # Errors
/// When the run is to end.
pub(crate) fn usage_faults(
    backend: &dyn Backend,
    sent: &[&Sent],
    interrupt: &Interrupt,
) -> Result<Vec<String>, Failure> {
    let ids: Vec<_> = sent.iter().map(|sent| sent.trace_id.as_str()).collect();
    let reported = sent.iter().flat_map(|sent| &sent.reported).fold(Usage::default(), |sum, usage| Usage {
        input: sum.input + usage.input,
        output: sum.output + usage.output,
    });
    let mut summed = None;
    interrupt.poll(PATIENCE, || {
        summed = backend.usage(&ids);
        Ok((summed == Some(reported)).then_some(()))
    })?;
    let fault = || match summed {
        Some(summed) => format!("it sums up {summed:?}, the provider reported {reported:?}"),
        None => "it sums up no tokens".to_owned(),
    };
    Ok(if summed == Some(reported) { Vec::new() } else { vec![fault()] })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::e2e::traces::case::{ANSWER, Case};
    use crate::e2e::traces::span::{Kind, Span, Status};

    fn span(id: &str, parent: &str, name: &str, attributes: &[(&str, &str)]) -> Span {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Span {
            id: id.to_owned(),
            parent: parent.to_owned(),
            name: name.to_owned(),
            kind: Some(if id == "1" { Kind::Server } else { Kind::Internal }),
            begun: 0,
            status: Status::Ok,
            attributes: attributes.collect(),
        }
    }

    /// The trace of a cache hit, without a fault.
    fn hit() -> Trace {
        let server = [
            ("http.request.method", "POST"),
            ("http.route", "/v1/chat/completions"),
            ("url.path", "/v1/chat/completions"),
            ("url.scheme", "http"),
            ("http.response.status_code", "200"),
        ];
        let workflow = [("gen_ai.operation.name", "invoke_workflow"), ("gen_ai.workflow.name", "cached")];
        Trace(vec![
            span("1", "", "POST /v1/chat/completions", &server),
            span("2", "1", "invoke_workflow cached", &workflow),
            span("3", "2", "timeout cached", &[]),
            span("4", "3", "cache cached", &[("throughline.cache.outcome", "hit")]),
        ])
    }

    fn sent(case: Case, reported: &[Usage]) -> Sent {
        Sent { case, trace_id: "a".repeat(32), reported: reported.to_vec() }
    }

    #[test]
    fn finds_nothing_wrong_with_a_right_trace() {
        assert_eq!(faults(&hit(), "{}", &sent(Case::Hit, &[])), [""; 0]);
    }

    #[test]
    fn finds_each_thing_that_is_wrong() {
        let hit_sent = sent(Case::Hit, &[]);
        let mut wrong_parent = hit();
        wrong_parent.0[3].parent = "2".to_owned();
        let mut other_outcome = hit();
        other_outcome.0[3].attributes.insert("throughline.cache.outcome".to_owned(), "miss".to_owned());
        let mut unasked = hit();
        let tokens = [("gen_ai.usage.input_tokens", "1"), ("gen_ai.usage.output_tokens", "2")];
        unasked.0[3].attributes.extend(tokens.map(|(key, value)| (key.to_owned(), value.to_owned())));
        for (trace, raw, what) in [
            (Trace::default(), "{}", "there is no trace aaaa"),
            (wrong_parent, "{}", "the tree is\n"),
            (other_outcome, "{}", "`cache cached` says throughline.cache.outcome = Some(\"miss\")"),
            (unasked, "{}", "the spans tell of tokens [(\"1\", \"2\")], the provider of []"),
            (hit(), ANSWER, "the-answer-of-the-run is in the trace"),
        ] {
            let found = faults(&trace, raw, &hit_sent);
            assert!(found.len() == 1 && found[0].starts_with(what), "{what}: {found:?}");
        }
    }

    #[test]
    fn a_backend_that_keeps_no_kinds_is_not_asked_for_them() {
        let mut trace = hit();
        trace.0.iter_mut().for_each(|span| span.kind = None);
        assert_eq!(faults(&trace, "{}", &sent(Case::Hit, &[])), [""; 0]);
    }

    #[test]
    fn tells_where_two_backends_differ() {
        assert_eq!(disagreement(&hit(), &hit()), None);
        let mut other = hit();
        other.0.pop();
        let said = disagreement(&hit(), &other).unwrap();
        assert_eq!(said, "the two backends differ: cache cached (4) against ");
    }

    /// A backend that has these traces, and sums up these tokens.
    struct Fixed(Vec<&'static str>, Usage);

    impl Backend for Fixed {
        fn name(&self) -> &'static str {
            "fixed"
        }

        fn traces_url(&self) -> String {
            String::new()
        }

        fn trace(&self, _: &str) -> Option<Trace> {
            Some(hit())
        }

        fn ids(&self) -> Option<Vec<String>> {
            Some(self.0.iter().map(|id| (*id).to_owned()).collect())
        }

        fn usage(&self, _: &[&str]) -> Option<Usage> {
            Some(self.1)
        }

        fn raw(&self, _: &str) -> Value {
            Value::Null
        }

        fn visit(&self) -> String {
            String::new()
        }
    }

    #[test]
    fn every_request_is_one_trace_and_its_tokens_are_counted_once() {
        let used = Usage { input: 108, output: 14 };
        let one = Sent { case: Case::Miss, trace_id: "one".to_owned(), reported: vec![used] };
        let backend = Fixed(vec!["one"], used);
        let interrupt = Interrupt::default();
        assert_eq!(count_faults(&backend, &[&one], &interrupt).unwrap(), [""; 0]);
        assert_eq!(usage_faults(&backend, &[&one], &interrupt).unwrap(), [""; 0]);
    }

    #[test]
    fn waits_no_longer_once_one_trace_has_not_come() {
        let (backend, interrupt) = (Fixed(Vec::new(), Usage::default()), Interrupt::default());
        let mut patience = Duration::from_millis(1);
        assert_eq!(read(&backend, &sent(Case::Hit, &[]), &mut patience, &interrupt).unwrap(), hit());
        assert_eq!(patience, Duration::from_millis(1));
        read(&backend, &sent(Case::Miss, &[]), &mut patience, &interrupt).unwrap();
        assert_eq!(patience, Duration::ZERO);
    }
}
