//! Keys and tokens that are known by their shape.

use std::ops::Range;

use memchr::memmem;

use super::Kind;
use super::scan::{before, byte, is_word, span};

/// The longest tail of a token that is looked at; what goes on beyond it is part of it all the same.
const LONGEST_TOKEN: usize = 512;
const LONGEST_JWT_HEADER: usize = 1024;
/// The longest private key that is looked for the end of.
const LONGEST_PEM: usize = 16 * 1024;

/// A token that begins with `anchor`, written as it is.
pub(super) struct Token {
    pub(super) anchor: &'static str,
    pub(super) kind: Kind,
    alphabet: Alphabet,
    least: usize,
    random: bool,
}

#[derive(Clone, Copy)]
enum Alphabet {
    Upper,
    Alnum,
    Word,
    Url,
    Base64,
}

/// A token whose tail of at least `least` characters need not look random: the anchor says enough.
const fn sure(anchor: &'static str, kind: Kind, alphabet: Alphabet, least: usize) -> Token {
    Token { anchor, kind, alphabet, least, random: false }
}

/// A token whose tail must look random, since words can begin alike.
const fn random(anchor: &'static str, kind: Kind, alphabet: Alphabet, least: usize) -> Token {
    Token { random: true, ..sure(anchor, kind, alphabet, least) }
}

#[rustfmt::skip]
pub(super) static TOKENS: &[Token] = &[
    random("sk-", Kind::ApiKey, Alphabet::Url, 28), // OpenAI, Anthropic, OpenRouter, DeepSeek and others
    sure("gsk_", Kind::ApiKey, Alphabet::Alnum, 40), // Groq
    sure("xai-", Kind::ApiKey, Alphabet::Alnum, 60),
    sure("tgp_v1_", Kind::ApiKey, Alphabet::Url, 40), // Together
    sure("r8_", Kind::ApiKey, Alphabet::Alnum, 37), // Replicate
    sure("pplx-", Kind::ApiKey, Alphabet::Alnum, 40), // Perplexity
    sure("csk-", Kind::ApiKey, Alphabet::Alnum, 40), // Cerebras
    random("hf_", Kind::ApiKey, Alphabet::Alnum, 30),
    random("api_org_", Kind::ApiKey, Alphabet::Alnum, 30),
    sure("nvapi-", Kind::ApiKey, Alphabet::Url, 40),
    random("fw_", Kind::ApiKey, Alphabet::Alnum, 20), // Fireworks
    sure("vck_", Kind::ApiKey, Alphabet::Alnum, 40),
    random("pcsk_", Kind::ApiKey, Alphabet::Word, 40),
    sure("lsv2_", Kind::ApiKey, Alphabet::Word, 36), // LangSmith
    random("sk_", Kind::ApiKey, Alphabet::Alnum, 40), // ElevenLabs
    random("AIza", Kind::CloudKey, Alphabet::Url, 35), // Google
    sure("ya29.", Kind::CloudKey, Alphabet::Url, 20),
    sure("GOCSPX-", Kind::CloudKey, Alphabet::Url, 28),
    sure("AKIA", Kind::CloudKey, Alphabet::Upper, 16), // Amazon
    sure("ASIA", Kind::CloudKey, Alphabet::Upper, 16),
    sure("ABIA", Kind::CloudKey, Alphabet::Upper, 16),
    sure("ACCA", Kind::CloudKey, Alphabet::Upper, 16),
    sure("ABSK", Kind::CloudKey, Alphabet::Base64, 100),
    sure("bedrock-api-key-", Kind::CloudKey, Alphabet::Base64, 60),
    random("LTAI", Kind::CloudKey, Alphabet::Alnum, 16), // Alibaba
    sure("dop_v1_", Kind::CloudKey, Alphabet::Alnum, 60),
    random("hvs.", Kind::CloudKey, Alphabet::Url, 90), // Vault
    sure("ghp_", Kind::SourceToken, Alphabet::Alnum, 36),
    sure("gho_", Kind::SourceToken, Alphabet::Alnum, 36),
    sure("ghu_", Kind::SourceToken, Alphabet::Alnum, 36),
    sure("ghs_", Kind::SourceToken, Alphabet::Alnum, 36),
    sure("ghr_", Kind::SourceToken, Alphabet::Alnum, 36),
    sure("github_pat_", Kind::SourceToken, Alphabet::Word, 40),
    sure("glpat-", Kind::SourceToken, Alphabet::Url, 20),
    sure("glrt-", Kind::SourceToken, Alphabet::Url, 20),
    sure("npm_", Kind::SourceToken, Alphabet::Alnum, 36),
    sure("pypi-AgE", Kind::SourceToken, Alphabet::Url, 40),
    sure("dckr_pat_", Kind::SourceToken, Alphabet::Url, 20),
    random("xoxb-", Kind::ChatToken, Alphabet::Url, 20), // Slack
    random("xoxp-", Kind::ChatToken, Alphabet::Url, 20),
    random("xoxa-", Kind::ChatToken, Alphabet::Url, 20),
    random("xoxo-", Kind::ChatToken, Alphabet::Url, 20),
    random("xoxr-", Kind::ChatToken, Alphabet::Url, 20),
    random("xoxs-", Kind::ChatToken, Alphabet::Url, 20),
    random("xoxe-", Kind::ChatToken, Alphabet::Url, 20),
    random("xoxe.", Kind::ChatToken, Alphabet::Url, 20),
    random("xoxd-", Kind::ChatToken, Alphabet::Base64, 20),
    random("xapp-", Kind::ChatToken, Alphabet::Url, 20),
    sure("sk_live_", Kind::PaymentKey, Alphabet::Alnum, 16), // Stripe
    sure("sk_test_", Kind::PaymentKey, Alphabet::Alnum, 16),
    sure("sk_prod_", Kind::PaymentKey, Alphabet::Alnum, 16),
    sure("rk_live_", Kind::PaymentKey, Alphabet::Alnum, 16),
    sure("rk_test_", Kind::PaymentKey, Alphabet::Alnum, 16),
    sure("rk_prod_", Kind::PaymentKey, Alphabet::Alnum, 16),
    sure("whsec_", Kind::PaymentKey, Alphabet::Base64, 24),
];

// === impl Token ===

impl Token {
    /// The token that begins at `start`, if there is one.
    pub(super) fn at(&self, text: &[u8], start: usize) -> Option<Range<usize>> {
        let from = start + self.anchor.len();
        if &text[start..from] != self.anchor.as_bytes() || is_word(before(text, start)) {
            return None;
        }
        let tail = span(text, from, LONGEST_TOKEN, |byte| self.alphabet.has(byte));
        let looked_at = &text[from..from + tail];
        let fits = tail >= self.least && (!self.random || looks_random(looked_at));
        fits.then(|| start..from + tail + span(text, from + tail, usize::MAX, |byte| self.alphabet.has(byte)))
    }
}

// === impl Alphabet ===

impl Alphabet {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Upper => byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte),
            Self::Alnum => byte.is_ascii_alphanumeric(),
            Self::Word => byte.is_ascii_alphanumeric() || byte == b'_',
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Base64 => {
                byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_' | b'%')
            }
        }
    }
}

/// Whether `text` is more like a key than like words: it has digits or both cases within a word, and no few
/// characters make up most of it.
pub(super) fn looks_random(text: &[u8]) -> bool {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let turns =
        text.windows(2).filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase()).count();
    (digits >= 2 || turns >= 3) && entropy(text) > 2.8
}

/// Shannon's entropy, in bits a byte.
pub(super) fn entropy(text: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    text.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let whole = f64::from(u32::try_from(text.len()).unwrap_or(u32::MAX));
    let share = |count: &u32| f64::from(*count) / whole;
    counts.iter().filter(|count| **count > 0).map(|count| -share(count) * share(count).log2()).sum()
}

/// A private key from its first line to its last, also with `\n` written out and also when its end is missing.
pub(super) fn private_key(text: &[u8], start: usize) -> Option<Range<usize>> {
    let head =
        span(text, start + 5, 80, |byte| byte.is_ascii_uppercase() || matches!(byte, b' ' | b'0'..=b'9'));
    let from = start + 5 + head;
    let title = &text[start + 5..from];
    if !text[from..].starts_with(b"-----") || memmem::find(title, b"PRIVATE KEY").is_none() {
        return None;
    }
    let within = &text[from + 5..text.len().min(from + LONGEST_PEM)];
    if let Some(end) = memmem::find(within, b"-----END") {
        let end = from + 5 + end + 8;
        let rest = span(text, end, 80, |byte| byte != b'-' && byte != b'\n');
        return Some(start..end + rest + span(text, end + rest, 5, |byte| byte == b'-'));
    }
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=\r\n\\".contains(&byte);
    Some(start..from + 5 + span(text, from + 5, LONGEST_PEM, base64))
}

/// Where a private key begins that has not ended yet.
pub(super) fn open_private_key(text: &[u8]) -> Option<usize> {
    let start = memmem::rfind(text, b"-----BEGIN")?;
    let open = text.len() - start < LONGEST_PEM && memmem::find(&text[start..], b"-----END").is_none();
    open.then_some(start)
}

/// Three parts of base64, the first two of them objects.
pub(super) fn jwt(text: &[u8], start: usize) -> Option<Range<usize>> {
    if !text[start..].starts_with(b"eyJ") || is_word(before(text, start)) {
        return None;
    }
    let url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'=');
    let header = start + span(text, start, LONGEST_JWT_HEADER, url);
    if header - start < 12 || byte(text, header) != b'.' || !text[header + 1..].starts_with(b"eyJ") {
        return None;
    }
    let body = header + 1 + span(text, header + 1, usize::MAX, url);
    if byte(text, body) != b'.' {
        return Some(start..body);
    }
    Some(start..body + 1 + span(text, body + 1, usize::MAX, url))
}

/// A webhook that whoever knows it may post to, from its scheme on.
pub(super) fn slack_hook(text: &[u8], start: usize) -> Option<Range<usize>> {
    let path = start + "hooks.slack.com/".len();
    let tail = span(text, path, 200, |byte| byte.is_ascii_alphanumeric() || byte == b'/');
    let from = ["https://", "http://"].iter().find(|scheme| text[..start].ends_with(scheme.as_bytes()));
    (tail >= 30).then(|| start - from.map_or(0, |scheme| scheme.len())..path + tail)
}

/// A client secret of Entra: three characters, a digit, `Q~`, and 31 to 34 more.
pub(super) fn azure_secret(text: &[u8], start: usize) -> Option<Range<usize>> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'~' | b'.' | b'-');
    let from = start.checked_sub(4)?;
    let head = &text[from..start];
    if &text[start..start + 2] != b"Q~" || !head[3].is_ascii_digit() || !head.iter().copied().all(fits) {
        return None;
    }
    let tail = span(text, start + 2, 64, fits);
    ((31..=34).contains(&tail) && !fits(before(text, from))).then(|| from..start + 2 + tail)
}
