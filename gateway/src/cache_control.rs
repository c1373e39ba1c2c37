//! The request's `Cache-Control` (RFC 9111, section 5.2.1), as far as it is acted on: `no-cache`, `no-store`,
//! `max-age` and `only-if-cached`.
//!
//! Who wrote something that cannot be read has wanted the cache to do less, so that is what it gets: a `max-age`
//! without a number is one of 0. What is not known here says nothing.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::CACHE_CONTROL;
use throughline::cache::CachePolicy;

/// The largest number that counts; what is larger is this (RFC 9111, section 1.2.2).
const LONGEST: u64 = 1 << 31;

/// What `headers` ask of the cache.
pub(crate) fn policy(headers: &HeaderMap) -> CachePolicy {
    let values = headers.get_all(CACHE_CONTROL).iter();
    values.flat_map(|value| Directives(value.as_bytes())).fold(CachePolicy::new(), |policy, directive| {
        let (name, argument) = directive;
        match name.to_ascii_lowercase().as_slice() {
            b"no-cache" => policy.no_cache(),
            b"no-store" => policy.no_store(),
            b"only-if-cached" => policy.only_if_cached(),
            b"max-age" => policy.max_age(Duration::from_secs(argument.and_then(seconds).unwrap_or(0))),
            _ => policy,
        }
    })
}

/// A whole number, in quotes or not.
fn seconds(argument: &[u8]) -> Option<u64> {
    let quoted = argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let digits = quoted.unwrap_or(argument).trim_ascii();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse::<u64>().ok()).map(|number| {
        // Digits that are no number are too many of them.
        number.unwrap_or(LONGEST).min(LONGEST)
    })
}

/// The directives of one value, each with its argument. A comma in quotes does not end one.
struct Directives<'a>(&'a [u8]);

// === impl Directives ===

impl<'a> Iterator for Directives<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let (mut quoted, mut escaped) = (false, false);
        let end = self.0.iter().position(|byte| {
            let ends = *byte == b',' && !quoted;
            quoted ^= *byte == b'"' && !escaped;
            escaped = quoted && *byte == b'\\' && !escaped;
            ends
        });
        let (directive, rest) = end.map_or((self.0, &[][..]), |end| (&self.0[..end], &self.0[end + 1..]));
        self.0 = rest;
        let parts = directive.iter().position(|byte| *byte == b'=');
        let (name, argument) =
            parts.map_or((directive, None), |at| (&directive[..at], Some(directive[at + 1..].trim_ascii())));
        Some((name.trim_ascii(), argument))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&[u8]]) -> CachePolicy {
        let values = values.iter().map(|value| HeaderValue::from_bytes(value).unwrap());
        policy(&values.map(|value| (CACHE_CONTROL, value)).collect())
    }

    fn said(value: &str) -> CachePolicy {
        read(&[value.as_bytes()])
    }

    fn aged(seconds: u64) -> CachePolicy {
        CachePolicy::new().max_age(Duration::from_secs(seconds))
    }

    #[test]
    fn reads_the_four_directives_alone_and_together() {
        let none = CachePolicy::new();
        assert_eq!(read(&[]), none);
        assert_eq!(said("no-cache"), none.no_cache());
        assert_eq!(said("no-store"), none.no_store());
        assert_eq!(said("only-if-cached"), none.only_if_cached());
        assert_eq!(said("max-age=60"), aged(60));
        assert_eq!(said("max-age=60, only-if-cached"), aged(60).only_if_cached());
        assert_eq!(read(&[b"no-cache", b"no-store"]), none.no_cache().no_store(), "from several headers too");
    }

    #[test]
    fn sloppy_spelling_means_the_same() {
        let none = CachePolicy::new();
        assert_eq!(said(" ,, NO-Cache ;"), none, "a semicolon is no comma, and the word is another");
        assert_eq!(said(" ,,\tNO-Cache\t, ,"), none.no_cache());
        assert_eq!(said("no-cache=\"set-cookie, x\""), none.no_cache());
        assert_eq!(said("Max-Age = \"60\""), aged(60));
        assert_eq!(said("max-age=60,max-age=5,max-age=70"), aged(5), "the shortest counts");
    }

    #[test]
    fn an_age_that_is_no_number_is_none_at_all() {
        for value in
            ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=1h", "max-age=\"1", "max-age=+1"]
        {
            assert_eq!(said(value), aged(0), "{value}");
        }
        assert_eq!(said("max-age=99999999999999999999999999"), aged(LONGEST));
    }

    #[test]
    fn what_is_quoted_or_unknown_says_nothing() {
        let none = CachePolicy::new();
        for value in [
            "",
            ",",
            "=",
            "no-cache-please",
            "no_store",
            "private, must-revalidate, max-stale=5, min-fresh=9",
            "x=\"a, no-store, b\"",
            "x=\"a\\\", no-store, b\"",
            "x=\"no end, no-store",
        ] {
            assert_eq!(said(value), none, "{value}");
        }
        assert_eq!(read(&[b"\xff\xfe=\x80, no-store"]), none.no_store());
    }

    proptest! {
        #[test]
        fn whatever_one_header_holds_the_next_is_read(
            value in proptest::collection::vec(any::<u8>().prop_filter("in a header", |b| *b >= 32 && *b != 127), 0..64)
        ) {
            let both: HeaderMap = [&value[..], b"no-store"]
                .map(|value| (CACHE_CONTROL, HeaderValue::from_bytes(value).unwrap()))
                .into_iter()
                .collect();
            // An open quote in one header does not reach into the next.
            prop_assert!(policy(&both) == policy(&both).no_store());
        }
    }
}
