use proptest::prelude::*;

use super::*;
use crate::telemetry::Telemetry;

/// A key's text, put together here so that no scanner takes this file for a leak.
fn key(head: &str, tail: &str) -> String {
    format!("{head}{tail}")
}

fn redacted(text: &str) -> String {
    Redactor::standard().text(text).into_owned()
}

const TAIL: &str = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0";

#[test]
fn finds_each_kind_by_its_shape() {
    let cases = [
        ("ann.lee+x@mail.example.org".to_owned(), "EMAIL"),
        ("+44 20 7644 7447".to_owned(), "PHONE"),
        ("(533) 546-4903".to_owned(), "PHONE"),
        ("4012-8888-8888-1881".to_owned(), "CARD"),
        ("gb82 west 1234 5698 7654 32".to_owned(), "IBAN"),
        ("460-89-9847".to_owned(), "SSN"),
        ("86.121.97.248".to_owned(), "IP"),
        ("2001:db8::8a2e:370:7334".to_owned(), "IP"),
        (key("sk-proj-", TAIL), "API_KEY"),
        (key("sk-ant-api03-", TAIL), "API_KEY"),
        (key("gsk_", &TAIL.repeat(2)), "API_KEY"),
        (key("hf_", "cfikkInrWvMGqxvvhspMXTFiLJXgucAeyY"), "API_KEY"),
        (key("AKIA", "IOSFODNN7EXAMPLE"), "CLOUD_KEY"),
        (key("AIza", "eB6veWzSmA3y_nXL_cPZKcuzPrR2BImWS-E"), "CLOUD_KEY"),
        (key("ghp_", TAIL), "SOURCE_TOKEN"),
        (key("xoxb-", "825266588433-2282217982625-MYUSRuMibw"), "CHAT_TOKEN"),
        (key("sk_live_", TAIL), "PAYMENT_KEY"),
        (key("eyJhbGciOiJIUzI1NiJ9.", "eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"), "JWT"),
    ];
    for (text, kind) in cases {
        assert_eq!(
            redacted(&format!("see {text}, please")),
            format!("see [REDACTED:{kind}], please"),
            "{text}"
        );
    }
}

#[test]
fn takes_the_value_of_what_is_assigned_to_the_name_of_a_secret() {
    for (text, rest) in [
        ("password=hunter2hunter", "password=[REDACTED:CREDENTIAL]"),
        ("\"api_key\": \"q9W8e7R6t5Y4u3I2o1\",", "\"api_key\": \"[REDACTED:CREDENTIAL]\","),
        ("Authorization: Bearer abcdef0123456789", "Authorization: Bearer [REDACTED:CREDENTIAL]"),
        ("redis://ann:s3cr3t@cache:6379/0", "redis://[REDACTED:URL_CREDENTIAL]@cache:6379/0"),
    ] {
        assert_eq!(redacted(text), rest);
    }
}

#[test]
fn takes_a_private_key_whole_also_with_newlines_written_out_or_cut_off() {
    let (head, tail) = (key("-----BEGIN EC PRIVATE ", "KEY-----"), key("-----END EC PRIVATE ", "KEY-----"));
    for text in [
        format!("{head}\nMHcCAQEE+/=\nabcd\n{tail}"),
        format!("{head}\\nMHcCAQEE+/=\\nabcd\\n{tail}"),
        format!("{head}\nMHcCAQEE+/=\nab"),
    ] {
        assert_eq!(redacted(&format!("key: {text}")), "key: [REDACTED:PRIVATE_KEY]");
    }
}

#[test]
fn leaves_alone_what_only_looks_like_it() {
    for text in [
        "sk-your-api-key-here",
        "sk-learn-contrib/skope-rules",
        "AKIA is a prefix; ghp_ too",
        "def f(self): return self.a@self.b",
        "978-0-7406-8124-0",
        "error while calling with 1704180084610",
        "v9.24.28 and version 1.2.3.4",
        "4260678023714963",
        "2026-11-04T12:00:08Z",
        "req_7KHTPEQrjBxPw7WyABx9J7nm",
        "1f0ca3ee7d7b13fa56973b14e5acbe3a19715d7f",
        "Q1 2019-2024 revenue 74618703",
        "password=$PASSWORD token=<your token>",
        "http://127.0.0.1:8080 and [::1]:80",
        "00-987c06e007865946898e5bfd36c69303-0942b9dba03eeb9c-01",
        "std::fmt::Debug",
    ] {
        assert_eq!(redacted(text), text);
    }
}

#[test]
fn a_value_under_the_name_of_a_secret_goes_whatever_it_is() {
    let redactor = Redactor::standard();
    for secret in [
        "authorization",
        "X-Api-Key",
        "http.request.header.cookie",
        "db.password",
        "access_token",
        "client-secret",
    ] {
        assert_eq!(redactor.value(secret, "x"), "[REDACTED:CREDENTIAL]", "{secret}");
    }
    for open in ["gen_ai.usage.input_tokens", "gen_ai.token.type", "max_tokens", "http.route", "tokenizer"] {
        assert_eq!(redactor.value(open, "x"), "x", "{open}");
    }
}

#[test]
fn counts_by_kind_and_never_says_what_it_found() {
    let telemetry = Telemetry::builder().without_endpoint().local().init();
    let redactor = Redactor::standard().counted(telemetry.sink().registry().unwrap());
    let _ = redactor.text("ann@example.com and bob@example.com from 86.121.97.248");
    let page = telemetry.sink().render();
    assert!(page.contains("redactions_total{kind=\"email\"} 2\n"), "{page}");
    assert!(page.contains("redactions_total{kind=\"ip\"} 1\n"));
    assert!(!page.contains("example.com"));
}

#[test]
fn what_is_too_long_to_scan_is_dropped() {
    let long = "x".repeat(LONGEST + 1);
    assert_eq!(redacted(&long), "[REDACTED:UNSCANNED]");
    assert_eq!(redacted(&long[1..]).len(), LONGEST);
}

#[test]
fn a_secret_that_never_ends_is_given_up_to_its_last_byte() {
    let endless = key("sk-", &TAIL.repeat(2 * LONGEST / TAIL.len()));
    let mut stream = Redactor::standard().stream();
    let mut out = stream.push("see ");
    for piece in endless.as_bytes().chunks(64) {
        out.push_str(&stream.push(str::from_utf8(piece).unwrap()));
    }
    out.push_str(&stream.push(" and ann@example.com"));
    out.push_str(&stream.finish());
    assert_eq!(out, "see [REDACTED:UNSCANNED] and [REDACTED:EMAIL]");
}

/// Texts with secrets in them, side by side in every way.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        Just("ann@example.com".to_owned()),
        Just("+44 20 7644 7447".to_owned()),
        Just("4012888888881881".to_owned()),
        Just("password=hunter2hunter".to_owned()),
        Just(key("sk-", TAIL)),
        Just(key("-----BEGIN PRIVATE ", "KEY-----\nMHcC\n") + "-----END PRIVATE KEY-----"),
        Just("https://ann:s3cr3t@host/".to_owned()),
        Just("phone".to_owned()),
        "[a-z ,.:;=@\"'é日0-9-]{0,12}",
        "[ \n]",
    ];
    proptest::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.join(" "))
}

proptest! {
    #[test]
    fn redacting_twice_changes_nothing_more(text in texts()) {
        let once = redacted(&text);
        prop_assert_eq!(redacted(&once), once);
    }

    #[test]
    fn a_text_in_pieces_comes_out_as_the_whole_does(text in texts(), filler in 0_usize..3000, size in 1_usize..700) {
        let text = format!("{text}{}{text}", " lorem ipsum".repeat(filler / 12));
        let mut stream = Redactor::standard().stream();
        let (mut out, mut rest) = (String::new(), text.as_str());
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.ceil_char_boundary(size));
            out.push_str(&stream.push(piece));
            rest = more;
        }
        out.push_str(&stream.finish());
        prop_assert_eq!(out, redacted(&text));
    }

    #[test]
    fn takes_any_text(text in "\\PC*") {
        let _ = redacted(&text);
    }
}
