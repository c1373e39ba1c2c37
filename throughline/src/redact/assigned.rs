//! What is assigned to the name of a secret: `"api_key": "…"`, `PASSWORD=…`, `Authorization: Bearer …`, `?sig=…`.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::scan::{byte, contains, span};
use super::secrets::{entropy, looks_random};

/// Names that a value may be assigned to, as far as they need to match, in whatever case.
pub(super) static NAMES: &[&str] = &[
    "secret",
    "token",
    "passw",
    "pwd",
    "api_key",
    "api-key",
    "apikey",
    "api key",
    "access_key",
    "access-key",
    "accesskey",
    "account_key",
    "accountkey",
    "private_key",
    "privatekey",
    "authorization",
    "credential",
    "bearer",
    "signature",
    "&sig",
    "?sig",
    "&key",
    "?key",
    "cookie",
    "x-functions-key",
    "subscription-key",
];

/// The longest value that is looked at; what goes on beyond it belongs to it all the same.
const LONGEST: usize = 512;
const SHORTEST_PASSWORD: usize = 6;
const SHORTEST_KEY: usize = 16;

/// How a name may go on behind its known part.
static ENDS: &[&[u8]] = &[b"", b"s", b"ord", b"d", b"phrase", b"key", b"_key", b"-key", b"_value"];

/// Words whose values are secret whatever they look like.
static SECRET_KEYS: &[&str] = &[
    "authorization",
    "cookie",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "api-key",
    "api_key",
    "apikey",
    "credential",
    "signature",
    "private_key",
    "private-key",
    "access_key",
    "access-key",
];

/// Parts of a name that make it one of a secret, unless its end says that it counts or sorts something.
static SECRET_PARTS: &[&str] = &["token", "apikey", "pwd"];

/// Finds both, in whatever case. Nearly every name has neither: one look tells.
static SUSPICIOUS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let words = SECRET_KEYS.iter().chain(SECRET_PARTS);
    let automaton = AhoCorasick::builder().ascii_case_insensitive(true).build(words);
    automaton.expect("short words make an automaton")
});

/// Whether `key` names a secret. A number of tokens is none.
pub(super) fn is_secret_key(key: &str) -> bool {
    if !SUSPICIOUS.is_match(key) {
        return false;
    }
    let key = key.to_ascii_lowercase();
    SECRET_KEYS.iter().any(|word| key.contains(word))
        || (key.split(['.', '-', '_', ' ', '/']).any(|part| SECRET_PARTS.contains(&part))
            && !["_type", ".type", "_count", ".count", "_usage", ".modality", "_limit"]
                .iter()
                .any(|end| key.ends_with(end)))
}

/// The value assigned to the name whose known part ends at `end`.
pub(super) fn after(text: &[u8], end: usize) -> Option<Range<usize>> {
    let name = span(text, end, 24, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if !ENDS.iter().any(|end_of_name| text[end..end + name].eq_ignore_ascii_case(end_of_name)) {
        return None;
    }
    let mut at = end + name;
    at += span(text, at, 3, |byte| matches!(byte, b'"' | b'\'' | b']' | b'\\'));
    at += span(text, at, 4, |byte| byte == b' ' || byte == b'\t');
    let sign = span(text, at, 3, |byte| matches!(byte, b':' | b'=' | b'>'));
    let assigned = sign > 0;
    if assigned {
        at += sign;
        at += span(text, at, 4, |byte| byte == b' ' || byte == b'\t');
    }
    at += span(text, at, 3, |byte| matches!(byte, b'"' | b'\'' | b'`' | b'\\'));
    let name = &text[end.saturating_sub(16)..end + name];
    if let Some(scheme) = scheme(&text[at..]) {
        return credential(text, at + scheme);
    }
    if assigned {
        return value(text, at, name);
    }
    if ends_with(name, b"bearer") && at > end { credential(text, at) } else { None }
}

/// `Bearer `, `Basic ` and the like.
fn scheme(text: &[u8]) -> Option<usize> {
    let schemes: [&[u8]; 4] = [b"bearer ", b"basic ", b"token ", b"apikey "];
    schemes
        .iter()
        .find(|scheme| text.len() > scheme.len() && text[..scheme.len()].eq_ignore_ascii_case(scheme))
        .map(|scheme| scheme.len())
}

fn credential(text: &[u8], at: usize) -> Option<Range<usize>> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._~+/=-%:".contains(&byte);
    let length = span(text, at, LONGEST, fits);
    let whole = &text[at..at + length];
    (length >= 8 && !is_placeholder(whole))
        .then(|| at..at + length + span(text, at + length, usize::MAX, fits))
}

fn value(text: &[u8], at: usize, name: &[u8]) -> Option<Range<usize>> {
    let quoted = matches!(text.get(at.wrapping_sub(1)), Some(b'"' | b'\'' | b'`'));
    let ends = |byte: u8| {
        byte <= b' '
            || matches!(byte, b'"' | b'\'' | b'`' | b'<' | b'>' | b'|' | b'\\')
            || (!quoted && matches!(byte, b',' | b';' | b'&' | b')' | b'}'))
    };
    let length = span(text, at, LONGEST, |byte| !ends(byte));
    let whole = &text[at..at + length];
    if is_placeholder(whole) {
        return None;
    }
    let is_password = contains(name, "passw") || ends_with(name, b"pwd");
    let secret = if is_password {
        length >= SHORTEST_PASSWORD
    } else {
        length >= SHORTEST_KEY
            && whole.iter().any(u8::is_ascii_digit)
            && looks_random(whole)
            && entropy(whole) > 3.0
    };
    let dotted = whole.contains(&b'(') || whole.contains(&b'[');
    (secret && !dotted).then(|| at..at + length + span(text, at + length, usize::MAX, |byte| !ends(byte)))
}

/// `$NAME`, `<your key>`, `{{ value }}`, `xxxx`, `[REDACTED:…]`.
fn is_placeholder(value: &[u8]) -> bool {
    let first = byte(value, 0);
    value.ends_with(b"...")
        || matches!(first, b'$' | b'<' | b'{' | b'[' | b'%' | b'*' | b'(')
        || ["your", "example", "xxxx", "changeme", "placeholder", "redacted"]
            .iter()
            .any(|word| contains(value, word))
}

fn ends_with(text: &[u8], word: &[u8]) -> bool {
    text.len() >= word.len() && text[text.len() - word.len()..].eq_ignore_ascii_case(word)
}
