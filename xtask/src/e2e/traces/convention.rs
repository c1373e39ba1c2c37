//! What OpenTelemetry's conventions, HTTP and GenAI in version 1.41, require of a span, by what the span stands
//! for.
//!
//! Only what is required, or required on a condition that holds here; recommended attributes are free to be
//! missing.

use super::span::{Span, Status};

/// What an attribute must be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Must {
    Be(String),
    Exist,
}

/// What is wrong with the attributes of a span, a line each.
pub(crate) fn faults(span: &Span) -> Vec<String> {
    let mut faults: Vec<_> = required(span)
        .into_iter()
        .filter_map(|(key, must)| {
            let said = span.attributes.get(key).filter(|said| !said.is_empty());
            match (said, must) {
                (None, _) => Some(format!("`{}` lacks {key}", span.name)),
                (Some(said), Must::Be(wanted)) if *said != wanted => {
                    Some(format!("`{}` says {key} = {said}, and it is {wanted}", span.name))
                }
                _ => None,
            }
        })
        .collect();
    faults.extend(status_fault(span));
    faults
}

/// A span says how it ended, and an error by its type, once.
fn status_fault(span: &Span) -> Option<String> {
    let (name, kind) = (&span.name, span.attributes.get("error.type"));
    match (&span.status, kind) {
        (Status::Unset, _) => Some(format!("`{name}` does not say how it ended")),
        (Status::Ok, Some(kind)) => Some(format!("`{name}` ended well with error.type = {kind}")),
        (Status::Error(_), None) => Some(format!("`{name}` failed and lacks error.type")),
        _ => None,
    }
}

fn required(span: &Span) -> Vec<(&'static str, Must)> {
    let be = |value: &str| Must::Be(value.to_owned());
    let name = span.name.as_str();
    if let Some(model) = name.strip_prefix("chat ") {
        return vec![
            ("gen_ai.operation.name", be("chat")),
            ("gen_ai.provider.name", be("openai")),
            ("gen_ai.request.model", be(model)),
        ];
    }
    if let Some(workflow) = name.strip_prefix("invoke_workflow ") {
        return vec![
            ("gen_ai.operation.name", be("invoke_workflow")),
            ("gen_ai.workflow.name", be(workflow)),
        ];
    }
    if let Some(route) = name.strip_prefix("POST /") {
        let path = format!("/{route}");
        return vec![
            ("http.request.method", be("POST")),
            ("http.route", be(&path)),
            ("url.path", be(&path)),
            ("url.scheme", be("http")),
            ("http.response.status_code", Must::Exist),
        ];
    }
    if name == "POST" {
        return attempt(&span.status);
    }
    Vec::new()
}

/// A call over HTTP. One that was given up has no status, one that was refused has.
fn attempt(status: &Status) -> Vec<(&'static str, Must)> {
    let mut required = vec![
        ("http.request.method", Must::Be("POST".to_owned())),
        ("server.address", Must::Be("127.0.0.1".to_owned())),
        ("server.port", Must::Exist),
        ("url.full", Must::Exist),
    ];
    if *status != Status::Error("cancelled".to_owned()) {
        required.push(("http.response.status_code", Must::Exist));
    }
    required
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(name: &str, status: Status, attributes: &[(&str, &str)]) -> Span {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Span { name: name.to_owned(), status, attributes: attributes.collect(), ..Span::default() }
    }

    const CHAT: [(&str, &str); 3] = [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt-4o"),
    ];

    #[test]
    fn names_each_attribute_that_is_missing_or_says_something_else() {
        assert_eq!(faults(&span("chat gpt-4o", Status::Ok, &CHAT)), [""; 0]);
        let missing = faults(&span("chat gpt-4o", Status::Ok, &CHAT[..2]));
        assert_eq!(missing, ["`chat gpt-4o` lacks gen_ai.request.model"]);
        let other = faults(&span("chat gpt-4o-mini", Status::Ok, &CHAT));
        assert_eq!(other, ["`chat gpt-4o-mini` says gen_ai.request.model = gpt-4o, and it is gpt-4o-mini"]);
    }

    #[test]
    fn an_error_has_a_type_and_success_has_none() {
        let failed = Status::Error("timeout".to_owned());
        assert_eq!(
            faults(&span("timeout m", failed.clone(), &[])),
            ["`timeout m` failed and lacks error.type"]
        );
        assert_eq!(faults(&span("timeout m", failed, &[("error.type", "timeout")])), [""; 0]);
        let well = faults(&span("cache m", Status::Ok, &[("error.type", "timeout")]));
        assert_eq!(well, ["`cache m` ended well with error.type = timeout"]);
        assert_eq!(faults(&span("cache m", Status::Unset, &[])), ["`cache m` does not say how it ended"]);
    }

    #[test]
    fn a_call_that_was_given_up_has_no_status_and_one_that_was_refused_has() {
        let call = [
            ("http.request.method", "POST"),
            ("server.address", "127.0.0.1"),
            ("server.port", "80"),
            ("url.full", "http://127.0.0.1/v1"),
            ("error.type", "any"),
        ];
        let given_up = span("POST", Status::Error("cancelled".to_owned()), &call);
        assert_eq!(faults(&given_up), [""; 0]);
        let refused = span("POST", Status::Error("upstream".to_owned()), &call);
        assert_eq!(faults(&refused), ["`POST` lacks http.response.status_code"]);
    }
}
