//! A provider that does what the prompt asks for, and remembers the tokens that it reported.

use std::collections::HashSet;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::backend::Usage;
use super::case::{ANSWER, Case, FAIL_FIRST, HANG, HANG_FIRST, REASON};
use crate::e2e::http::{self, Request};

/// A running provider. It serves until the program ends.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Bodies that have come before.
    seen: HashSet<Vec<u8>>,
    reported: Vec<(Case, Usage)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Answer,
    Stream,
    Fail,
    Hang,
    StreamAndHang,
}

// === impl Upstream ===

impl Upstream {
    /// # Errors
    /// When there is no free port.
    pub(crate) fn start() -> io::Result<Self> {
        let memory = Arc::<Mutex<Memory>>::default();
        let serving = Arc::clone(&memory);
        let address = http::serve(move |request, stream| {
            let asked = serde_json::from_slice(&request.body).unwrap_or_default();
            let act = locked(&serving).decide(request, &asked);
            let report = || locked(&serving).report(&asked);
            perform(act, stream, report)
        })?;
        Ok(Self { address, memory })
    }

    /// The tokens that were reported for a case, an entry an answer, in order of size.
    pub(crate) fn reported(&self, case: Case) -> Vec<Usage> {
        let memory = locked(&self.memory);
        let mut of_case: Vec<_> =
            memory.reported.iter().filter(|(known, _)| *known == case).map(|(_, usage)| *usage).collect();
        of_case.sort_by_key(|usage| usage.input);
        of_case
    }
}

fn locked(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Memory ===

impl Memory {
    fn decide(&mut self, request: &Request, asked: &Value) -> Act {
        let prompt = prompt(asked);
        let first = self.seen.insert(request.body.clone());
        let streamed = asked["stream"] == true;
        let has = |word: &str| prompt.contains(word);
        match () {
            () if has(FAIL_FIRST) && first => Act::Fail,
            () if has(HANG_FIRST) && first => Act::Hang,
            () if has(HANG) && streamed => Act::StreamAndHang,
            () if has(HANG) => Act::Hang,
            () if streamed => Act::Stream,
            () => Act::Answer,
        }
    }

    /// Other numbers for every answer, so that none can stand for another.
    fn report(&mut self, asked: &Value) -> Usage {
        let count = self.reported.len() as u64;
        let usage = Usage { input: 101 + 7 * count, output: 11 + 3 * count };
        let prompt = prompt(asked);
        self.reported.extend(
            Case::ALL.into_iter().find(|case| prompt.contains(&case.marker())).map(|case| (case, usage)),
        );
        usage
    }
}

fn prompt(asked: &Value) -> &str {
    asked["messages"][0]["content"].as_str().unwrap_or_default()
}

fn perform(act: Act, stream: &mut TcpStream, report: impl Fn() -> Usage) -> io::Result<()> {
    let json = "application/json";
    match act {
        Act::Answer => {
            let message = json!({ "role": "assistant", "content": ANSWER });
            let choices = json!([{ "index": 0, "message": message, "finish_reason": "stop" }]);
            let body = json!({ "choices": choices, "usage": usage(report()) });
            http::respond(stream, 200, json, body.to_string().as_bytes())
        }
        Act::Fail => {
            let body = json!({ "error": { "message": REASON } });
            http::respond(stream, 503, json, body.to_string().as_bytes())
        }
        Act::Hang => hang(stream),
        Act::Stream => {
            begin_stream(stream)?;
            let end = json!({ "choices": [], "usage": usage(report()) });
            piece(stream, &format!("data: {end}\n\ndata: [DONE]\n\n"))?;
            stream.write_all(b"0\r\n\r\n")
        }
        Act::StreamAndHang => {
            begin_stream(stream)?;
            hang(stream)
        }
    }
}

fn usage(usage: Usage) -> Value {
    let Usage { input, output } = usage;
    json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output })
}

fn begin_stream(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    let delta = json!({ "choices": [{ "index": 0, "delta": { "content": ANSWER } }] });
    piece(stream, &format!("data: {delta}\n\n"))
}

fn piece(stream: &mut TcpStream, data: &str) -> io::Result<()> {
    write!(stream, "{:x}\r\n{data}\r\n", data.len())
}

/// Until the caller gives up.
fn hang(stream: &mut TcpStream) -> io::Result<()> {
    while stream.read(&mut [0; 64])? > 0 {}
    Err(io::ErrorKind::ConnectionAborted.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(prompt: &str, stream: bool) -> (Request, Value) {
        let body = json!({ "messages": [{ "role": "user", "content": prompt }], "stream": stream });
        let bytes = body.to_string().into_bytes();
        (Request { path: String::new(), headers: Vec::new(), body: bytes }, body)
    }

    #[test]
    fn does_what_the_prompt_asks_for_and_then_answers() {
        let mut memory = Memory::default();
        for (prompt, stream, acts) in [
            (FAIL_FIRST, false, [Act::Fail, Act::Answer]),
            (HANG_FIRST, false, [Act::Hang, Act::Answer]),
            (HANG, true, [Act::StreamAndHang, Act::StreamAndHang]),
            ("what else", true, [Act::Stream, Act::Stream]),
        ] {
            let (request, body) = asked(prompt, stream);
            assert_eq!([(); 2].map(|()| memory.decide(&request, &body)), acts, "{prompt}");
        }
    }

    #[test]
    fn reports_no_number_twice_and_remembers_for_whom() {
        let mut memory = Memory::default();
        let [one, two] =
            [Case::Retried, Case::Hedged].map(|case| memory.report(&asked(&case.marker(), false).1));
        assert!(one.input != two.input && one.output != two.output);
        assert_eq!(memory.reported, [(Case::Retried, one), (Case::Hedged, two)]);
    }
}
