//! Every small mistake that a rule could have been written with.
//!
//! A mutant is the rule with one thing changed: a number, a comparison, a window, an offset, an aggregation or its labels, a
//! function, a matcher, a clause, how long it waits, or what it says. What cannot change the result is not made in the first
//! place or is named in [`EQUIVALENT`], with the reason.

use super::Rule;

/// A rule with one mistake.
#[derive(Debug)]
pub(crate) struct Mutant {
    /// What was changed, as in [`EQUIVALENT`].
    pub(crate) what: String,
    pub(crate) rule: Rule,
}

/// Mutants that no test can tell from the rule: how its name and what was changed begin, and why it makes no difference.
pub(crate) const EQUIVALENT: &[(&str, &str, &str)] = &[
    ("job:gateway_errors:ratio_rate", "or: `{", "zeros for more jobs, which the division leaves out"),
    (
        "job:gateway_errors:increase1h",
        "or: `{job=\"throughline\", route=~\"/v1/.+\", code!=\"499\"}` -> `{job=",
        "zeros of more requests of the same job",
    ),
    ("Watchdog", "`1` -> ", "any value fires"),
    ("CircuitOpen", "and: `sum` -> `max`", "some of them are above zero as soon as one is"),
    ("TelemetrySeriesOverflow", "`sum` -> `max`", "their sum is above zero as soon as one is"),
];

/// Every mutant of a rule, except those that make no difference.
pub(crate) fn mutants(rule: &Rule) -> Vec<Mutant> {
    let mut made = Vec::new();
    for (at, line) in rule.text.lines().enumerate() {
        for (what, line) in mistakes(line, rule) {
            let mut lines: Vec<&str> = rule.text.lines().collect();
            match &line {
                Some(line) => lines[at] = line,
                None => drop(lines.remove(at)),
            }
            let text = lines.join("\n") + "\n";
            if text != rule.text {
                made.push(Mutant { what, rule: Rule { text, ..rule.clone() } });
            }
        }
    }
    // Both sides of every operation are matched by job: leaving it out on one side makes no difference, on all it does.
    let text = rule.text.replace("job=\"throughline\", ", "").replace("{job=\"throughline\"}", "{}");
    if text != rule.text {
        let what = "of every job".to_owned();
        made.push(Mutant { what, rule: Rule { text, ..rule.clone() } });
    }
    made.retain(|mutant| {
        !EQUIVALENT.iter().any(|(name, what, _)| rule.name.starts_with(name) && mutant.what.starts_with(what))
    });
    made
}

/// What was changed, and the line as it then is; `None` for one that is left out.
type Mistake = (String, Option<String>);

fn mistakes(line: &str, rule: &Rule) -> Vec<Mistake> {
    let trimmed = line.trim_start();
    match line.len() - trimmed.len() {
        8 => waits(line),
        // `expr` comes before the labels.
        10 if rule.text.split("labels:").next().is_some_and(|head| head.contains(line)) => expression(line),
        10 => vec![(format!("leaves out `{}`", key(trimmed)), None)],
        _ => expression_deeper(line, rule),
    }
}

/// Lines of an expression that are indented below its first.
fn expression_deeper(line: &str, rule: &Rule) -> Vec<Mistake> {
    let in_expression = rule.text.split("labels:").next().is_some_and(|head| head.contains(line));
    if in_expression && line.starts_with("            ") { expression(line) } else { Vec::new() }
}

fn key(line: &str) -> &str {
    line.split(':').next().unwrap_or(line)
}

/// `for` and `keep_firing_for`.
fn waits(line: &str) -> Vec<Mistake> {
    let Some((key, time)) = line.trim().split_once(": ").filter(|(key, _)| key.ends_with("for")) else {
        return Vec::new();
    };
    let times = match seconds(time) {
        0 => vec![300],
        seconds => vec![0, seconds / 2, seconds * 2],
    };
    times.into_iter().map(|to| (format!("{key}: {to}s"), Some(format!("        {key}: {to}s")))).collect()
}

fn expression(line: &str) -> Vec<Mistake> {
    let mut made = Vec::new();
    // Nothing that is multiplied by zero makes a difference, except for which series are there.
    let filled = line.trim_start().starts_with("or 0 * ");
    let first = line.split_whitespace().next().filter(|word| ["and", "or", "unless"].contains(word));
    let place = first.map_or_else(String::new, |word| format!("{word}: "));
    for (at, token) in tokens(line) {
        let end = at + token.len();
        let put = |with: &str| Some(format!("{}{with}{}", &line[..at], &line[end..]));
        let mut add = |with: String| made.push((format!("{place}`{token}` -> `{with}`"), put(&with)));
        match token {
            number if number.starts_with(|c: char| c.is_ascii_digit()) => {
                numbers(number).into_iter().for_each(&mut add);
            }
            window if window.starts_with('[') && !filled => windows(window).into_iter().for_each(&mut add),
            labels if labels.starts_with('(') => fewer(labels).into_iter().for_each(&mut add),
            selector if selector.starts_with('{') => matchers(selector).into_iter().for_each(&mut add),
            offset if offset.starts_with("offset ") => {
                let window = &offset["offset ".len()..];
                let to = |seconds: u64| format!("offset {seconds}s");
                [seconds(window) / 2, seconds(window) * 2].map(to).into_iter().for_each(&mut add);
            }
            word if !filled => instead(word).iter().map(|word| (*word).to_owned()).for_each(&mut add),
            _ => {}
        }
    }
    let clause = line.trim_start();
    if ["and ", "or ", "unless "].iter().any(|word| clause.starts_with(word)) {
        made.push((format!("leaves out `{clause}`"), None));
    }
    made
}

/// Numbers near it. Those that stand for nothing or all become the other.
fn numbers(number: &str) -> Vec<String> {
    match number.parse::<f64>().expect("a token that begins with a digit is a number") {
        0.0 => vec!["1".to_owned()],
        1.0 => vec!["0".to_owned(), "2".to_owned()],
        value => [0.8, 1.25].map(|factor| format!("{:.9}", value * factor)).to_vec(),
    }
}

/// `[30m]`, half and double; of `[30d:1h]` the step too.
fn windows(window: &str) -> Vec<String> {
    let inner = window.trim_matches(['[', ']']);
    let (range, step) = inner.split_once(':').map_or((inner, None), |(range, step)| (range, Some(step)));
    let near = |time: &str| [seconds(time) / 2, seconds(time) * 2];
    match step {
        None => near(range).map(|seconds| format!("[{seconds}s]")).to_vec(),
        Some(step) => {
            let ranges = near(range).map(|seconds| format!("[{seconds}s:{step}]"));
            let steps = near(step).map(|seconds| format!("[{range}:{seconds}s]"));
            [ranges, steps].concat()
        }
    }
}

/// A list of labels without each but the first, which every rule has: the job.
fn fewer(labels: &str) -> Vec<String> {
    let labels: Vec<_> = labels.trim_matches(['(', ')']).split(", ").collect();
    let without = |at: usize| {
        let rest: Vec<_> =
            labels.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, label)| *label).collect();
        format!("({})", rest.join(", "))
    };
    (1..labels.len()).map(without).collect()
}

/// A selector without each of its matchers but that of the job, and without each alternative of one.
fn matchers(selector: &str) -> Vec<String> {
    let matchers: Vec<_> = selector.trim_matches(['{', '}']).split(", ").collect();
    let with = |at: usize, instead: Option<String>| {
        let list = matchers.iter().enumerate().filter_map(|(other, matcher)| {
            if other == at { instead.clone() } else { Some((*matcher).to_owned()) }
        });
        format!("{{{}}}", list.collect::<Vec<_>>().join(", "))
    };
    let others = (0..matchers.len()).filter(|at| !matchers[*at].starts_with("job="));
    let mut made: Vec<_> = others.map(|at| with(at, None)).collect();
    for (at, matcher) in matchers.iter().enumerate() {
        if let Some((name, values)) = matcher.split_once("=~").filter(|(_, values)| values.contains('|')) {
            let values: Vec<_> = values.trim_matches('"').split('|').collect();
            made.extend(values.iter().map(|one| with(at, Some(format!("{name}=\"{one}\"")))));
        }
    }
    made
}

/// What could stand in the place of a word.
fn instead(word: &str) -> &'static [&'static str] {
    match word {
        "sum" => &["max"],
        "max" => &["min"],
        "min" => &["max"],
        "sum_over_time" => &["max_over_time"],
        "increase" => &["delta"],
        "rate" => &["deriv"],
        ">" => &["<"],
        "<" => &[">"],
        ">=" => &["<"],
        "==" => &["!="],
        "+" => &["-"],
        "-" => &["+"],
        "/" => &["*"],
        "and" => &["unless"],
        _ => &[],
    }
}

/// Where the tokens of a line are that something can be put in the place of.
fn tokens(line: &str) -> Vec<(usize, &str)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(c) = line[at..].chars().next() {
        let rest = &line[at..];
        let until = |end: char| rest.find(end).map_or(rest.len(), |end| end + 1);
        let after = line[..at].trim_end();
        let length = match c {
            '{' => until('}'),
            '[' => until(']'),
            '(' if after.ends_with(" by") || after.ends_with(" on") => until(')'),
            'o' if rest.starts_with("offset ") => "offset ".len() + word_length(&rest["offset ".len()..]),
            c if c.is_alphanumeric() || c == '_' => word_length(rest),
            '>' | '<' | '=' | '!' => rest.find(|c: char| !"><=!".contains(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        found.push((at, &rest[..length]));
        at += length;
    }
    found
}

fn word_length(rest: &str) -> usize {
    rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':' | '.'))).unwrap_or(rest.len())
}

/// A time as Prometheus writes it.
fn seconds(time: &str) -> u64 {
    let (number, unit) = time.split_at(time.len() - 1);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        "w" => 7 * 24 * 3600,
        _ => panic!("`{time}` is no time"),
    };
    number.parse::<u64>().expect("a time begins with a number") * unit
}
