//! Whose request it is, as far as a header says so. Tenants do not share cached answers.

use std::fmt::Write as _;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName};

/// The longest name that is taken as it is.
const LONGEST: usize = 64;

/// The tenant that `header` names: its value where that is a plain name, else a hash of it. A key is never taken as
/// it is. `None` without such a header: those who do not say who they are are one tenant.
pub(crate) fn of(header: &HeaderName, headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header).iter().map(|value| value.as_bytes());
    let (first, second) = (values.next()?, values.next());
    let plain = std::str::from_utf8(first).ok().filter(|_| second.is_none() && header != AUTHORIZATION);
    if let Some(name) = plain.filter(|name| is_plain(name)) {
        return Some(name.to_owned());
    }
    let mut hash = blake3::Hasher::new();
    for value in headers.get_all(header) {
        hash.update(&(value.len() as u64).to_le_bytes());
        hash.update(value.as_bytes());
    }
    let mut tenant = String::from("#");
    for byte in &hash.finalize().as_bytes()[..16] {
        write!(tenant, "{byte:02x}").expect("a string takes any text");
    }
    Some(tenant)
}

/// Whether it is a name, and none that could be taken for a hash.
fn is_plain(name: &str) -> bool {
    let first = name.bytes().next();
    name.len() <= LONGEST && first.is_some_and(|b| b != b'#') && name.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const TEAM: HeaderName = HeaderName::from_static("x-team");

    fn tenant(header: &HeaderName, values: &[&[u8]]) -> Option<String> {
        let values = values.iter().map(|value| HeaderValue::from_bytes(value).unwrap());
        of(header, &values.map(|value| (header.clone(), value)).collect())
    }

    #[test]
    fn a_plain_name_is_the_tenant_and_everything_else_is_hashed() {
        assert_eq!(tenant(&TEAM, &[]), None);
        assert_eq!(tenant(&TEAM, &[b"blue:1"]).as_deref(), Some("blue:1"));
        for odd in [&b""[..], b"two words", b"#blue", b"bl\xffue", &[b'x'; 65]] {
            let tenant = tenant(&TEAM, &[odd]).unwrap();
            assert!(tenant.starts_with('#') && tenant.len() == 33, "{tenant}");
        }
    }

    #[test]
    fn a_key_does_not_stand_in_the_tenant() {
        let key = ["Bearer", "abc"].join(" ");
        let hashed = tenant(&AUTHORIZATION, &[key.as_bytes()]).unwrap();
        assert!(hashed.starts_with('#') && !hashed.contains("abc"));
        assert!(tenant(&AUTHORIZATION, &[b"abc"]).unwrap().starts_with('#'));
    }

    proptest! {
        #[test]
        fn different_values_are_different_tenants(one in values(), other in values()) {
            let of = |values: &[Vec<u8>]| tenant(&TEAM, &values.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(one == other, of(&one) == of(&other), "{:?} {:?}", of(&one), of(&other));
        }
    }

    fn values() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop_oneof![Just(b'#'), Just(b'a'), Just(b' '), Just(b','), Just(0xff)];
        proptest::collection::vec(proptest::collection::vec(byte, 0..3), 0..3)
    }
}
