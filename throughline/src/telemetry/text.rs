//! The two text formats of /metrics: OpenMetrics 1.0, and text 0.0.4 for whoever did not ask.

/// The content type of OpenMetrics 1.0.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of the older text format.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether an `Accept` header asks for OpenMetrics.
#[must_use]
pub fn wants_openmetrics(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let wanted =
            parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
        wanted && parts.all(|part| !matches!(part, "q=0" | "q=0.0" | "version=0.0.1"))
    })
}

/// Turns an OpenMetrics page into text 0.0.4, which has no `# EOF`, no units and no exemplars, and in
/// which the name of a counter's family carries the suffix `_total`.
#[must_use]
pub fn to_text(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if line.starts_with("# HELP ") {
            help = Some(line);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some(text) =
                help.take().and_then(|line| line.split_once(' ')?.1.split_once(' ')?.1.split_once(' '))
            {
                push(&mut out, &["# HELP ", text.0, suffix, " ", text.1]);
            }
            push(&mut out, &["# TYPE ", name, suffix, " ", if kind == "unknown" { "untyped" } else { kind }]);
            continue;
        }
        push(&mut out, &[without_exemplar(line)]);
    }
    out
}

fn push(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
    out.push('\n');
}

/// The sample without what follows ` # `; a label value may hold the same characters.
fn without_exemplar(sample: &str) -> &str {
    if memchr::memchr(b'#', sample.as_bytes()).is_none() {
        return sample;
    }
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in sample.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return sample[..at].trim_end(),
            _ => {}
        }
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_openmetrics_only_to_those_who_ask() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert!(wants_openmetrics(prometheus));
        assert!(!wants_openmetrics("*/*"));
        assert!(!wants_openmetrics(""));
        assert!(!wants_openmetrics("application/openmetrics-text;q=0, text/plain"));
    }

    #[test]
    fn translates_types_names_and_exemplars() {
        let page = "# HELP calls Calls made.\n# TYPE calls counter\ncalls_total{op=\"a # b\"} 3 # {trace_id=\"1\"} 1.0\n\
                    # HELP depth Depth.\n# TYPE depth gauge\n# UNIT depth meters\ndepth 2\n# EOF\n";
        assert_eq!(
            to_text(page),
            "# HELP calls_total Calls made.\n# TYPE calls_total counter\ncalls_total{op=\"a # b\"} 3\n\
             # HELP depth Depth.\n# TYPE depth gauge\ndepth 2\n"
        );
    }
}
