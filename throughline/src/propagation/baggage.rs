//! `baggage`: what a caller wants known all the way, as `key=value;property` with commas (W3C Baggage).

use percent_encoding::percent_decode;

/// The most members that are read.
pub const MAX_MEMBERS: usize = 64;
/// The most bytes that are read, those of all headers and the commas between them together.
pub const MAX_BYTES: usize = 8192;

/// The entries by all the values of the header, in their order, values decoded. Properties are left out, and so are
/// malformed members, control characters among them; what exceeds [`MAX_MEMBERS`] or [`MAX_BYTES`] is left out from
/// there on.
pub fn parse<H: AsRef<[u8]>>(headers: impl IntoIterator<Item = H>) -> Vec<(String, String)> {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for header in headers {
        for member in header.as_ref().split(|byte| *byte == b',') {
            // With the comma that parts it from the one before.
            bytes += member.len() + usize::from(bytes > 0);
            if bytes > MAX_BYTES || entries.len() == MAX_MEMBERS {
                return entries;
            }
            entries.extend(entry(member));
        }
    }
    entries
}

fn entry(member: &[u8]) -> Option<(String, String)> {
    let member = member.split(|byte| *byte == b';').next()?;
    let equals = member.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (trimmed(&member[..equals]), trimmed(&member[equals + 1..]));
    if key.is_empty() || !key.iter().all(|byte| is_token(*byte)) || !value.iter().all(|byte| is_octet(*byte))
    {
        return None;
    }
    // Bytes that are no text once decoded become replacement characters, as the standard has it.
    let value = percent_decode(value).decode_utf8_lossy().into_owned();
    let key = str::from_utf8(key).expect("a token is ASCII").to_owned();
    (!value.chars().any(char::is_control)).then_some((key, value))
}

fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// A character of a name in HTTP (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Visible ASCII without quotes, commas, semicolons and backslashes.
fn is_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn read(headers: &[&str]) -> Vec<(String, String)> {
        parse(headers)
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn reads_members_of_all_headers_without_their_properties() {
        assert_eq!(read(&["a=1,b=2;secret;p=3", "c=4"]), pairs(&[("a", "1"), ("b", "2"), ("c", "4")]));
        assert_eq!(read(&[" a\t=\t1 ; p , b = 2"]), pairs(&[("a", "1"), ("b", "2")]));
        assert_eq!(read(&["a=b=c,d="]), pairs(&[("a", "b=c"), ("d", "")]));
        assert_eq!(read(&[]), []);
    }

    #[test]
    fn decodes_values_and_leaves_keys() {
        assert_eq!(read(&["shop=caf%C3%A9,k%20=%2C%3B%20x"]), pairs(&[("shop", "café"), ("k%20", ",; x")]));
        assert_eq!(read(&["a=100%,b=%zz,c=%C3"]), pairs(&[("a", "100%"), ("b", "%zz"), ("c", "\u{fffd}")]));
    }

    #[test]
    fn leaves_out_what_is_malformed_and_keeps_the_rest() {
        for wrong in [
            "",
            " ",
            "x",
            "=1",
            "x y=1",
            "x=1 2",
            "x=\"1\"",
            "x=\\",
            "é=1",
            "x=é",
            "x=\u{1}",
            "x=%00",
            "x=%0d%0aevil: 1",
            "x=%1b[31m",
            "x=%7F",
            "x=%C2%85",
            ";x=1",
        ] {
            assert_eq!(read(&[&format!("a=1,{wrong},b=2")]), pairs(&[("a", "1"), ("b", "2")]), "{wrong:?}");
        }
    }

    #[test]
    fn reads_sixty_four_members_and_8192_bytes() {
        let members = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>();
        assert_eq!(read(&[&members(64).join(",")]).len(), 64);
        assert_eq!(read(&[&members(65).join(",")]).len(), 64);
        let separate = members(65);
        assert_eq!(parse(&separate).len(), 64, "in however many headers");
        let whole = format!("a={},b=2", "x".repeat(MAX_BYTES - 6));
        assert_eq!(whole.len(), MAX_BYTES);
        assert_eq!(read(&[&whole]).len(), 2);
        assert_eq!(read(&[&format!("{whole}2")]).len(), 1);
        assert_eq!(read(&[&whole, "c=3"]).len(), 2);
        assert_eq!(read(&[&format!("a={}", "x".repeat(MAX_BYTES)), "b=2"]), []);
    }

    fn written(entries: &[(String, String)]) -> String {
        let mut header = String::new();
        for (key, value) in entries {
            let comma = if header.is_empty() { "" } else { "," };
            write!(header, "{comma}{key}=").unwrap();
            value.bytes().for_each(|byte| write!(header, "%{byte:02X}").unwrap());
        }
        header
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            entries in proptest::collection::vec(("[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,8}", "\\PC{0,12}"), 0..20)
        ) {
            prop_assert_eq!(read(&[&written(&entries)]), entries);
        }

        #[test]
        fn no_bytes_make_it_panic_or_pass_a_control_character(
            headers in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..4)
        ) {
            for (key, value) in parse(&headers) {
                prop_assert!(key.bytes().all(is_token) && !key.is_empty());
                prop_assert!(!value.chars().any(char::is_control));
            }
        }

        #[test]
        fn nearly_well_formed_headers_neither(headers in proptest::collection::vec("[a-c=,;% 0-9\t]{0,60}", 0..9)) {
            let entries = parse(&headers);
            prop_assert!(entries.len() <= MAX_MEMBERS);
            prop_assert!(!entries.iter().any(|(_, value)| value.chars().any(char::is_control)));
            prop_assert_eq!(read(&[&written(&entries)]), entries);
        }
    }
}
