//! Reads a trace: requests one a line, in one of a few forms.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::Value;
use throughline::{Key, KeyBuilder};
use throughline_llm::PriceTable;
use throughline_llm::openai::Usage;

use super::progress;
use crate::config::read::reason;

/// The longest line that is read, in bytes.
const LONGEST_LINE: u64 = 16 << 20;
/// What some programs begin a text in UTF-8 with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// What an answer takes where the trace does not say it: so much for each token and so much around them.
const BYTES_PER_TOKEN: u64 = 4;
const BYTES_AROUND: u64 = 300;
/// And where it says nothing of tokens either.
const BYTES_UNKNOWN: u64 = 1 << 10;

/// The requests of a trace, in the order of their times.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) requests: Vec<Request>,
    /// What the requests' `key` numbers stand for.
    pub(super) keys: Vec<Key>,
    pub(super) identity: Identity,
    /// Whether it says when requests came.
    pub(super) timed: bool,
    /// Whether it says how large each answer is.
    pub(super) sized: bool,
}

/// A request of a trace.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    /// When it came, from the first on.
    pub(super) at: Duration,
    pub(super) key: usize,
    /// The size of its answer.
    pub(super) bytes: u64,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    /// Which answer it should get, where the trace says so.
    pub(super) answer: Option<usize>,
    /// What its answer costs, where model and price are known.
    pub(super) usd: Option<f64>,
}

/// By what two requests of a trace are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// What was asked.
    Content,
    /// Only how long it was: different lengths are different requests, and the same may be.
    Lengths,
}

/// A line that is an object. Unknown fields are refused: a misspelt `tenant` would make two tenants share.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: Option<Value>,
    hash_ids: Option<Vec<u64>>,
    #[serde(alias = "timestamp")]
    at_ms: Option<u64>,
    #[serde(alias = "input_length")]
    input_tokens: Option<u64>,
    #[serde(alias = "output_length")]
    output_tokens: Option<u64>,
    bytes: Option<u64>,
    tenant: Option<String>,
    model: Option<String>,
    answer: Option<Value>,
}

/// A line that is a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Lengths(String, u64, u64),
    Question(String, String),
}

/// Gives numbers to keys and answers as they come.
struct Reader<'a> {
    prices: &'a PriceTable,
    model: Option<&'a str>,
    numbers: HashMap<Key, usize>,
    answers: HashMap<String, usize>,
    /// For each line whether it has a time, and whether it has a size.
    lines: usize,
    timed: usize,
    sized: usize,
    trace: Trace,
}

// === impl Trace ===

impl Trace {
    /// Reads the file at `path`. What it does not say of a request's model is `model`.
    ///
    /// # Errors
    /// In words, with the line that is wrong.
    pub(super) fn read(path: &Path, prices: &PriceTable, model: Option<&str>) -> Result<Self, String> {
        let mut reader = Reader::new(prices, model);
        each_line(path, "reading the trace", |line| reader.line(line))?;
        reader.end().map_err(|problem| format!("{}{problem}", path.display()))
    }

    /// Has the requests come `rate` a second.
    pub(super) fn paced(&mut self, rate: f64) {
        for (number, request) in self.requests.iter_mut().enumerate() {
            request.at = Duration::from_secs_f64(number as f64 / rate);
        }
        self.timed = true;
    }

    /// From the first request to the last.
    pub(super) fn span(&self) -> Duration {
        self.requests.last().map_or(Duration::ZERO, |last| last.at)
    }

    /// How many of the requests ask for an answer that an earlier one has got, in whichever words; `None` where the
    /// trace does not say which answer is right.
    pub(super) fn same_answers(&self) -> Option<usize> {
        let mut seen = std::collections::HashSet::new();
        let answers: Option<Vec<_>> = self.requests.iter().map(|request| request.answer).collect();
        Some(answers?.into_iter().filter(|answer| !seen.insert(*answer)).count())
    }
}

/// Gives every line that is not empty of the file at `path`, which may be packed by gzip, to `take`; shows as `what` how
/// far it is.
///
/// # Errors
/// In words, with the line that is wrong.
pub(super) fn each_line(
    path: &Path,
    what: &str,
    take: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let shown = path.display();
    let cannot = |error| format!("{shown}: {}", reason(&error));
    let file = File::open(path).map_err(cannot)?;
    let bar = progress::bar(file.metadata().map_err(cannot)?.len(), what);
    let text = open(bar.wrap_read(file)).map_err(cannot)?;
    lines(text, take).map_err(|problem| format!("{shown}{problem}"))?;
    bar.finish_and_clear();
    Ok(())
}

fn lines(mut text: impl BufRead, mut take: impl FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let length = (&mut text).take(LONGEST_LINE + 1).read_until(b'\n', &mut line);
        if number == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        let problem = match length {
            Ok(0) => break,
            Ok(length) if length as u64 > LONGEST_LINE => {
                Some(format!("the line is longer than {LONGEST_LINE} bytes"))
            }
            Ok(_) if line.trim_ascii().is_empty() => None,
            Ok(_) => take(&line).err(),
            Err(error) => Some(format!("cannot be read on: {error}")),
        };
        if let Some(problem) = problem {
            return Err(format!(":{number}: {problem}"));
        }
    }
    Ok(())
}

/// The text of a file that may be packed by gzip.
fn open(file: impl Read + 'static) -> std::io::Result<Box<dyn BufRead>> {
    let mut file = BufReader::with_capacity(1 << 16, file);
    if file.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(BufReader::new(MultiGzDecoder::new(file))));
    }
    Ok(Box::new(file))
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn new(prices: &'a PriceTable, model: Option<&'a str>) -> Self {
        let trace = Trace {
            requests: Vec::new(),
            keys: Vec::new(),
            identity: Identity::Content,
            timed: true,
            sized: true,
        };
        let (numbers, answers) = (HashMap::new(), HashMap::new());
        Self { prices, model, numbers, answers, lines: 0, timed: 0, sized: 0, trace }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        let list = line.trim_ascii_start().starts_with(b"[");
        let (line, identity) = if list { row(line)? } else { (object(line)?, Identity::Content) };
        if self.lines > 0 && identity != self.trace.identity {
            return Err(
                "this line says what was asked and those before do not, or the other way round: one trace \
                        has one form"
                    .to_owned(),
            );
        }
        self.trace.identity = identity;
        self.lines += 1;
        self.timed += usize::from(line.at_ms.is_some());
        self.sized += usize::from(line.bytes.is_some());
        self.add(&line)
    }

    fn add(&mut self, line: &Line) -> Result<(), String> {
        let key = self.number(line.key()?);
        let answer = line.answer.as_ref().map(|answer| {
            let next = self.answers.len();
            *self.answers.entry(answer.to_string()).or_insert(next)
        });
        let mut usage = Usage::default();
        usage.prompt_tokens = line.input_tokens.unwrap_or_default();
        usage.completion_tokens = line.output_tokens.unwrap_or_default();
        let known = line.input_tokens.is_some() && line.output_tokens.is_some();
        let model = line.model.as_deref().or(self.model).filter(|_| known);
        let assumed = line
            .output_tokens
            .map_or(BYTES_UNKNOWN, |tokens| tokens.saturating_mul(BYTES_PER_TOKEN) + BYTES_AROUND);
        self.trace.requests.push(Request {
            at: Duration::from_millis(line.at_ms.unwrap_or_default()),
            key,
            bytes: line.bytes.unwrap_or(assumed),
            input_tokens: usage.prompt_tokens,
            output_tokens: usage.completion_tokens,
            answer,
            usd: model.and_then(|model| self.prices.cost(model, &usage)),
        });
        Ok(())
    }

    fn number(&mut self, key: Key) -> usize {
        let next = self.numbers.len();
        *self.numbers.entry(key).or_insert_with(|| {
            self.trace.keys.push(key);
            next
        })
    }

    fn end(mut self) -> Result<Trace, String> {
        if self.lines == 0 {
            return Err(": there is no request in it".to_owned());
        }
        if self.timed != 0 && self.timed != self.lines {
            return Err(format!(
                ": {} of {} requests say when they came: all must, or none",
                self.timed, self.lines
            ));
        }
        self.trace.timed = self.timed > 0;
        self.trace.sized = self.sized == self.lines;
        self.trace.requests.sort_by_key(|request| request.at);
        let first = self.trace.requests[0].at;
        self.trace.requests.iter_mut().for_each(|request| request.at -= first);
        Ok(self.trace)
    }
}

// === impl Line ===

impl Line {
    fn key(&self) -> Result<Key, String> {
        let tenant = self.tenant.as_deref();
        let key = KeyBuilder::new("trace", 0).part(&[u8::from(tenant.is_some())]);
        let key = key.text(tenant.unwrap_or_default());
        let key = match (&self.key, &self.hash_ids) {
            (Some(content), None) => key.json(content),
            // The last block is not full: how much of it there is counts too.
            (None, Some(blocks)) => key.json(&(blocks, self.input_tokens)),
            (Some(_), Some(_)) => return Err("`key` and `hash_ids` are both there: write one".to_owned()),
            (None, None) => {
                return Err("no `key` (nor `hash_ids`): without it nobody knows which requests are the same"
                    .to_owned());
            }
        };
        Ok(key.expect("what was read from json has a json form").build())
    }
}

fn object(line: &[u8]) -> Result<Line, String> {
    serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))
}

fn row(line: &[u8]) -> Result<(Line, Identity), String> {
    let row: Row = serde_json::from_slice(line).map_err(|_| {
        "not [\"TIME\", INPUT TOKENS, OUTPUT TOKENS] nor [\"QUESTION\", \"ANSWER\"]".to_owned()
    })?;
    let none = Line {
        key: None,
        hash_ids: None,
        at_ms: None,
        input_tokens: None,
        output_tokens: None,
        bytes: None,
        tenant: None,
        model: None,
        answer: None,
    };
    Ok(match row {
        Row::Question(question, answer) => {
            let line = Line { key: Some(question.into()), answer: Some(answer.into()), ..none };
            (line, Identity::Content)
        }
        Row::Lengths(time, input, output) => {
            let line = Line {
                // An answer may come out longer the next time; a question does not.
                key: Some(input.into()),
                at_ms: Some(moment(&time)?),
                input_tokens: Some(input),
                output_tokens: Some(output),
                ..none
            };
            (line, Identity::Lengths)
        }
    })
}

/// Milliseconds since 1970 of `2023-11-16 18:15:46.6805900`.
fn moment(text: &str) -> Result<u64, String> {
    let time = humantime::parse_rfc3339_weak(text).ok();
    let since = time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .ok_or_else(|| format!("`{text}` is not a time: write it as 2023-11-16 18:15:46.680"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read(text: &str) -> Result<Trace, String> {
        let prices = PriceTable::builtin();
        let mut reader = Reader::new(&prices, None);
        lines(text.as_bytes(), |line| reader.line(line))?;
        reader.end()
    }

    #[test]
    fn requests_are_the_same_by_their_content_and_tenant() {
        let trace = read(concat!(
            "{\"key\": {\"a\": 1, \"b\": 2}, \"at_ms\": 5}\n\n",
            "{\"key\": {\"b\": 2, \"a\": 1}, \"at_ms\": 9, \"tenant\": \"t\"}\n",
            "{\"key\": {\"b\": 2, \"a\": 1}, \"at_ms\": 7, \"bytes\": 10}\n",
            "{\"key\": {\"b\": 2, \"a\": 1.0}, \"at_ms\": 12}\n",
        ));
        let trace = trace.unwrap();
        let seen: Vec<_> =
            trace.requests.iter().map(|request| (request.at.as_millis(), request.key)).collect();
        assert_eq!(seen, [(0, 0), (2, 0), (4, 1), (7, 2)]);
        assert!(trace.timed && !trace.sized);
        assert_eq!((trace.requests[0].bytes, trace.requests[1].bytes), (1024, 10));
    }

    #[test]
    fn public_traces_are_read_as_they_are() {
        let mooncake = read(
            "{\"timestamp\":3,\"input_length\":700,\"output_length\":50,\"hash_ids\":[1,2]}\n\
             {\"timestamp\":4,\"input_length\":701,\"output_length\":50,\"hash_ids\":[1,2]}\n",
        );
        let mooncake = mooncake.unwrap();
        assert_eq!((mooncake.keys.len(), mooncake.identity), (2, Identity::Content));
        assert_eq!((mooncake.requests[0].input_tokens, mooncake.requests[0].bytes), (700, 500));
        let azure =
            read("[\"2023-11-16 18:15:46.6805900\",374,44]\n[\"2023-11-16 18:15:47.6805900\",374,45]\n");
        let azure = azure.unwrap();
        assert_eq!((azure.keys.len(), azure.identity, azure.span().as_secs()), (1, Identity::Lengths, 1));
        let questions = read("[\"Where is it?\",\"card\"]\n[\"Where's it?\",\"card\"]\n").unwrap();
        assert_eq!((questions.keys.len(), questions.same_answers(), questions.timed), (2, Some(1), false));
    }

    #[test]
    fn a_packed_file_is_unpacked_and_prices_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.gz");
        let mut packed =
            flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
        packed.write_all(b"{\"key\": 1, \"input_tokens\": 1000000, \"output_tokens\": 0}\n").unwrap();
        packed.finish().unwrap();
        let prices = PriceTable::empty().with("m", throughline_llm::Price::new(2.0, 4.0));
        let trace = Trace::read(&path, &prices, Some("m")).unwrap();
        assert_eq!(trace.requests[0].usd, Some(2.0));
        let unknown = Trace::read(&path, &prices, None).unwrap();
        assert_eq!(unknown.requests[0].usd, None);
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        let refusal = |text: &str| read(text).unwrap_err();
        assert_eq!(refusal("\n"), ": there is no request in it");
        assert!(
            refusal("{\"key\": 1}\n{\"kex\": 1}\n").starts_with(":2: not a request: unknown field `kex`")
        );
        assert!(refusal("{\"at_ms\": 1}\n").starts_with(":1: no `key` (nor `hash_ids`)"));
        assert!(refusal("[1, 2]\n").starts_with(":1: not [\"TIME\""));
        assert!(refusal("[\"yesterday\", 1, 2]\n").starts_with(":1: `yesterday` is not a time"));
        assert!(
            refusal("{\"key\": 1}\n{\"key\": 1, \"at_ms\": 3}\n").starts_with(": 1 of 2 requests say when")
        );
        assert!(
            refusal("[\"q\", \"a\"]\n[\"2023-11-16 18:15:46\", 1, 2]\n").starts_with(":2: this line says")
        );
        let none = Trace::read(Path::new("/none"), &PriceTable::empty(), None).unwrap_err();
        assert_eq!(none, "/none: there is no such file");
    }
}
