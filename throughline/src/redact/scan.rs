//! One pass over a text: literal anchors by one automaton, numbers and addresses by what their bytes begin with.
//!
//! Each finder looks a bounded way around the place it is asked about, or is resumed behind what it has read, so that
//! the whole is linear.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::{Found, Kind, assigned, contact, iban, numbers, secrets};

/// What an anchor asks for.
#[derive(Clone, Copy)]
enum Finder {
    Token(&'static secrets::Token),
    Assigned,
    Pem,
    Jwt,
    SlackHook,
    AzureSecret,
    Url,
    Email,
}

static ANCHORS: LazyLock<(AhoCorasick, Vec<Finder>)> = LazyLock::new(|| {
    let (mut words, mut finders) = (Vec::new(), Vec::new());
    let mut add = |word: &'static str, finder| {
        words.push(word);
        finders.push(finder);
    };
    secrets::TOKENS.iter().for_each(|token| add(token.anchor, Finder::Token(token)));
    assigned::NAMES.iter().for_each(|name| add(name, Finder::Assigned));
    add("-----BEGIN", Finder::Pem);
    add("eyJ", Finder::Jwt);
    add("hooks.slack.com/", Finder::SlackHook);
    add("Q~", Finder::AzureSecret);
    add("://", Finder::Url);
    add("@", Finder::Email);
    let automaton = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::DFA))
        .build(words);
    (automaton.expect("the anchors are few and short"), finders)
});

/// What is in `text`, in order, overlaps joined under the kind that begins first.
pub(super) fn find(text: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    anchored(text, &mut found);
    numeric(text, &mut found);
    joined(found)
}

fn anchored(text: &[u8], found: &mut Vec<Found>) {
    let (automaton, finders) = &*ANCHORS;
    // What lies inside something that was found has nothing to add, and may be long.
    let mut covered = 0;
    for hit in automaton.find_overlapping_iter(text) {
        let (start, end) = (hit.start(), hit.end());
        if start < covered {
            continue;
        }
        let place = match finders[hit.pattern().as_usize()] {
            Finder::Token(token) => token.at(text, start).map(|range| (range, token.kind)),
            Finder::Assigned => assigned::after(text, end).map(|range| (range, Kind::Credential)),
            Finder::Pem => secrets::private_key(text, start).map(|range| (range, Kind::PrivateKey)),
            Finder::Jwt => secrets::jwt(text, start).map(|range| (range, Kind::Jwt)),
            Finder::SlackHook => secrets::slack_hook(text, start).map(|range| (range, Kind::ChatToken)),
            Finder::AzureSecret => secrets::azure_secret(text, start).map(|range| (range, Kind::CloudKey)),
            Finder::Url => contact::credentials(text, end).map(|range| (range, Kind::UrlCredential)),
            Finder::Email => contact::email(text, start).map(|range| (range, Kind::Email)),
        };
        if let Some((range, kind)) = place {
            covered = range.end;
            found.push(Found { range, kind });
        }
    }
}

/// Everything that has a digit, or is an address of colons.
fn numeric(text: &[u8], found: &mut Vec<Found>) {
    let mut at = 0;
    while let Some(next) = text[at..].iter().position(|byte| byte.is_ascii_digit() || *byte == b':') {
        at += next;
        let here = match text[at] {
            b':' => contact::ipv6(text, at).map(|range| Found { range, kind: Kind::Ip }),
            _ => number(text, at),
        };
        if let Some(place) = here {
            at = place.range.end;
            found.push(place);
        } else {
            at = numbers::run_end(text, at);
        }
    }
}

fn number(text: &[u8], at: usize) -> Option<Found> {
    let iban = || iban::at(text, at).map(|range| (range, Kind::Iban));
    let address = || contact::ip(text, at).map(|range| (range, Kind::Ip));
    let plain = || (!contact::is_local(text, at)).then(|| numbers::at(text, at)).flatten();
    let (range, kind) = iban().or_else(address).or_else(plain)?;
    Some(Found { range, kind })
}

fn joined(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_by_key(|place| (place.range.start, std::cmp::Reverse(place.range.end)));
    let mut whole: Vec<Found> = Vec::with_capacity(found.len());
    for place in found {
        match whole.last_mut() {
            Some(last) if place.range.start < last.range.end => {
                last.range.end = last.range.end.max(place.range.end);
            }
            _ => whole.push(place),
        }
    }
    whole
}

/// The byte before `at`, 0 at the beginning.
pub(super) fn before(text: &[u8], at: usize) -> u8 {
    at.checked_sub(1).map_or(0, |at| text[at])
}

/// The byte at `at`, 0 at the end.
pub(super) fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

/// Whether a word goes on with `byte`.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether `word` is in `text`, in whatever case.
pub(super) fn contains(text: &[u8], word: &str) -> bool {
    text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

/// How many bytes from `at` on fit, at most `most`.
pub(super) fn span(text: &[u8], at: usize, most: usize, fits: impl Fn(u8) -> bool) -> usize {
    text[at..].iter().take(most).take_while(|byte| fits(**byte)).count()
}
