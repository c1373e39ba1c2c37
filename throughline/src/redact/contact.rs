//! E-mail addresses, IP addresses, and credentials in URLs.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::scan::{before, byte, is_word, span};

/// RFC 5321: the longest local part and the longest domain.
const LONGEST_LOCAL: usize = 64;
const LONGEST_DOMAIN: usize = 255;
const LONGEST_USER: usize = 256;
const LONGEST_ADDRESS: usize = 45;

/// The address around the `@` at `at`.
pub(super) fn email(text: &[u8], at: usize) -> Option<Range<usize>> {
    let local =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~.-".contains(&byte) || byte >= 0x80;
    let mut length = text[..at].iter().rev().take(LONGEST_LOCAL).take_while(|byte| local(**byte)).count();
    // A quote or an equals sign before an address belongs to what it stands in.
    if let Some(mark) = text[at - length..at].iter().rposition(|byte| b"'`=/{}|".contains(byte)) {
        length -= mark + 1;
    }
    let start = on_boundary(text, at - length);
    if before(text, start) == b':' && is_in_url(text, start) {
        return None;
    }
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.') || byte >= 0x80;
    let mut domain = &text[at + 1..at + 1 + span(text, at + 1, LONGEST_DOMAIN, name)];
    while let [rest @ .., b'.' | b'-'] = domain {
        domain = rest;
    }
    // The last label has no hyphen: what follows one stands beside the address.
    let last = domain.iter().rposition(|byte| *byte == b'.').map_or(0, |dot| dot + 1);
    if let (Some(hyphen), false) =
        (domain[last..].iter().position(|byte| *byte == b'-'), domain[last..].starts_with(b"xn--"))
    {
        domain = &domain[..last + hyphen];
    }
    let end = back_to_boundary(text, at + 1 + domain.len());
    let top = domain.rsplit(|byte| *byte == b'.').next()?;
    let named = top.len() >= 2
        && (top.iter().all(|byte| byte.is_ascii_alphabetic() || *byte >= 0x80) || top.starts_with(b"xn--"));
    let whole = domain.len() > top.len() + 1
        && !domain.starts_with(b".")
        && !domain.windows(2).any(|pair| pair == b"..");
    (start < at && named && whole).then_some(start..end)
}

/// Whether `at` stands in a URL's user and password, which [`credentials`] decides about.
fn is_in_url(text: &[u8], at: usize) -> bool {
    let around = &text[at.saturating_sub(LONGEST_USER)..at];
    let scheme = around.windows(3).rposition(|window| window == b"://");
    scheme.is_some_and(|scheme| !around[scheme + 3..].iter().any(|byte| *byte <= b' ' || *byte == b'/'))
}

/// The next place at or behind `at` where a character begins.
fn on_boundary(text: &[u8], mut at: usize) -> usize {
    while byte(text, at) & 0b1100_0000 == 0b1000_0000 {
        at += 1;
    }
    at
}

/// The last place at or before `at` where a character begins, unless the text ends there.
fn back_to_boundary(text: &[u8], mut at: usize) -> usize {
    while at > 0 && byte(text, at) & 0b1100_0000 == 0b1000_0000 {
        at -= 1;
    }
    at
}

/// `user:password` between `://`, which ends at `from`, and `@`.
pub(super) fn credentials(text: &[u8], from: usize) -> Option<Range<usize>> {
    let fits = |byte: u8| byte > b' ' && !b"/?#\"'<>\\@".contains(&byte);
    let user = span(text, from, LONGEST_USER, fits);
    let end = from + user;
    let colon = text[from..end].iter().position(|byte| *byte == b':')?;
    let password = &text[from + colon + 1..end];
    let variable = password.is_empty()
        || password == b"password"
        || matches!(byte(text, from), b'$' | b'{')
        || password.contains(&b'{')
        || password[0] == b'$'
        || password.starts_with(b"[REDACTED");
    (byte(text, end) == b'@' && !variable).then_some(from..end)
}

/// The address that begins with the digit at `at`, or holds it if it is of colons. Those of this machine are none
/// of anybody's.
pub(super) fn ip(text: &[u8], at: usize) -> Option<Range<usize>> {
    if before(text, at).is_ascii_hexdigit()
        || byte(text, at + span(text, at, 5, |byte| byte.is_ascii_hexdigit())) == b':'
    {
        return ipv6(text, at);
    }
    ipv4(text, at)
}

/// Whether this machine's own address, or that of no machine, begins at `at`: nothing personal, and no other number.
pub(super) fn is_local(text: &[u8], at: usize) -> bool {
    let end = at + span(text, at, 16, |byte| byte.is_ascii_digit() || byte == b'.');
    let address = str::from_utf8(&text[at..end]).ok().and_then(|text| text.parse::<Ipv4Addr>().ok());
    address.is_some_and(|address| address.is_loopback() || address.is_unspecified())
}

fn ipv4(text: &[u8], at: usize) -> Option<Range<usize>> {
    let ahead = before(text, at);
    if ahead.is_ascii_alphanumeric() || matches!(ahead, b'.' | b'_') {
        return None;
    }
    let end = at + span(text, at, 16, |byte| byte.is_ascii_digit() || byte == b'.');
    let end = if before(text, end) == b'.' { end - 1 } else { end };
    let address: Ipv4Addr = str::from_utf8(&text[at..end]).ok()?.parse().ok()?;
    let goes_on = byte(text, end).is_ascii_alphanumeric()
        || (byte(text, end) == b'.' && byte(text, end + 1).is_ascii_digit());
    let version = text[..at].len() >= 8 && text[at - 8..at].eq_ignore_ascii_case(b"version ");
    (!goes_on && !version && !address.is_loopback() && !address.is_unspecified()).then_some(at..end)
}

/// The address of colons around `at`.
pub(super) fn ipv6(text: &[u8], at: usize) -> Option<Range<usize>> {
    let part = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let back = text[..at].iter().rev().take(5).take_while(|byte| part(**byte)).count();
    let start = at - back;
    if is_word(before(text, start)) {
        return None;
    }
    let mut end = start + span(text, start, LONGEST_ADDRESS, part);
    while end > start && matches!(text[end - 1], b'.')
        || (text[start..end].ends_with(b":") && !text[start..end].ends_with(b"::"))
    {
        end -= 1;
    }
    if is_word(byte(text, end)) {
        return None;
    }
    let address: Ipv6Addr = str::from_utf8(&text[start..end]).ok()?.parse().ok()?;
    let digits = text[start..end].iter().any(u8::is_ascii_digit);
    (digits && !address.is_loopback() && !address.is_unspecified()).then_some(start..end)
}
