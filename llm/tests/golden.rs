//! Every provider's translation, proven by files: `fixtures/<provider>/<case>.in.*` is what comes in and
//! `<case>.out.*` what must come of it. A new case is new files and nothing else. The first word of a case
//! says what it is:
//! * `request_…`: a client's body; the body that goes upstream, byte for byte.
//! * `answer_…`: a provider's body, which passes through as it is; its `usage`, or the `error` it is.
//! * `stream_…`: a provider's stream; the events that the client sees (`.out.sse`), byte for byte, and what
//!   was learned from them (`.out.json`).

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use throughline::Kind;
use throughline_llm::HttpClient;
use throughline_llm::openai::{ChatRequest, Chunk, Limits, Usage};
use throughline_llm::providers::{Dialect, OpenAiConfig, Provider, openai};
use throughline_llm::sse::SseParser;

const MODEL: &str = "upstream-model";

/// How to speak with the provider whose files are in the folder of this name.
fn dialect(provider: &str, stream_usage: bool) -> Box<dyn Dialect> {
    let client = HttpClient::new(Duration::from_secs(1));
    let made = match provider {
        "openai" => {
            let base_url = "http://127.0.0.1:1/v1".to_owned();
            openai(
                OpenAiConfig {
                    name: provider.to_owned(),
                    base_url,
                    api_key: None,
                    stream_usage,
                    forwards_trace: false,
                    provider_name: None,
                },
                client,
            )
        }
        _ => panic!("fixtures/{provider} belongs to no provider"),
    };
    match made.expect("the address is a URL") {
        Provider::Http(dialect, _) => dialect,
        other => panic!("{other:?} translates nothing"),
    }
}

fn request(body: Bytes) -> ChatRequest {
    ChatRequest::parse(body, &Limits::default()).expect("the client's request is valid")
}

/// The files of one case.
struct Case<'a> {
    folder: &'a Path,
    provider: &'a str,
    name: &'a str,
    input: Bytes,
}

// === impl Case ===

impl Case<'_> {
    fn check(&self) {
        match self.name.split('_').next() {
            Some("request") => self.check_request(),
            Some("answer") => self.check_answer(),
            Some("stream") => self.check_stream(),
            _ => panic!("{}: a case begins with request_, answer_ or stream_", self.name),
        }
    }

    fn expected(&self, ending: &str) -> Vec<u8> {
        let path = self.folder.join(format!("{}.out.{ending}", self.name));
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn expected_json(&self) -> Value {
        serde_json::from_slice(&self.expected("json")).expect(self.name)
    }

    fn same_bytes(&self, got: &[u8], expected: &[u8]) {
        let text = String::from_utf8_lossy;
        assert!(got == expected, "{}\n got: {}\nwant: {}", self.name, text(got), text(expected));
    }

    fn check_request(&self) {
        let request = request(self.input.clone());
        let sent = dialect(self.provider, true).request(&request, MODEL);
        self.same_bytes(&sent.body, &self.expected("json"));
        let sent = dialect(self.provider, false).request(&request, request.model());
        self.same_bytes(&sent.body, &self.input);
    }

    fn check_answer(&self) {
        for is_recorded in [false, true] {
            self.check_learned(is_recorded);
        }
    }

    fn check_learned(&self, is_recorded: bool) {
        let dialect = dialect(self.provider, true);
        let learned = match dialect.completion(self.input.clone(), MODEL.into(), is_recorded) {
            Ok(answer) => {
                assert_eq!(&*answer.model, MODEL, "{}", self.name);
                self.same_bytes(&answer.body, &self.input);
                json!({ "usage": answer.usage.map(counts) })
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Upstream, "{}", self.name);
                json!({ "error": error.to_string() })
            }
        };
        assert_eq!(learned, self.expected_json(), "{}", self.name);
    }

    fn check_stream(&self) {
        let (seen, learned) = self.watched(r#"{"model":"m","stream":true,"messages":[{"content":"Hi"}]}"#);
        self.same_bytes(&seen, &self.expected("sse"));
        assert_eq!(learned, self.expected_json(), "{}", self.name);
        // Whoever asks for usage sees everything, up to a failure.
        let asking = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"content":"Hi"}]}"#;
        let (seen, learned) = self.watched(asking);
        let failure = memchr::memmem::find(&self.input, br#"data: {"error""#);
        self.same_bytes(&seen, &self.input[..failure.unwrap_or(self.input.len())]);
        assert_eq!(learned, self.expected_json(), "{}", self.name);
    }

    /// What the sender of `body` sees of the stream, and what is learned from it.
    fn watched(&self, body: &'static str) -> (Vec<u8>, Value) {
        let mut watch = dialect(self.provider, true).watch(&request(Bytes::from_static(body.as_bytes())));
        let mut parser = SseParser::default();
        parser.push(&self.input);
        let mut seen = Vec::new();
        while let Some(event) = parser.next_event().expect(self.name).or_else(|| parser.finish()) {
            let chunk = watch.observe(&event);
            if chunk == Chunk::Error {
                break;
            }
            if !watch.hides(chunk) {
                seen.extend_from_slice(&event.raw);
            }
        }
        (seen, json!({ "usage": watch.usage().map(counts), "complete": watch.is_complete() }))
    }
}

fn counts(usage: Usage) -> Value {
    let mut counts = json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    });
    if usage.cache_write_1h_tokens > 0 {
        counts["cache_write_1h_tokens"] = usage.cache_write_1h_tokens.into();
    }
    counts
}

/// The names in `folder`, sorted, without those that begin with a dot.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

#[test]
fn every_case_translates_as_its_files_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    for provider in names(&root) {
        let folder = root.join(&provider);
        let files = names(&folder);
        let cases: Vec<_> =
            files.iter().filter_map(|file| Some((file, file.split_once(".in.")?.0))).collect();
        assert!(!cases.is_empty(), "fixtures/{provider} has no case");
        for (file, name) in &cases {
            let input = fs::read(folder.join(file)).unwrap().into();
            Case { folder: &folder, provider: &provider, name, input }.check();
        }
        for file in &files {
            let of_a_case = cases.iter().any(|(input, name)| {
                file == *input || file.strip_prefix(name).is_some_and(|rest| rest.starts_with(".out."))
            });
            assert!(of_a_case, "fixtures/{provider}/{file} belongs to no case");
        }
    }
}
