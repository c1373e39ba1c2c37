//! What clients ask and providers answer: a line, or as much as it usually is.

use std::fmt::Write as _;

use clap::ValueEnum;

/// How much is asked and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Size {
    /// A line, and a line in answer: next to nothing to do but what telemetry sees
    Small,
    /// 1,155 tokens in and 211 out, the means of a trace of Azure's; every other answer streamed, a token an event
    Usual,
}

/// Characters of a token, about, in English.
const A_TOKEN: &str = "bee ";
const TOKENS_IN: usize = 1_155;
const TOKENS_OUT: usize = 211;

/// What a provider answers.
#[derive(Debug)]
pub(super) struct Answers {
    whole: Vec<u8>,
    streamed: Vec<u8>,
}

// === impl Size ===

impl Size {
    /// The request number `number`. No two are the same: a cache would answer the second.
    pub(super) fn request(self, number: u64) -> String {
        let body = match self {
            Self::Small => format!(
                r#"{{"model":"auto","messages":[{{"role":"system","content":"You answer briefly."}},{{"role":"user","content":"Why do bees make honey? Question {number}."}}],"temperature":0}}"#
            ),
            Self::Usual => format!(
                r#"{{"model":"auto","stream":{},"messages":[{{"role":"system","content":"You answer briefly."}},{{"role":"user","content":"Question {number}. {}"}}],"temperature":0}}"#,
                number.is_multiple_of(2),
                A_TOKEN.repeat(TOKENS_IN - 10),
            ),
        };
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// From how many characters of a prompt on it goes another way: none of these does.
    pub(super) fn long_prompt(self) -> usize {
        match self {
            Self::Small => 2_000,
            Self::Usual => 20_000,
        }
    }

    pub(super) fn answers(self) -> Answers {
        let (said, tokens) = match self {
            Self::Small => ("Bees make honey to live on in winter.".to_owned(), [12, 9]),
            Self::Usual => (A_TOKEN.repeat(TOKENS_OUT), [TOKENS_IN, TOKENS_OUT]),
        };
        let [read, written] = tokens;
        let usage = format!(
            r#"{{"prompt_tokens":{read},"completion_tokens":{written},"total_tokens":{}}}"#,
            read + written
        );
        let body = format!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":[{{"index":0,"message":{{"role":"assistant","content":"{said}"}},"finish_reason":"stop"}}],"usage":{usage}}}"#
        );
        let whole = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Answers { whole: whole.into(), streamed: streamed(written, &usage).into() }
    }
}

/// A stream as providers write it: an event a token, each in a chunk of its own.
fn streamed(tokens: usize, usage: &str) -> String {
    let mut out = String::from(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    let choice = |delta: &str, reason: &str| {
        format!(r#"{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}"#)
    };
    let mut event = |choices: &str, usage: &str| {
        let event = format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\
             \"model\":\"gpt-4o-mini\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_1\",\
             \"choices\":[{choices}],\"usage\":{usage}}}\n\n"
        );
        write!(out, "{:x}\r\n{event}\r\n", event.len()).expect("writing to a string cannot fail");
    };
    event(&choice(r#"{"role":"assistant","content":""}"#, "null"), "null");
    let token = choice(&format!(r#"{{"content":"{A_TOKEN}"}}"#), "null");
    (0..tokens).for_each(|_| event(&token, "null"));
    event(&choice("{}", "\"stop\""), "null");
    event("", usage);
    out + "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
}

// === impl Answers ===

impl Answers {
    /// The answer to a request that begins with `head`, its headers and the start of its body.
    pub(super) fn to(&self, head: &[u8]) -> &[u8] {
        let wanted = br#""stream":true"#;
        match head.windows(wanted.len()).any(|part| part == wanted) {
            true => &self.streamed,
            false => &self.whole,
        }
    }
}
