//! What the demonstration asks.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

/// The messages of one conversation.
pub(super) type Messages = Value;

const REPEATED: [&str; 12] = [
    "What is your refund policy?",
    "How do I reset my password?",
    "Where is my order?",
    "Do you ship to Norway?",
    "How do I cancel my subscription?",
    "Is there a student discount?",
    "What are your opening hours?",
    "How do I change my delivery address?",
    "Which payment methods do you take?",
    "How do I contact a human?",
    "Can I get an invoice?",
    "Is my data stored in Europe?",
];

const TOPICS: [&str; 8] = [
    "a rate limiter",
    "tail latency",
    "a bloom filter",
    "backpressure",
    "a write-ahead log",
    "vector clocks",
    "consistent hashing",
    "a circuit breaker",
];

/// Of a hundred requests, how many repeat a common question, and how many more are long.
const REPEATS: u64 = 45;
const LONG: u64 = 20;

/// The prompts of one run, dealt in a fixed order.
#[derive(Debug)]
pub(super) enum Prompts {
    /// Common questions, short questions and long documents, mixed.
    BuiltIn,
    /// The reader's own.
    Own(Vec<Messages>),
}

// === impl Prompts ===

impl Prompts {
    /// Reads `path`: plain lines or JSONL.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let prompts: Result<Vec<_>, String> = lines
            .map(|(at, line)| prompt(line).map_err(|error| format!("{}:{}: {error}", path.display(), at + 1)))
            .collect();
        match prompts? {
            none if none.is_empty() => Err(format!("{}: no prompts: write one a line", path.display())),
            prompts => Ok(Self::Own(prompts)),
        }
    }

    /// The messages of request number `n`.
    pub(super) fn deal(&self, n: u64) -> Messages {
        match self {
            Self::Own(prompts) => prompts[usize::try_from(n).unwrap_or(usize::MAX) % prompts.len()].clone(),
            Self::BuiltIn => user(&built_in(n)),
        }
    }
}

fn built_in(n: u64) -> String {
    let mut random = fastrand::Rng::with_seed(n);
    let topic = TOPICS[random.usize(..TOPICS.len())];
    match random.u64(..100) {
        at if at < REPEATS => REPEATED[random.usize(..REPEATED.len())].to_owned(),
        at if at < REPEATS + LONG => {
            let page = format!("Note {n}: {topic} was discussed at length, with figures and objections. ");
            format!("Summarise the following report and list its open questions.\n{}", page.repeat(14))
        }
        _ => format!("Explain {topic} in one sentence, variant {n}."),
    }
}

fn user(prompt: &str) -> Messages {
    json!([{ "role": "user", "content": prompt }])
}

fn prompt(line: &str) -> Result<Messages, String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Line {
        Prompt { prompt: String },
        Messages { messages: Vec<Value> },
    }
    if !line.trim_start().starts_with('{') {
        return Ok(user(line.trim()));
    }
    match serde_json::from_str(line) {
        Ok(Line::Prompt { prompt }) => Ok(user(&prompt)),
        Ok(Line::Messages { messages }) if !messages.is_empty() => Ok(Value::Array(messages)),
        Ok(Line::Messages { .. }) => Err("`messages` is empty".to_owned()),
        Err(_) => Err(r#"neither {"prompt": "…"} nor {"messages": […]}"#.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Prompts, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prompts");
        std::fs::write(&path, text).unwrap();
        Prompts::read(&path).map_err(|error| error.replace(&*path.to_string_lossy(), "prompts"))
    }

    #[test]
    fn reads_plain_lines_and_jsonl() {
        let text =
            "Why?\n\n{\"prompt\": \"How?\"}\n{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}]}\n";
        let prompts = read(text).unwrap();
        assert_eq!(prompts.deal(0)[0]["content"], "Why?");
        assert_eq!(prompts.deal(1)[0]["content"], "How?");
        assert_eq!(prompts.deal(2)[0]["role"], "system");
        assert_eq!(prompts.deal(3), prompts.deal(0), "they are asked in turn");
    }

    #[test]
    fn says_which_line_is_wrong() {
        assert_eq!(
            read("ok\n{\"promt\": 1}").unwrap_err(),
            "prompts:2: neither {\"prompt\": \"…\"} nor {\"messages\": […]}"
        );
        assert_eq!(read("\n\n").unwrap_err(), "prompts: no prompts: write one a line");
        assert!(Prompts::read(Path::new("/does/not/exist")).unwrap_err().contains("No such file"));
    }

    #[test]
    fn the_built_in_mix_has_repeats_and_long_prompts() {
        let prompts: Vec<_> = (0..1000).map(built_in).collect();
        let repeats = prompts.iter().filter(|prompt| REPEATED.contains(&prompt.as_str())).count();
        let long = prompts.iter().filter(|prompt| prompt.len() > 800).count();
        assert!((400..500).contains(&repeats), "{repeats}");
        assert!((150..250).contains(&long), "{long}");
        assert_eq!(prompts[7], built_in(7), "the same order every time");
    }
}
