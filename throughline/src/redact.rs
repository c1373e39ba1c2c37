//! Takes secrets and personal data out of text that is about to leave the process.
//!
//! A [`Redactor`] is the last step before spans are exported, and before the gateway answers with an error. What was
//! found is replaced by `[REDACTED:KIND]` and counted in `redactions_total{kind}`; it is never logged.
//!
//! Three rules, in this order:
//! * a value under a key that names a secret (`authorization`, `x-api-key`, `password`, …) goes as a whole;
//! * keys and tokens with a known shape, private keys, credentials in URLs, and what is assigned to a secret's name;
//! * e-mail addresses, phone numbers, cards, IBANs, US social security numbers and IP addresses, each checked as far
//!   as its kind can be: check digits, lengths per country, known ranges.
//!
//! ```
//! use throughline::redact::Redactor;
//!
//! let redactor = Redactor::standard();
//! assert_eq!(redactor.text("mail ann@example.com, order 1234"), "mail [REDACTED:EMAIL], order 1234");
//! assert_eq!(redactor.value("x-api-key", "anything"), "[REDACTED:CREDENTIAL]");
//! assert_eq!(redactor.text("nothing to hide"), "nothing to hide");
//! ```
//!
//! It takes linear time whatever the text, and fails closed: a text of more than [`LONGEST`] bytes is not scanned but
//! replaced as a whole.
//!
//! Do not rely on it to make content safe to share: names, addresses and what somebody says about themselves have no
//! shape. Content is not captured at all unless that is asked for.

mod assigned;
mod contact;
mod iban;
mod json;
mod numbers;
mod scan;
mod secrets;
mod stream;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

pub use stream::Stream;

use crate::telemetry::{Counter, Family, Label as _, Registry};

static REDACTIONS: Family =
    Family::counter("redactions", "Places where a secret or personal data was taken out of text", &["kind"]);
pub(crate) static FAMILIES: &[&Family] = &[&REDACTIONS];

/// The longest text that is scanned, in bytes. A longer one is replaced as a whole.
pub const LONGEST: usize = 1 << 20;

crate::labels! {
    /// What was found.
    pub enum Kind {
        Email = "email",
        Phone = "phone",
        Card = "card",
        Iban = "iban",
        Ssn = "ssn",
        Ip = "ip",
        ApiKey = "api_key",
        CloudKey = "cloud_key",
        SourceToken = "source_token",
        ChatToken = "chat_token",
        PaymentKey = "payment_key",
        Jwt = "jwt",
        PrivateKey = "private_key",
        Credential = "credential",
        UrlCredential = "url_credential",
        Unscanned = "unscanned",
    }
}

/// Finds and replaces. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    /// One per kind, in their order; empty when nothing is counted.
    counters: Arc<[Counter]>,
}

/// A place in a text, and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The bytes.
    pub range: Range<usize>,
    /// What they are.
    pub kind: Kind,
}

// === impl Redactor ===

impl Redactor {
    /// Everything that this module knows.
    #[must_use]
    pub fn standard() -> Self {
        Self::default()
    }

    /// Counts what is found in `registry`.
    #[must_use]
    pub fn counted(self, registry: &Registry) -> Self {
        let counter = |kind: &Kind| registry.counter(&REDACTIONS, &[kind.as_str()]);
        Self { counters: Kind::ALL.iter().map(counter).collect() }
    }

    /// `text` without secrets.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if text.len() > LONGEST {
            return Cow::Owned(self.marker(Kind::Unscanned));
        }
        let found = find(text);
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        Cow::Owned(self.replace(text, &found, 0..text.len()))
    }

    /// The value of an attribute, header or field called `key`, without secrets.
    #[must_use]
    pub fn value<'a>(&self, key: &str, value: &'a str) -> Cow<'a, str> {
        if assigned::is_secret_key(key) && !value.is_empty() && !is_marker(value) {
            return Cow::Owned(self.marker(Kind::Credential));
        }
        self.text(value)
    }

    /// For a text that comes in pieces.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream::new(self.clone())
    }

    /// The part of `text` in `part`, with what was `found` wholly within it replaced.
    fn replace(&self, text: &str, found: &[Found], part: Range<usize>) -> String {
        let (mut out, mut done) = (String::with_capacity(part.len()), part.start);
        let within = |place: &&Found| part.start <= place.range.start && place.range.end <= part.end;
        for Found { range, kind } in found.iter().filter(within) {
            out.push_str(&text[done..range.start]);
            out.push_str(&self.marker(*kind));
            done = range.end;
        }
        out.push_str(&text[done..part.end]);
        out
    }

    fn marker(&self, kind: Kind) -> String {
        if let Some(counter) = self.counters.get(kind.index()) {
            counter.inc();
        }
        format!("[REDACTED:{}]", kind.as_str().to_ascii_uppercase())
    }
}

/// What is in `text`, in order and without overlaps. It takes text of any length.
#[must_use]
pub fn find(text: &str) -> Vec<Found> {
    scan::find(text.as_bytes())
}

fn is_marker(text: &str) -> bool {
    text.starts_with("[REDACTED:") && text.ends_with(']')
}

#[cfg(test)]
mod tests;
