//! What one event says, before it is a line.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use opentelemetry::trace::{SpanId, TraceId};
use tracing::Level;
use tracing::field::{Field, Visit};

/// The longest message or value that is taken, in bytes. A longer one is left out as a whole: a part of a secret is not
/// known as one.
const LONGEST: usize = 64 << 10;

/// The most fields of one line.
const MOST_FIELDS: usize = 32;

/// What one event says.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// When it happened.
    pub(super) at: SystemTime,
    pub(super) level: Level,
    /// The module, or what the event calls itself.
    pub(super) target: &'static str,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
    /// The trace and the span that it happened in.
    pub(super) ids: Option<(TraceId, SpanId)>,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Whole(i128),
    Fraction(f64),
    Truth(bool),
}

/// Takes down the fields of an event.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
}

/// Text up to a bound.
#[derive(Default)]
struct Bounded {
    text: String,
    length: usize,
}

// === impl Record ===

impl Record {
    /// About how many bytes it holds.
    pub(super) fn size(&self) -> usize {
        let value = |value: &Value| match value {
            Value::Text(text) => text.len(),
            _ => 0,
        };
        let fields: usize = self.fields.iter().map(|(_, field)| 48 + value(field)).sum();
        size_of::<Self>() + self.message.len() + fields
    }

    /// Adds a field.
    pub(super) fn with(mut self, name: &'static str, value: Value) -> Self {
        self.fields.push((name, value));
        self
    }
}

// === impl Value ===

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Whole(number) => number.fmt(f),
            // With a point also where the fraction is nothing, so that a field's type never changes.
            Self::Fraction(number) => write!(f, "{number:?}"),
            Self::Truth(truth) => truth.fmt(f),
        }
    }
}

// === impl Fields ===

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let full = self.fields.len() >= MOST_FIELDS;
        let known = self.fields.iter_mut().find(|(name, _)| *name == field.name());
        match known {
            _ if field.name() == "message" => self.message = value.to_string(),
            Some((_, old)) => *old = value,
            None if !full => self.fields.push((field.name(), value)),
            None => {}
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut bounded = Bounded::default();
        let said = match write!(bounded, "{value:?}") {
            Ok(()) => bounded.into_text(),
            Err(fmt::Error) => "a value that cannot be shown".to_owned(),
        };
        self.put(field, Value::Text(said));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let mut bounded = Bounded::default();
        bounded.write_str(value).expect("writing to a string cannot fail");
        self.put(field, Value::Text(bounded.into_text()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::Whole(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::Whole(value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::Fraction(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Truth(value));
    }
}

// === impl Bounded ===

impl Bounded {
    fn into_text(self) -> String {
        match self.length > LONGEST {
            true => format!("left out: {} bytes, at most {LONGEST} are taken", self.length),
            false => self.text,
        }
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.length += piece.len();
        if self.length <= LONGEST {
            self.text.push_str(piece);
        }
        Ok(())
    }
}
