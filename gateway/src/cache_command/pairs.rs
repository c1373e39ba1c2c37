//! Reads labelled examples: pairs of prompts, or questions with their answers.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::trace::each_line;

/// Labelled examples, of one form.
#[derive(Debug)]
pub(super) struct Examples {
    /// Every prompt once.
    pub(super) prompts: Vec<String>,
    pub(super) labels: Labels,
}

/// What is known of the prompts, by their numbers.
#[derive(Debug, PartialEq)]
pub(super) enum Labels {
    /// Two, and whether the answer to the one serves the other as well.
    Pairs(Vec<(usize, usize, bool)>),
    /// Each with the number of its answer, in the order of the file.
    Questions(Vec<(usize, usize)>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Pair(Pair),
    Question(Question),
    Row(String, Value),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    a: String,
    b: String,
    same: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    prompt: String,
    answer: Value,
}

/// Gives numbers to prompts and answers as they come.
#[derive(Default)]
struct Reader {
    prompts: Vec<String>,
    numbers: HashMap<String, usize>,
    answers: HashMap<String, usize>,
    pairs: Vec<(usize, usize, bool)>,
    known: HashSet<(usize, usize, bool)>,
    questions: Vec<(usize, usize)>,
}

// === impl Examples ===

impl Examples {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// In words, with the line that is wrong.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let mut reader = Reader::default();
        each_line(path, "reading the examples", |line| reader.line(line))?;
        let shown = path.display();
        let Reader { prompts, pairs, questions, .. } = reader;
        let labels = match (pairs.is_empty(), questions.is_empty()) {
            (false, true) if pairs.iter().all(|(_, _, same)| *same) => {
                return Err(format!("{shown}: no pair has `same` false: it says nothing of wrong answers"));
            }
            (true, false) if questions.iter().all(|(_, answer)| *answer == 0) => {
                return Err(format!("{shown}: all questions have one answer: it says nothing of wrong ones"));
            }
            (false, true) => Labels::Pairs(pairs),
            (true, false) => Labels::Questions(questions),
            (true, true) => return Err(format!("{shown}: there is no example in it")),
            (false, false) => {
                let problem = "it holds pairs and questions: put them into a file each";
                return Err(format!("{shown}: {problem}"));
            }
        };
        Ok(Self { prompts, labels })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match &self.labels {
            Labels::Pairs(pairs) => pairs.len(),
            Labels::Questions(questions) => questions.len(),
        }
    }
}

// === impl Reader ===

impl Reader {
    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        let wanted = "write {\"a\": \"…\", \"b\": \"…\", \"same\": true}, {\"prompt\": \"…\", \"answer\": \"…\"} or \
                      [\"QUESTION\", \"ANSWER\"]";
        let line: Line = serde_json::from_slice(line).map_err(|_| format!("this is no example: {wanted}"))?;
        match line {
            Line::Pair(Pair { a, b, same }) => {
                let pair = (self.prompt(a)?, self.prompt(b)?, same);
                // Said twice it is no further evidence.
                if self.known.insert(pair) {
                    self.pairs.push(pair);
                }
            }
            Line::Question(Question { prompt, answer }) | Line::Row(prompt, answer) => {
                let next = self.answers.len();
                let answer = *self.answers.entry(answer.to_string()).or_insert(next);
                let prompt = self.prompt(prompt)?;
                self.questions.push((prompt, answer));
            }
        }
        Ok(())
    }

    fn prompt(&mut self, prompt: String) -> Result<usize, String> {
        if !prompt.chars().any(char::is_alphanumeric) {
            return Err("a prompt without a word says nothing: leave the line out".to_owned());
        }
        let next = self.prompts.len();
        Ok(*self.numbers.entry(prompt).or_insert_with_key(|prompt| {
            self.prompts.push(prompt.clone());
            next
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read(text: impl AsRef<[u8]>) -> Result<Examples, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.jsonl");
        std::fs::write(&path, text).unwrap();
        Examples::read(&path).map_err(|said| said.replace(&format!("{}/", dir.path().display()), ""))
    }

    #[test]
    fn reads_pairs_or_questions() {
        let pairs =
            read("{\"a\":\"x\",\"b\":\"y\",\"same\":true}\n\n{\"a\":\"y\",\"b\":\"z\",\"same\":false}\n")
                .unwrap();
        assert_eq!(pairs.labels, Labels::Pairs(vec![(0, 1, true), (1, 2, false)]));
        assert_eq!(pairs.prompts, ["x", "y", "z"]);
        let questions = read("[\"x\",\"A\"]\n{\"prompt\":\"y\",\"answer\":\"B\"}\n[\"z\",\"A\"]\n").unwrap();
        assert_eq!(questions.labels, Labels::Questions(vec![(0, 0), (1, 1), (2, 0)]));
        assert_eq!(questions.len(), 3);
    }

    #[test]
    fn a_pair_that_is_said_twice_counts_once() {
        let line = "{\"a\":\"x\",\"b\":\"y\",\"same\":false}\n";
        assert_eq!(read(line.repeat(3)).unwrap().len(), 1);
    }

    fn packed(text: &str) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn a_file_of_another_system_is_read_the_same() {
        let lines = ["[\"x\",\"A\"]", "{\"prompt\":\"y\",\"answer\":\"B\"}", "[\"z\",\"A\"]"];
        let plain = read(lines.join("\n")).unwrap();
        let marked = format!("\u{feff}{}\r\n\r\n", lines.join("\r\n"));
        let parts =
            [packed(&marked[..9]), packed(&marked[9..20]), packed(""), packed(&marked[20..])].concat();
        for other in [marked.clone().into_bytes(), packed(&marked), parts] {
            let other = read(other).unwrap();
            assert_eq!((&other.prompts, &other.labels), (&plain.prompts, &plain.labels));
        }
        assert_eq!(read("\u{feff}").unwrap_err(), "e.jsonl: there is no example in it");
        let elsewhere = read(format!("{}\n\u{feff}{}", lines[0], lines[1])).unwrap_err();
        assert!(elsewhere.starts_with("e.jsonl:2: this is no example"), "it only begins a file: {elsewhere}");
        let broken = [packed(lines[0]), vec![0x1f, 0x8b, 8]].concat();
        assert!(read(broken).unwrap_err().contains("cannot be read on"));
    }

    #[test]
    fn what_is_no_example_is_refused_with_its_line() {
        let said = |text: &str| read(text).unwrap_err();
        assert!(
            said("[\"x\",\"A\"]\n{\"a\":\"x\",\"b\":\"y\"}\n")
                .starts_with("e.jsonl:2: this is no example: write {\"a\"")
        );
        assert!(
            said("{\"a\":\"x\",\"b\":\"y\",\"same\":true,\"smae\":1}")
                .starts_with("e.jsonl:1: this is no example")
        );
        assert!(said("[\"?\",\"A\"]").starts_with("e.jsonl:1: a prompt without a word says nothing"));
        assert_eq!(said("\n"), "e.jsonl: there is no example in it");
        let alike = "{\"a\":\"x\",\"b\":\"y\",\"same\":true}\n";
        assert_eq!(said(alike), "e.jsonl: no pair has `same` false: it says nothing of wrong answers");
        let one = "[\"x\",\"A\"]\n[\"y\",\"A\"]\n";
        assert_eq!(said(one), "e.jsonl: all questions have one answer: it says nothing of wrong ones");
        let mixed = "[\"x\",\"A\"]\n{\"a\":\"x\",\"b\":\"y\",\"same\":true}\n";
        assert_eq!(said(mixed), "e.jsonl: it holds pairs and questions: put them into a file each");
        assert!(read("\0").unwrap_err().contains(":1: this is no example"));
    }
}
