//! A provider that answers well, late or not at all, and can go away.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::e2e::http::{self, Peer};
use crate::failure::Failure;

/// In a prompt: the first attempt fails, the second does not.
pub(crate) const STUMBLE: &str = "please stumble";
/// In a prompt: the first attempt is late, the second is not.
pub(crate) const DAWDLE: &str = "please dawdle";

/// How long an answer takes that is not late.
const USUAL: Duration = Duration::from_millis(8);
/// Later than any limit in the gateway's configuration.
const LATE: Duration = Duration::from_millis(1500);
/// The pieces of a streamed answer.
const PIECES: usize = 6;
const BETWEEN: Duration = Duration::from_millis(4);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Every answer is late.
    Slow,
    /// Every answer is a 500.
    Broken,
}

/// A running provider in the dialect of OpenAI.
pub(crate) struct Provider {
    peer: Peer,
    mood: Arc<Mutex<Mood>>,
}

/// Prompts that asked for trouble and have had it.
#[derive(Default)]
struct Troubled(HashSet<String>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Answer { late: bool },
    Fail,
}

// === impl Provider ===

impl Provider {
    /// One that gives the trouble that a prompt asks for, or one that is `steady`.
    ///
    /// # Errors
    /// When there is no free port.
    pub(crate) fn start(steady: bool) -> Result<Self, Failure> {
        let (mood, troubled) = (Arc::<Mutex<Mood>>::default(), Mutex::<Troubled>::default());
        let now = Arc::clone(&mood);
        let peer = Peer::start(move |request, stream| {
            let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let mood = *now.lock().unwrap_or_else(PoisonError::into_inner);
            let act = troubled.lock().unwrap_or_else(PoisonError::into_inner).decide(steady, mood, &asked);
            perform(act, &asked, stream)
        });
        let peer =
            peer.map_err(|error| Failure::missing(format!("cannot start a provider on 127.0.0.1: {error}")))?;
        Ok(Self { peer, mood })
    }

    /// What `base_url` of the gateway's configuration is to be.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.peer.address())
    }

    pub(crate) fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    pub(crate) fn go(&mut self) {
        self.peer.go();
    }

    /// # Errors
    /// When its port was taken meanwhile.
    pub(crate) fn come(&mut self) -> Result<(), Failure> {
        self.peer
            .come()
            .map_err(|error| Failure::missing(format!("the provider's port is no longer free: {error}")))
    }
}

// === impl Troubled ===

impl Troubled {
    fn decide(&mut self, steady: bool, mood: Mood, asked: &Value) -> Act {
        let prompt = asked["messages"][0]["content"].as_str().unwrap_or_default();
        let (stumble, dawdle) = (prompt.contains(STUMBLE), prompt.contains(DAWDLE));
        let first = !steady && (stumble || dawdle) && self.0.insert(prompt.to_owned());
        match mood {
            Mood::Broken => Act::Fail,
            Mood::Well if first && stumble => Act::Fail,
            mood => Act::Answer { late: mood == Mood::Slow || (first && dawdle) },
        }
    }
}

fn perform(act: Act, asked: &Value, stream: &mut TcpStream) -> io::Result<()> {
    let json = "application/json";
    let Act::Answer { late } = act else {
        return http::respond(stream, 500, json, br#"{"error":{"message":"broken on purpose"}}"#);
    };
    pause(if late { LATE } else { USUAL });
    let usage = json!({ "prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52,
        "prompt_tokens_details": { "cached_tokens": 16 }, "completion_tokens_details": { "reasoning_tokens": 4 } });
    if asked["stream"] == true {
        return tell(stream, &usage);
    }
    let message = json!({ "role": "assistant", "content": "as you wish" });
    let choices = json!([{ "index": 0, "message": message, "finish_reason": "stop" }]);
    let body = json!({ "id": "answer", "object": "chat.completion", "choices": choices, "usage": usage });
    http::respond(stream, 200, json, body.to_string().as_bytes())
}

fn tell(stream: &mut TcpStream, usage: &Value) -> io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    for piece in 1..=PIECES {
        let end = if piece == PIECES { json!("stop") } else { Value::Null };
        let choice = json!({ "index": 0, "delta": { "content": "as you wish " }, "finish_reason": end });
        send(stream, &format!("data: {}\n\n", json!({ "choices": [choice] })))?;
        pause(BETWEEN);
    }
    send(stream, &format!("data: {}\n\ndata: [DONE]\n\n", json!({ "choices": [], "usage": usage })))?;
    stream.write_all(b"0\r\n\r\n")
}

fn send(stream: &mut TcpStream, data: &str) -> io::Result<()> {
    write!(stream, "{:x}\r\n{data}\r\n", data.len())
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, whose delay is what is asked for")]
fn pause(length: Duration) {
    std::thread::sleep(length);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(prompt: &str) -> Value {
        json!({ "messages": [{ "role": "user", "content": prompt }] })
    }

    #[test]
    fn a_prompt_can_ask_for_trouble_at_the_first_attempt_only() {
        let (well, late) = (Act::Answer { late: false }, Act::Answer { late: true });
        for (prompt, acts) in [(STUMBLE, [Act::Fail, well]), (DAWDLE, [late, well]), ("plain", [well, well])]
        {
            let mut troubled = Troubled::default();
            assert_eq!(
                [(); 2].map(|()| troubled.decide(false, Mood::Well, &asked(prompt))),
                acts,
                "{prompt}"
            );
            assert_eq!(Troubled::default().decide(true, Mood::Well, &asked(prompt)), well);
        }
    }

    #[test]
    fn a_mood_is_above_what_the_prompt_asks_for() {
        let act = |mood| Troubled::default().decide(false, mood, &asked("plain"));
        assert_eq!(act(Mood::Broken), Act::Fail);
        assert_eq!(act(Mood::Slow), Act::Answer { late: true });
    }
}
