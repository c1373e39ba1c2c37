//! A chat request as the client sent it, with what this program needs to know about it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::canonical;
use super::peek::{Peek, StreamUsage};
use super::sampling::Sampling;

/// Bounds on what a request body may hold; its size in bytes is bounded where it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How deep objects and arrays may be nested; more than 100 counts as 100. Default 64.
    pub max_depth: usize,
    /// How many messages a conversation may have. Default 2048.
    pub max_messages: usize,
}

/// Why a request body was refused. The text names fields and positions, never their content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// The body is not JSON; the position is the first byte that does not fit, counted from 1.
    NotJson {
        /// Line of the body.
        line: usize,
        /// Byte in that line.
        column: usize,
    },
    /// Objects and arrays are nested too deep.
    TooDeep {
        /// The deepest nesting allowed.
        max: usize,
    },
    /// `messages` is missing or empty.
    NoMessages,
    /// The conversation is too long.
    TooManyMessages {
        /// How many there are.
        found: usize,
        /// How many are allowed.
        max: usize,
    },
    /// `model` is missing or null.
    MissingModel,
    /// A field has the wrong type or was given twice.
    BadField {
        /// The field, or `body` for the whole.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// A checked chat request. It keeps the original bytes; a clone shares them.
#[derive(Clone)]
pub struct ChatRequest {
    body: Bytes,
    peek: Arc<Peek>,
}

/// One replacement in the body; an empty range inserts.
struct Edit {
    at: Range<usize>,
    with: String,
}

// === impl Limits ===

/// Walking a value takes stack, so a generous configuration must not become a crash.
const DEEPEST: usize = 100;

impl Default for Limits {
    fn default() -> Self {
        Self { max_depth: 64, max_messages: 2048 }
    }
}

// === impl RequestError ===

impl RequestError {
    /// The field that is wrong, for the `param` of an OpenAI error.
    #[must_use]
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::NotJson { .. } | Self::TooDeep { .. } | Self::BadField { field: "body", .. } => None,
            Self::NoMessages | Self::TooManyMessages { .. } => Some("messages"),
            Self::MissingModel => Some("model"),
            Self::BadField { field, .. } => Some(field),
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson { line, column } => {
                write!(f, "the body is not valid JSON at line {line}, column {column}")
            }
            Self::TooDeep { max } => write!(f, "the body is nested deeper than {max} levels"),
            Self::NoMessages => f.write_str("`messages` must hold at least one message"),
            Self::TooManyMessages { found, max } => {
                write!(f, "`messages` holds {found} messages, at most {max} are allowed")
            }
            Self::MissingModel => f.write_str("`model` is missing, it must name the model to use"),
            Self::BadField { field, expected } => write!(f, "`{field}` must be {expected}"),
        }
    }
}

impl std::error::Error for RequestError {}

// === impl ChatRequest ===

impl ChatRequest {
    /// Checks a request body and reads the few fields that matter here. Fields that are not known are never
    /// looked at; a known field that is given twice is refused, because two readers could disagree about it.
    ///
    /// # Errors
    /// [`RequestError`], when the body is not JSON, exceeds `limits`, or lacks or mistypes a needed field.
    pub fn parse(body: Bytes, limits: &Limits) -> Result<Self, RequestError> {
        let max_depth = limits.max_depth.min(DEEPEST);
        if is_deeper_than(&body, max_depth) {
            return Err(RequestError::TooDeep { max: max_depth });
        }
        let text = std::str::from_utf8(&body).map_err(|error| {
            let valid = &body[..error.valid_up_to()];
            let line_start = valid.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            RequestError::NotJson {
                line: 1 + valid.iter().filter(|&&byte| byte == b'\n').count(),
                column: 1 + valid.len() - line_start,
            }
        })?;
        let peek = Arc::new(Peek::read(text, limits)?);
        Ok(Self { body, peek })
    }

    /// The model asked for: 1 to 256 bytes.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.peek.model
    }

    /// Whether the client wants a stream of events.
    #[must_use]
    pub fn stream(&self) -> bool {
        self.peek.stream
    }

    /// Unicode characters of text in all messages; images and tool calls are not counted.
    #[must_use]
    pub fn prompt_chars(&self) -> usize {
        self.peek.prompt_chars
    }

    /// How many messages there are, at least one.
    #[must_use]
    pub fn message_count(&self) -> usize {
        self.peek.message_count
    }

    /// How many choices are asked for, where that was said as a whole number.
    #[must_use]
    pub fn n(&self) -> Option<u64> {
        self.peek.n
    }

    /// The bound on completion tokens (`max_completion_tokens`, else `max_tokens`), where that was said as a
    /// whole number. Some servers know other values, such as -1; those are left to them.
    #[must_use]
    pub fn max_tokens(&self) -> Option<u64> {
        self.peek.max_tokens
    }

    /// What it says of chance, and of being kept.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        self.peek.sampling
    }

    /// The end user that the client named.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.peek.user.as_deref()
    }

    /// The value of one metadata entry; entries that are not strings do not count.
    #[must_use]
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.peek.metadata.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether the client itself asked for a usage chunk at the end of the stream.
    #[must_use]
    pub fn wants_stream_usage(&self) -> bool {
        matches!(self.peek.stream_usage, StreamUsage::Said { on: true, .. })
    }

    /// The original bytes.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body to send upstream: the original bytes, except that `model` is replaced and, for a stream with
    /// `ask_stream_usage`, `stream_options.include_usage` is true. Whoever asks for that on the client's
    /// behalf must hide the extra chunk ([`StreamWatch`](super::StreamWatch)).
    #[must_use]
    pub fn for_upstream(&self, model: &str, ask_stream_usage: bool) -> Bytes {
        let mut edits = Vec::with_capacity(2);
        if model != self.peek.model {
            edits.push(Edit {
                at: self.peek.model_at.clone(),
                with: serde_json::Value::from(model).to_string(),
            });
        }
        if ask_stream_usage && self.peek.stream {
            edits.extend(ask_for_usage(&self.peek.stream_usage));
        }
        splice(&self.body, edits)
    }

    /// The bytes to hash for a cache key: equal for requests that mean the same, whatever their whitespace,
    /// escapes and order of keys, and different as soon as any field differs, known here or not. Left out are
    /// only `user`, `metadata`, `stream` and `stream_options`, which do not change the answer. Numbers
    /// count as they are written, so that no two big ones collapse. The order of keys still counts inside
    /// `tools`, `functions` and `response_format`, because models write fields in the order of the schema.
    ///
    /// `None` means that there is no key and the request must not be cached.
    #[must_use]
    pub fn canonical(&self) -> Option<Vec<u8>> {
        canonical::canonical(std::str::from_utf8(&self.body).ok()?)
    }

    /// As [`ChatRequest::canonical`], without the prose of the last message, and that prose: what may be worded
    /// otherwise while all else must be the same. Earlier turns, images and everything else of the last message stay.
    ///
    /// `None` when the last message is not one of the user's with exactly one text.
    #[must_use]
    pub fn around_prompt(&self) -> Option<(Vec<u8>, String)> {
        canonical::around_prompt(std::str::from_utf8(&self.body).ok()?)
    }
}

impl fmt::Debug for ChatRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatRequest")
            .field("model", &self.peek.model)
            .field("stream", &self.peek.stream)
            .field("message_count", &self.peek.message_count)
            .field("prompt_chars", &self.peek.prompt_chars)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

fn ask_for_usage(asked: &StreamUsage) -> Option<Edit> {
    const ON: &str = r#""include_usage":true"#;
    Some(match asked {
        StreamUsage::Said { on: true, .. } => return None,
        StreamUsage::Said { on: false, at } => Edit { at: at.clone(), with: "true".into() },
        StreamUsage::NotSaid { inside, empty: true } => Edit { at: *inside..*inside, with: ON.into() },
        StreamUsage::NotSaid { inside, empty: false } => {
            Edit { at: *inside..*inside, with: format!("{ON},") }
        }
        StreamUsage::NullOptions(at) => Edit { at: at.clone(), with: format!("{{{ON}}}") },
        // A comma always fits: `model` and `messages` follow.
        StreamUsage::NoOptions(at) => Edit { at: *at..*at, with: format!(r#""stream_options":{{{ON}}},"#) },
    })
}

fn splice(body: &Bytes, mut edits: Vec<Edit>) -> Bytes {
    if edits.is_empty() {
        return body.clone();
    }
    edits.sort_by_key(|edit| edit.at.start);
    let added: usize = edits.iter().map(|edit| edit.with.len()).sum();
    let mut out = Vec::with_capacity(body.len() + added);
    let mut copied = 0;
    for edit in &edits {
        out.extend_from_slice(&body[copied..edit.at.start]);
        out.extend_from_slice(edit.with.as_bytes());
        copied = edit.at.end;
    }
    out.extend_from_slice(&body[copied..]);
    out.into()
}

/// Whether objects and arrays are nested deeper than `max`. Runs before any parser, in one pass.
fn is_deeper_than(body: &[u8], max: usize) -> bool {
    let opens = |byte: &u8| matches!(byte, b'{' | b'[');
    // Most bodies have few brackets in all, and counting bytes is many times faster than following strings.
    if body.iter().filter(|byte| opens(byte)).count() <= max {
        return false;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = body.get(at) {
        at += 1;
        match byte {
            b'"' => at = after_string(body, at),
            b'{' | b'[' if depth == max => return true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Where the string ends whose text begins at `at`; behind the body when it does not end.
fn after_string(body: &[u8], mut at: usize) -> usize {
    while let Some(length) = body.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += length;
        if body[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = r#""messages":[{"role":"user","content":"Hi"}]"#;

    fn parse(body: &str) -> Result<ChatRequest, RequestError> {
        ChatRequest::parse(Bytes::copy_from_slice(body.as_bytes()), &Limits::default())
    }

    fn with(fields: &str) -> Result<ChatRequest, RequestError> {
        parse(&format!("{{{fields},{MESSAGES}}}"))
    }

    fn refused(body: &str) -> String {
        parse(body).expect_err(body).to_string()
    }

    fn value(bytes: &[u8]) -> serde_json::Value {
        serde_json::from_slice(bytes).expect("an upstream body is JSON")
    }

    #[test]
    fn reads_the_fields_it_acts_on() {
        let request = with(
            r#""model":"fast","stream":true,"n":2,"max_tokens":9,"user":"u1","metadata":{"team":"a","x":1},"stream_options":{"include_usage":true}"#,
        )
        .unwrap();
        assert_eq!(request.model(), "fast");
        assert!(request.stream());
        assert_eq!((request.n(), request.max_tokens(), request.user()), (Some(2), Some(9), Some("u1")));
        assert_eq!((request.metadata("team"), request.metadata("x")), (Some("a"), None));
        assert!(request.wants_stream_usage());
        assert_eq!((request.message_count(), request.prompt_chars()), (1, 2));
    }

    #[test]
    fn absent_and_null_fields_have_their_defaults() {
        for fields in [
            r#""model":"m""#,
            r#""model":"m","stream":null,"n":null,"user":null,"metadata":null,"stream_options":null,"max_tokens":null"#,
            r#""model":"m","stream":false,"n":"x","user":7,"metadata":[1],"stream_options":{"include_usage":null},"max_tokens":-1"#,
        ] {
            let request = with(fields).expect(fields);
            assert!(!request.stream() && !request.wants_stream_usage());
            assert_eq!((request.n(), request.max_tokens(), request.user()), (None, None, None));
            assert_eq!(request.metadata("team"), None);
        }
    }

    #[test]
    fn the_newer_name_of_the_token_bound_wins() {
        let request = with(r#""model":"m","max_tokens":5,"max_completion_tokens":7"#).unwrap();
        assert_eq!(request.max_tokens(), Some(7));
    }

    #[test]
    fn counts_decoded_characters_of_text_only() {
        let body = r#"{"model":"m","messages":[
            {"role":"system","content":"\u00e9\n\ud83d\ude00"},
            {"role":"user","content":[{"type":"text","text":"äb"},{"type":"image_url","image_url":{"url":"data:xxxx"}},5]},
            {"role":"assistant","content":null,"tool_calls":[{"function":{"arguments":"{\"text\":1}"}}]},
            {"role":"tool","content":true,"text":"not content"}]}"#;
        let request = parse(body).unwrap();
        assert_eq!((request.message_count(), request.prompt_chars()), (4, 5));
    }

    #[test]
    fn names_what_is_wrong_with_a_field() {
        let field = |fields: &str| with(fields).expect_err(fields).to_string();
        assert_eq!(field(r#""model":7"#), "`model` must be a string");
        assert_eq!(field(r#""model":"""#), "`model` must be a name of 1 to 256 bytes");
        assert_eq!(
            field(&format!(r#""model":"{}""#, "m".repeat(257))),
            "`model` must be a name of 1 to 256 bytes"
        );
        assert_eq!(field(r#""model":null"#), "`model` is missing, it must name the model to use");
        assert_eq!(field(r#""x":1"#), "`model` is missing, it must name the model to use");
        assert_eq!(field(r#""model":"m","stream":"yes""#), "`stream` must be true or false");
        assert_eq!(field(r#""model":"m","stream_options":[true]"#), "`stream_options` must be an object");
        assert_eq!(
            field(r#""model":"m","stream_options":{"include_usage":1}"#),
            "`stream_options.include_usage` must be true or false"
        );
    }

    #[test]
    fn refuses_a_known_field_that_is_given_twice() {
        let twice = with(r#""model":"cheap","mod\u0065l":"dear""#).unwrap_err();
        assert_eq!(twice, RequestError::BadField { field: "model", expected: "given only once" });
        assert_eq!(with(&format!(r#""model":"m",{MESSAGES}"#)).unwrap_err().param(), Some("messages"));
        assert!(with(r#""model":"m","top_k":1,"top_k":2"#).is_ok(), "unknown fields are not ours to judge");
    }

    #[test]
    fn refuses_conversations_that_are_empty_too_long_or_no_conversation() {
        assert_eq!(refused(r#"{"model":"m"}"#), "`messages` must hold at least one message");
        assert_eq!(refused(r#"{"model":"m","messages":[]}"#), "`messages` must hold at least one message");
        for wrong in ["null", "{}", "\"hi\"", "7", "[\"hi\"]", "[[]]", "[null]"] {
            let body = format!(r#"{{"model":"m","messages":{wrong}}}"#);
            assert_eq!(refused(&body), "`messages` must be an array of objects");
        }
        let limits = Limits { max_messages: 2, ..Limits::default() };
        let body = Bytes::from_static(br#"{"model":"m","messages":[{},{},{}]}"#);
        let error = ChatRequest::parse(body, &limits).unwrap_err();
        assert_eq!(error.to_string(), "`messages` holds 3 messages, at most 2 are allowed");
    }

    #[test]
    fn says_where_a_body_stops_being_json() {
        assert_eq!(refused("{\n\"model\": m}"), "the body is not valid JSON at line 2, column 10");
        assert_eq!(refused("{\"model\":\"m\"} x"), "the body is not valid JSON at line 1, column 15");
        let latin = Bytes::from_static(b"{\n \"a\":\"\xe9\"}");
        let error = ChatRequest::parse(latin, &Limits::default()).unwrap_err();
        assert_eq!(error, RequestError::NotJson { line: 2, column: 7 });
        for body in ["", " ", "{", "{\"model\":\"m\"", "\u{feff}{}", "{'model':1}", "{\"a\":01}", "nul"] {
            assert!(matches!(parse(body), Err(RequestError::NotJson { .. })), "{body:?}");
        }
        for body in ["7", "[]", "null", "\"model\""] {
            assert_eq!(refused(body), "`body` must be an object");
        }
    }

    #[test]
    fn error_texts_hold_no_payload() {
        for body in
            [r#"{"model":"m","messages":["s3cret"]}"#, "{\"s3cret\":\"\u{1}\"}", r#"{"model":["s3cret"]}"#]
        {
            assert!(!refused(body).contains("s3cret"));
        }
    }

    #[test]
    fn bounds_the_depth_but_not_brackets_in_strings() {
        let nested = |depth: usize| {
            format!(r#"{{"model":"m",{MESSAGES},"x":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth))
        };
        assert!(parse(&nested(63)).is_ok());
        assert_eq!(refused(&nested(64)), "the body is nested deeper than 64 levels");
        assert_eq!(refused(&"[".repeat(1_000_000)), "the body is nested deeper than 64 levels");
        let text = format!(r#"{{"model":"m","messages":[{{"content":"\"{}\\"}}]}}"#, "{[".repeat(500));
        assert_eq!(parse(&text).unwrap().prompt_chars(), 1002);
    }

    #[test]
    fn a_generous_depth_limit_cannot_exhaust_the_stack() {
        let limits = Limits { max_depth: usize::MAX, ..Limits::default() };
        let deep = |n: usize| {
            Bytes::from(format!(r#"{{"model":"m",{MESSAGES},"x":{}{}}}"#, "[".repeat(n), "]".repeat(n)))
        };
        let request = ChatRequest::parse(deep(99), &limits).unwrap();
        assert!(request.canonical().is_some());
        assert_eq!(ChatRequest::parse(deep(100), &limits).unwrap_err(), RequestError::TooDeep { max: 100 });
    }

    #[test]
    fn only_the_model_differs_upstream() {
        for (before, after) in [
            (r#"{"model":"fast","#, r#"{"model":"gpt-4o","#),
            ("{ \n\t\"model\" :  \"fast\" ,", "{ \n\t\"model\" :  \"gpt-4o\" ,"),
            (r#"{"mod\u0065l":"f\u0061st","#, r#"{"mod\u0065l":"gpt-4o","#),
            (
                r#"{"x":{"model":"fast"},"y":"\"model\":","model":"fast","#,
                r#"{"x":{"model":"fast"},"y":"\"model\":","model":"gpt-4o","#,
            ),
            (
                r#"{"größe":1e400,"id":123456789012345678901234567890,"model":"🦀","#,
                r#"{"größe":1e400,"id":123456789012345678901234567890,"model":"gpt-4o","#,
            ),
        ] {
            for rest in [MESSAGES.to_owned(), format!("{MESSAGES},\"seed\": 1.0 ,\"a\":1,\"a\":2")] {
                let request = parse(&format!("{before}{rest} }}\n")).expect(before);
                let upstream = request.for_upstream("gpt-4o", true);
                assert_eq!(upstream, format!("{after}{rest} }}\n"));
            }
        }
    }

    #[test]
    fn the_same_model_and_no_question_cost_no_copy() {
        let request = with(r#""model":"m""#).unwrap();
        assert_eq!(request.for_upstream("m", true).as_ptr(), request.body().as_ptr());
    }

    #[test]
    fn a_model_name_is_escaped() {
        let upstream = with(r#""model":"m""#).unwrap().for_upstream("a\"b\\c\n", false);
        assert_eq!(value(&upstream)["model"], "a\"b\\c\n");
    }

    #[test]
    fn asks_for_stream_usage_once_and_leaves_the_rest() {
        for (options, expected) in [
            ("", r#"{"include_usage":true}"#),
            (r#""stream_options":null,"#, r#"{"include_usage":true}"#),
            (r#""stream_options":{},"#, r#"{"include_usage":true}"#),
            (r#""stream_options": { } ,"#, r#"{"include_usage":true}"#),
            (r#""stream_options":{"x":[1]},"#, r#"{"include_usage":true,"x":[1]}"#),
            (r#""stream_options":{"include_usage":false},"#, r#"{"include_usage":true}"#),
            (
                r#""stream_options":{"a":{"include_usage":false},"include_\u0075sage": null },"#,
                r#"{"a":{"include_usage":false},"include_usage":true}"#,
            ),
            (r#""stream_options":{"include_usage":true},"#, r#"{"include_usage":true}"#),
        ] {
            for order in [format!(r#"{options}"model":"m","#), format!(r#""model":"m",{options}"#)] {
                let request = parse(&format!(" {{{order}\"stream\":true,{MESSAGES}}}")).expect(options);
                let upstream = request.for_upstream("other", true);
                let mut got = value(&upstream);
                assert_eq!(got["stream_options"], value(expected.as_bytes()), "{options}");
                assert!(
                    ChatRequest::parse(upstream.clone(), &Limits::default()).unwrap().wants_stream_usage()
                );
                let mut sent = value(request.body());
                for side in [&mut got, &mut sent] {
                    side.as_object_mut().unwrap().remove("stream_options");
                    side.as_object_mut().unwrap().remove("model");
                }
                assert_eq!(got, sent);
            }
        }
    }

    #[test]
    fn a_plain_request_is_never_asked_for_stream_usage() {
        let upstream = with(r#""model":"m","stream":false"#).unwrap().for_upstream("m", true);
        assert!(value(&upstream).get("stream_options").is_none());
    }

    #[test]
    fn rewrites_any_mixture_of_odd_members_without_touching_them() {
        let odd = [
            r#""model\u0000":"x""#,
            r#""a":"}{][\\\"""#,
            r#""":null"#,
            r#""n\u00f6":[{"model":{"model":1}}]"#,
            r#""big":-0.10000000000000000001E+400"#,
            r#""\ud83d\ude00":"\ud83d\ude00""#,
            " \r\n\t\"w\" : [ ] ",
            r#""messages2":"\"messages\":[]""#,
        ];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2_000 {
            let mut members: Vec<&str> = odd.iter().copied().filter(|_| random.bool()).collect();
            members.extend([r#""model":"fast""#, r#""stream":true"#, MESSAGES]);
            random.shuffle(&mut members);
            let body = format!("{{{}}}", members.join(","));
            let upstream = parse(&body).expect(&body).for_upstream("z", true);
            let expected = body.replacen('{', r#"{"stream_options":{"include_usage":true},"#, 1).replacen(
                r#""model":"fast""#,
                r#""model":"z""#,
                1,
            );
            assert_eq!(upstream, expected);
        }
    }

    #[test]
    fn survives_mutilated_bodies() {
        let whole = format!(r#"{{"model":"m","stream":true,"stream_options":{{"x":"é\u00e9"}},{MESSAGES}}}"#);
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..20_000 {
            let mut bytes = whole.clone().into_bytes();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                match random.u8(..3) {
                    0 => bytes[at] = random.u8(..),
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, *random.choice(b"{}[]\",:\\0 n\xff").unwrap()),
                }
            }
            if let Ok(request) = ChatRequest::parse(bytes.into(), &Limits::default()) {
                let upstream = request.for_upstream("other", true);
                let again = ChatRequest::parse(upstream, &Limits::default()).expect("a rewrite stays valid");
                assert_eq!(again.model(), "other");
                assert!(!request.stream() || again.wants_stream_usage());
                means_the_same(&request.canonical().expect("a request has a key"), request.body());
            }
        }
    }

    /// Checks a canonical text against a real parser; bodies that this parser refuses are skipped.
    fn means_the_same(canonical: &[u8], body: &[u8]) {
        let Ok(serde_json::Value::Object(mut whole)) = serde_json::from_slice(body) else { return };
        for ignored in ["user", "metadata", "stream", "stream_options"] {
            whole.remove(ignored);
        }
        assert_eq!(value(canonical), serde_json::Value::Object(whole));
    }

    #[test]
    fn debug_shows_sizes_and_no_text() {
        let shown = format!("{:?}", with(r#""model":"m","user":"s3cret""#).unwrap());
        assert!(shown.contains("prompt_chars: 2") && !shown.contains("s3cret") && !shown.contains("Hi"));
    }
}
