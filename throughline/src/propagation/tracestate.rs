//! `tracestate`: what each vendor on the way has noted, as `key=value` with commas (W3C Trace Context, 3.3).

use opentelemetry::trace::TraceState;

/// The most members of a header; one with more is malformed.
const MAX_MEMBERS: usize = 32;
/// How many characters are kept.
const MAX_LENGTH: usize = 512;
/// Members longer than this are the first to go when there is too much.
const LONG_MEMBER: usize = 128;
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 256;
const MAX_TENANT: usize = 241;
const MAX_SYSTEM: usize = 14;

/// What all the values of the header say together; nothing when any of them is malformed.
pub(super) fn parse<H: AsRef<[u8]>>(headers: impl IntoIterator<Item = H>) -> TraceState {
    let mut members: Vec<(String, String)> = Vec::new();
    for header in headers {
        let Ok(text) = str::from_utf8(header.as_ref()) else { return TraceState::NONE };
        for member in text.split(',').map(|member| member.trim_matches([' ', '\t'])) {
            if member.is_empty() {
                continue;
            }
            let Some((key, value)) = member.split_once('=') else { return TraceState::NONE };
            let again = members.iter().any(|(known, _)| known == key);
            if again || members.len() == MAX_MEMBERS || !is_key(key) || !is_value(value) {
                return TraceState::NONE;
            }
            members.push((key.to_owned(), value.to_owned()));
        }
    }
    shorten(&mut members);
    TraceState::from_key_value(members).unwrap_or(TraceState::NONE)
}

/// Drops whole members: the long ones first, then those that were added first, which stand last.
fn shorten(members: &mut Vec<(String, String)>) {
    let length = |(key, value): &(String, String)| key.len() + 1 + value.len();
    let total = |members: &[_]| members.iter().map(length).sum::<usize>() + members.len().saturating_sub(1);
    while total(members) > MAX_LENGTH {
        let long = members.iter().rposition(|member| length(member) > LONG_MEMBER);
        members.remove(long.unwrap_or(members.len() - 1));
    }
}

fn is_key(key: &str) -> bool {
    let named = |part: &str, longest: usize| {
        let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/".contains(&b);
        let first = part.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        first && part.len() <= longest && part.bytes().all(rest)
    };
    match key.split_once('@') {
        Some((tenant, system)) => named(tenant, MAX_TENANT) && named(system, MAX_SYSTEM),
        None => named(key, MAX_KEY),
    }
}

/// Visible ASCII and spaces without `,` and `=`; a space at the end was cut off with those around the commas.
fn is_value(value: &str) -> bool {
    let allowed = |b: u8| matches!(b, b' '..=b'~') && b != b',' && b != b'=';
    (1..=MAX_VALUE).contains(&value.len()) && value.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(headers: &[&str]) -> String {
        parse(headers).header()
    }

    #[test]
    fn several_headers_are_one_list_in_their_order() {
        assert_eq!(read(&["a=1,b=2"]), "a=1,b=2");
        assert_eq!(read(&["a=1", "b=2"]), "a=1,b=2");
        assert_eq!(read(&["b=2 ,\t a=1", "", " , ,c=3,"]), "b=2,a=1,c=3", "empty members are allowed");
        assert_eq!(read(&[]), "");
    }

    #[test]
    fn keys_and_values_may_hold_what_the_standard_allows() {
        for kept in ["0a_-*/9=x", "tenant@system=x", "a= x y!\"#;~", &format!("{}=x", "k".repeat(256))] {
            assert_eq!(read(&[kept]), kept);
        }
        let longest = format!("{}@{}=x", "t".repeat(241), "s".repeat(13));
        assert_eq!(read(&[&longest]), longest);
    }

    #[test]
    fn one_malformed_member_drops_them_all() {
        for wrong in [
            "A=1",
            "_a=1",
            "a b=1",
            "a=",
            "=1",
            "a",
            "a=1=2",
            "a=é",
            "a=\u{1}",
            "@s=1",
            "t@=1",
            "t@s@u=1",
            "t@S=1",
            "b=2,b=3",
            &format!("{}=x", "k".repeat(257)),
            &format!("a={}", "v".repeat(257)),
            &format!("{}@s=1", "t".repeat(242)),
            &format!("t@{}=1", "s".repeat(15)),
        ] {
            assert_eq!(read(&["ok=1", wrong]), "", "{wrong}");
        }
        assert_eq!(parse([b"a=\xff"]).header(), "");
    }

    #[test]
    fn thirty_two_members_are_kept_and_one_more_is_malformed() {
        let members = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(read(&[&members(32)]), members(32));
        assert_eq!(read(&[&members(33)]), "");
        assert_eq!(read(&[&members(32), "more=1"]), "", "nor in a second header");
    }

    #[test]
    fn what_is_longer_than_512_characters_loses_long_members_and_then_the_oldest() {
        let member = |key: &str, length: usize| format!("{key}={}", "v".repeat(length - key.len() - 1));
        let whole = [member("a", 127), member("b", 127), member("c", 128), member("d", 127)].join(",");
        assert_eq!(whole.len(), 512);
        assert_eq!(read(&[&whole]), whole);
        assert_eq!(read(&[&member("a", 200), &member("b", 128), &member("c", 200)]), {
            [member("a", 200), member("b", 128)].join(",")
        });
        let short: Vec<_> = "abcdef".chars().map(|key| member(&key.to_string(), 100)).collect();
        assert_eq!(read(&[&short.join(",")]), short[..5].join(","));
    }

    proptest! {
        #[test]
        fn what_was_read_is_read_again(
            members in proptest::collection::btree_map("[a-z0-9][a-z0-9_*/-]{0,20}", "[ -+--<>-~]{0,20}[!-+--<>-~]", 0..32)
        ) {
            let header: Vec<_> = members.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let said = read(&[&header.join(",")]);
            prop_assert!(said.len() <= MAX_LENGTH);
            prop_assert!(!said.is_empty() || members.is_empty());
            prop_assert_eq!(&read(&[&said]), &said);
            if header.join(",").len() <= MAX_LENGTH {
                prop_assert_eq!(said, header.join(","));
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_pass_what_cannot_be_read_again(
            headers in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..4)
        ) {
            let said = parse(&headers).header();
            prop_assert_eq!(read(&[&said]), said);
        }

        #[test]
        fn nearly_well_formed_headers_neither(headers in proptest::collection::vec("[a-c@=,; 0\t]{0,40}", 0..4)) {
            let said = parse(&headers).header();
            prop_assert_eq!(read(&[&said]), said);
        }
    }
}
