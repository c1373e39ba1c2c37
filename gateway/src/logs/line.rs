//! A record as one line of text or JSON, without secrets, without anything that acts, and of bounded length.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::SocketAddr;

use tracing::Level;

use super::record::{Record, Value};
use super::visible;

/// The longest line, in bytes, its end included.
pub(super) const LONGEST: usize = 32 << 10;

/// The longest message or value in a line, in bytes; quotes may double it.
const LONGEST_VALUE: usize = 8 << 10;

/// What is kept free for the end of a line.
const RESERVED: usize = 128;

/// Fields of this program that hold an address of its own configuration, which is nobody's secret.
const ADDRESSES: [&str; 2] = ["address", "metrics"];

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// An object a line.
    Json,
    /// For people.
    Text,
}

/// Takes secrets out of the value of a field, by the field's name.
pub(super) type Redact = for<'a> fn(&str, &'a str) -> Cow<'a, str>;

/// Makes lines of records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    pub(super) format: Format,
    /// Whether levels are coloured.
    pub(super) colours: bool,
    /// What every message and every value passes.
    pub(super) redact: Redact,
}

// === impl Format ===

impl Format {
    /// By its name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "text" => Some(Self::Text),
            _ => None,
        }
    }
}

// === impl Lines ===

impl Lines {
    /// The line, with its end.
    pub(super) fn line(&self, record: &Record) -> String {
        let mut out = String::with_capacity(256);
        let message = (self.redact)("message", &record.message);
        match self.format {
            Format::Json => self.json(&mut out, record, &message),
            Format::Text => self.text(&mut out, record, &message),
        }
        out.push('\n');
        out
    }

    fn json(&self, out: &mut String, record: &Record, message: &str) {
        let at = humantime::format_rfc3339_micros(record.at);
        write!(out, r#"{{"timestamp":"{at}","level":"{}","target":"#, record.level)
            .expect("writing to a string cannot fail");
        quoted(out, record.target);
        out.push_str(",\"message\":");
        quoted(out, message);
        if let Some((trace, span)) = record.ids {
            write!(out, r#","trace_id":"{trace}","span_id":"{span}""#)
                .expect("writing to a string cannot fail");
        }
        out.push_str(",\"fields\":{");
        let (mut separator, mut whole) = ("", true);
        for (name, value) in &record.fields {
            let mut piece = String::from(separator);
            quoted(&mut piece, name);
            piece.push(':');
            match self.number(name, value) {
                Some(number) => piece.push_str(&number),
                None => quoted(&mut piece, &self.field(record, name, value)),
            }
            whole &= push_if_it_fits(out, &piece);
            separator = if out.ends_with('{') { "" } else { "," };
        }
        out.push('}');
        if !whole {
            out.push_str(",\"truncated\":true");
        }
        out.push('}');
    }

    fn text(&self, out: &mut String, record: &Record, message: &str) {
        let at = humantime::format_rfc3339_micros(record.at);
        let (colour, end) = if self.colours { (colour(record.level), "\u{1b}[0m") } else { ("", "") };
        write!(out, "{at} {colour}{:>5}{end} {}: ", record.level, record.target)
            .expect("writing to a string cannot fail");
        visible::push(out, message, LONGEST_VALUE);
        let mut whole = true;
        for (name, value) in &record.fields {
            let mut piece = format!(" {name}=");
            visible::push_word(&mut piece, &self.field(record, name, value), LONGEST_VALUE);
            whole &= push_if_it_fits(out, &piece);
        }
        if let Some((trace, span)) = record.ids {
            write!(out, " trace_id={trace} span_id={span}").expect("writing to a string cannot fail");
        }
        if !whole {
            out.push_str(" truncated=true");
        }
    }

    /// A field's value as text.
    fn field(&self, record: &Record, name: &str, value: &Value) -> String {
        let text = value.to_string();
        let own = record.target.starts_with("throughline") && ADDRESSES.contains(&name);
        match own && text.parse::<SocketAddr>().is_ok() {
            true => text,
            false => (self.redact)(name, &text).into_owned(),
        }
    }

    /// A field's value as a JSON number or truth, if it is one and holds nothing secret.
    fn number(&self, name: &str, value: &Value) -> Option<String> {
        let text = match value {
            Value::Text(_) => return None,
            Value::Fraction(number) if !number.is_finite() => return None,
            Value::Whole(_) | Value::Fraction(_) | Value::Truth(_) => value.to_string(),
        };
        matches!((self.redact)(name, &text), Cow::Borrowed(_)).then_some(text)
    }
}

fn push_if_it_fits(out: &mut String, piece: &str) -> bool {
    let fits = out.len() + piece.len() + RESERVED <= LONGEST;
    if fits {
        out.push_str(piece);
    }
    fits
}

fn quoted(out: &mut String, text: &str) {
    let mut shown = String::with_capacity(text.len().min(LONGEST_VALUE));
    visible::push(&mut shown, text, LONGEST_VALUE);
    out.push_str(&serde_json::to_string(&shown).expect("text serialises"));
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        _ => "\u{1b}[34m",
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use opentelemetry::trace::{SpanId, TraceId};
    use throughline::redact::Redactor;

    use super::*;

    fn record(message: &str) -> Record {
        Record {
            at: SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
            level: Level::WARN,
            target: "throughline::requests",
            message: message.to_owned(),
            fields: Vec::new(),
            ids: None,
        }
    }

    fn text(value: &str) -> Value {
        Value::Text(value.to_owned())
    }

    fn redact<'a>(key: &str, value: &'a str) -> Cow<'a, str> {
        Redactor::standard().value(key, value)
    }

    fn lines(format: Format) -> Lines {
        Lines { format, colours: false, redact }
    }

    fn json(record: &Record) -> serde_json::Value {
        let line = lines(Format::Json).line(record);
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line:?}");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    #[test]
    fn a_line_of_json_has_the_same_keys_in_the_same_order() {
        let ids = (TraceId::from_bytes([1; 16]), SpanId::from_bytes([2; 8]));
        let record = Record { ids: Some(ids), ..record("it failed") }
            .with("route", text("cheap"))
            .with("attempts", Value::Whole(3))
            .with("cost_usd", Value::Fraction(0.25))
            .with("odd", Value::Fraction(f64::NAN))
            .with("streamed", Value::Truth(true));
        assert_eq!(
            lines(Format::Json).line(&record),
            "{\"timestamp\":\"2023-11-14T22:13:20.123456Z\",\"level\":\"WARN\",\"target\":\"throughline::requests\",\
             \"message\":\"it failed\",\"trace_id\":\"01010101010101010101010101010101\",\
             \"span_id\":\"0202020202020202\",\"fields\":{\"route\":\"cheap\",\"attempts\":3,\"cost_usd\":0.25,\
             \"odd\":\"NaN\",\"streamed\":true}}\n"
        );
    }

    #[test]
    fn a_line_of_text_reads_well() {
        let ids = (TraceId::from_bytes([1; 16]), SpanId::from_bytes([2; 8]));
        let record = Record { ids: Some(ids), ..record("it failed") }
            .with("route", text("cheap"))
            .with("error", text("no answer within 2s"));
        assert_eq!(
            lines(Format::Text).line(&record),
            "2023-11-14T22:13:20.123456Z  WARN throughline::requests: it failed route=cheap \
             error=\"no answer within 2s\" trace_id=01010101010101010101010101010101 span_id=0202020202020202\n"
        );
        let coloured = Lines { colours: true, ..lines(Format::Text) };
        assert!(coloured.line(&record).contains(" \u{1b}[33m WARN\u{1b}[0m throughline"));
    }

    #[test]
    fn no_line_can_be_forged_in_either_format() {
        let evil = "x\r\n{\"level\":\"ERROR\"}\u{1b}[2J\u{2028}\u{202e}";
        let record = record(evil).with("request_id", text(evil));
        let shown = "x\\r\\n{\"level\":\"ERROR\"}\\u{1b}[2J\\u{2028}\\u{202e}";
        assert_eq!(json(&record)["message"], shown);
        assert_eq!(json(&record)["fields"]["request_id"], shown);
        let line = lines(Format::Text).line(&record);
        assert_eq!(line.lines().count(), 1);
        assert!(!line.trim_end().chars().any(char::is_control), "{line:?}");
        assert!(line.contains(&format!(": {shown} request_id=\"x\\r\\n{{\\\"level")), "{line}");
    }

    #[test]
    fn secrets_are_taken_out_of_messages_values_and_numbers() {
        let card = [4111, 1111, 1111, 1111].iter().fold(0, |card, four| card * 10_000 + four);
        let record = record("no answer for ann@example.com")
            .with("error", text("of bob@example.com"))
            .with("authorization", text("anything"))
            .with("card", Value::Whole(card));
        for format in [Format::Json, Format::Text] {
            let line = lines(format).line(&record);
            assert!(!line.contains("example.com") && !line.contains("anything"), "{line}");
            assert!(!line.contains(&card.to_string()), "{line}");
            assert!(line.contains("no answer for [REDACTED:EMAIL]"), "{line}");
        }
    }

    #[test]
    fn addresses_of_this_program_are_no_secret_and_those_of_others_are() {
        let own = record("it serves").with("address", text("10.1.2.3:8080")).with("peer", text("10.9.9.9"));
        let fields = &json(&own)["fields"];
        assert_eq!((&fields["address"], &fields["peer"]), (&"10.1.2.3:8080".into(), &"[REDACTED:IP]".into()));
        let foreign = Record { target: "hyper", ..own };
        assert_eq!(json(&foreign)["fields"]["address"], "[REDACTED:IP]:8080");
        let disguised = record("x").with("address", text("ann@example.com"));
        assert_eq!(json(&disguised)["fields"]["address"], "[REDACTED:EMAIL]");
    }

    #[test]
    fn a_line_is_never_longer_than_its_bound_and_says_what_is_missing() {
        let long = "\u{202e}\\\"".repeat(20_000);
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let record = names.iter().fold(record(&long[..9000]), |record, name| record.with(name, text(&long)));
        let line = lines(Format::Json).line(&record);
        assert!(line.len() <= LONGEST, "{}", line.len());
        assert_eq!(json(&record)["truncated"], true);
        let line = lines(Format::Text).line(&record);
        assert!(line.len() <= LONGEST && line.contains(" truncated=true"), "{}", line.len());
        let cut = record_with_long_value();
        assert!(json(&cut)["fields"]["long"].as_str().unwrap().ends_with("… (9000 bytes)"));
    }

    fn record_with_long_value() -> Record {
        record("x").with("long", text(&"y".repeat(9000)))
    }
}
