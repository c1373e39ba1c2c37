//! Clients of the gateway: a steady mixture of everything that it does, from threads of their own.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::provider::{DAWDLE, STUMBLE};
use crate::e2e::http;

/// Threads, and between the beginnings of two requests of each.
const ROUTED: (usize, Duration) = (3, Duration::from_millis(130));
const KEPT: (usize, Duration) = (1, Duration::from_millis(150));
const PLAIN: (usize, Duration) = (5, Duration::from_millis(320));

/// The same, by what the built-in embedder sees.
const ASKED: &str = "how do i reset my password";
const REWORDED: &str = "how can i reset my password";

/// Requests that go on until this is dropped.
pub(crate) struct Traffic {
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Control {
    over: AtomicBool,
    /// Nobody asks what was asked before.
    unlike: AtomicBool,
    sent: AtomicU64,
}

/// What the request of a number is, of those of one script; with `true`, nobody has asked it before.
type Script = fn(u64, bool) -> Ask;

/// One request.
#[derive(Clone, Debug, PartialEq)]
struct Ask {
    body: Value,
    route: Option<&'static str>,
    /// Leave in the middle of the answer.
    leave: bool,
}

// === impl Traffic ===

impl Traffic {
    /// Towards the gateway at `url`, whether it is there or not.
    pub(crate) fn start(url: &str) -> Self {
        let control = Arc::<Control>::default();
        let mut threads = Vec::new();
        let groups: [(_, Script); 3] = [(ROUTED, routed), (KEPT, kept), (PLAIN, plain)];
        for ((count, pace), ask) in groups {
            // Its own, so that what is rare in a script comes as often as the script says, whichever thread is faster.
            let numbers = Arc::<AtomicU64>::default();
            for _ in 0..count {
                let (control, numbers) = (Arc::clone(&control), Arc::clone(&numbers));
                let url = format!("{url}/v1/chat/completions");
                threads.push(thread::spawn(move || keep_asking(&control, &numbers, &url, pace, ask)));
            }
        }
        Self { control, threads }
    }

    /// From here on (or no longer) every request is a new one, which no cache can know.
    pub(crate) fn unlike(&self, unlike: bool) {
        self.control.unlike.store(unlike, Ordering::SeqCst);
    }

    pub(crate) fn sent(&self) -> u64 {
        self.control.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.control.over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "clients live in real time, each in a thread of its own")]
fn keep_asking(control: &Control, numbers: &AtomicU64, url: &str, pace: Duration, ask: Script) {
    let client = http::client();
    while !control.over.load(Ordering::SeqCst) {
        let begun = Instant::now();
        control.sent.fetch_add(1, Ordering::SeqCst);
        let number = numbers.fetch_add(1, Ordering::SeqCst);
        // What the answer is, and whether there is one, shows in the gateway's own figures.
        let _answered = send(&client, url, &ask(number, control.unlike.load(Ordering::SeqCst)));
        thread::sleep(pace.saturating_sub(begun.elapsed()));
    }
}

fn send(client: &ureq::Agent, url: &str, ask: &Ask) -> Result<(), ureq::Error> {
    let own = ask.leave.then(http::client);
    let mut request = own.as_ref().unwrap_or(client).post(url).header("content-type", "application/json");
    if let Some(route) = ask.route {
        request = request.header("x-route", route);
    }
    let mut answer = request.send(ask.body.to_string())?;
    if ask.leave {
        answer.body_mut().as_reader().read_exact(&mut [0; 16])?;
    } else {
        answer.body_mut().read_to_vec()?;
    }
    Ok(())
}

/// Two in three ask what was asked before; the others are new, and so are all when that is wanted.
fn routed(number: u64, unlike: bool) -> Ask {
    let known = format!("what is known of {}", number % 7);
    let new = format!("what is new, number {number}");
    let prompt = match number % 60 {
        20 => format!("{new}, {STUMBLE}"),
        21 => format!("{new}, {DAWDLE}"),
        turn if unlike || turn.is_multiple_of(3) => new,
        _ => known,
    };
    let route = match number % 12 {
        3 | 9 => Some("premium"),
        6 => Some("nowhere"),
        _ => None,
    };
    let leave = number % 60 == 33;
    Ask { route, leave, ..asked("auto", &prompt, leave || number.is_multiple_of(5)) }
}

/// One in eight is a question that is asked again, some of the time in other words: mostly not, or its cache's hits are few.
fn kept(number: u64, _unlike: bool) -> Ask {
    let turn = number % 40;
    if turn % 8 == 3 {
        return asked("faq", if turn < 24 { ASKED } else { REWORDED }, number.is_multiple_of(3));
    }
    let prompt = if turn == 0 { format!("new, number {number}") } else { format!("known, {}", number % 5) };
    asked("memo", &prompt, number.is_multiple_of(4))
}

/// One in twenty names a model that does not exist, and one in thirty is late once.
fn plain(number: u64, _unlike: bool) -> Ask {
    match number % 60 {
        7 | 27 | 47 => asked("no-such-model", "who is there", false),
        30 => asked("plain", &format!("number {number}, {DAWDLE}"), false),
        turn => asked("plain", &format!("number {number}"), turn.is_multiple_of(4)),
    }
}

fn asked(model: &str, prompt: &str, stream: bool) -> Ask {
    let prompt = format!("{prompt}; answer to ada@example.com");
    let body =
        json!({ "model": model, "messages": [{ "role": "user", "content": prompt }], "stream": stream });
    Ask { body, route: None, leave: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_is_known_unless_that_is_not_wanted() {
        let new = |unlike| {
            (0..600).filter(|number| routed(*number, unlike).body.to_string().contains("new")).count()
        };
        assert!((150..260).contains(&new(false)), "{}", new(false));
        assert_eq!(new(true), 600);
    }

    #[test]
    fn everything_occurs() {
        let all: Vec<_> = (0..240).map(|number| routed(number, false)).collect();
        let has = |what: &str| all.iter().any(|ask| ask.body.to_string().contains(what));
        assert!(has(STUMBLE) && has(DAWDLE) && has("\"stream\":true") && all.iter().any(|ask| ask.leave));
        let kept: Vec<_> = (0..240).map(|number| kept(number, false)).collect();
        let known = |what: &str| kept.iter().filter(|ask| ask.body.to_string().contains(what)).count();
        assert!(known(ASKED) > known(REWORDED) && known(REWORDED) > 0);
        assert!(["premium", "nowhere"].iter().all(|route| all.iter().any(|ask| ask.route == Some(route))));
    }
}
