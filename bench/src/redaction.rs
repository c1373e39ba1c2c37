//! How well secrets and personal data are found, in labelled texts: `bench redaction DIR`.

#![expect(clippy::print_stdout, reason = "the table is what this command is asked for")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base64::Engine as _;
use serde::Deserialize;
use throughline::redact::{Found, Redactor, find};

use crate::cpu;

/// What must hold, in shares.
const COVERED: f64 = 0.995;
const TOUCHED: f64 = 0.005;
const PHONES: f64 = 0.6;
const KEYS: f64 = 0.95;
const NEGATIVES: f64 = 0.2;
const MEGABYTES_A_SECOND: f64 = 50.0;

/// Rules of `secrets.jsonl` whose keys are those of the providers that are promised.
const PROVIDERS: [&str; 19] = [
    "openai",
    "anthropic",
    "aws",
    "bedrock",
    "gcp",
    "google",
    "azure",
    "github",
    "gitlab",
    "slack",
    "stripe",
    "huggingface",
    "groq",
    "xai",
    "openrouter",
    "together",
    "replicate",
    "npm",
    "pypi",
];

/// A labelled text; offsets count characters.
#[derive(Deserialize)]
struct Record {
    text: Option<String>,
    text_b64: Option<String>,
    #[serde(default)]
    spans: Vec<Span>,
    #[serde(default)]
    rule: String,
    label: Option<bool>,
}

#[derive(Deserialize)]
struct Span {
    #[serde(rename = "type")]
    kind: String,
    start: usize,
    end: usize,
}

/// Hits of a number of tries.
#[derive(Clone, Copy, Default)]
struct Share {
    hits: u32,
    all: u32,
}

/// A row of the table, and whether its bar holds.
struct Row {
    what: String,
    share: Share,
    holds: Option<bool>,
}

/// Measures with the files in `folder` and says whether every bar holds.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn run(folder: &Path, misses: bool) -> Result<bool, String> {
    let prose = read(&folder.join("sentences.jsonl"))?;
    let mut rows = generated(&read(&folder.join("generated.jsonl"))?, misses);
    rows.extend(sentences(&prose, misses));
    rows.extend(secrets(&read(&folder.join("secrets.jsonl"))?, misses));
    for Row { what, share, holds } in &rows {
        let bar = holds.map_or("", |holds| if holds { "ok" } else { "MISSED" });
        println!("{what:<44} {:>5} of {:>5}  {:>6.2} %  {bar}", share.hits, share.all, 100.0 * share.ratio());
    }
    let speed = speed(&prose);
    let fast = speed >= MEGABYTES_A_SECOND;
    println!("{:<44} {speed:>7.0} MB/s  {}", "sentences, one core", if fast { "ok" } else { "MISSED" });
    Ok(fast && rows.iter().all(|row| row.holds != Some(false)))
}

fn read(file: &Path) -> Result<Vec<Record>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let parse = |line| serde_json::from_str(line).map_err(|error| format!("{}: {error}", file.display()));
    text.lines().map(parse).collect()
}

fn generated(records: &[Record], misses: bool) -> Vec<Row> {
    let (mut covered, mut touched) = (Share::default(), Share::default());
    for record in records {
        let text = record.text();
        let found = find(&text);
        for span in &record.spans {
            let hit = covers(&found, span.bytes(&text));
            covered.count(hit);
            if !hit && misses {
                println!("miss {}: {:?} of {text:?}", span.kind, &text[span.bytes(&text)]);
            }
        }
        if record.spans.is_empty() {
            touched.count(!found.is_empty());
            if misses && !found.is_empty() {
                println!(
                    "touched: {:?} of {text:?}",
                    found.iter().map(|place| &text[place.range.clone()]).collect::<Vec<_>>()
                );
            }
        }
    }
    vec![
        Row::new("generated: secrets fully covered", covered, Some(covered.ratio() >= COVERED)),
        Row::new("generated: clean records touched", touched, Some(touched.ratio() <= TOUCHED)),
    ]
}

fn sentences(records: &[Record], misses: bool) -> Vec<Row> {
    let mut kinds: BTreeMap<&str, Share> = BTreeMap::new();
    for record in records {
        let text = record.text();
        let found = find(&text);
        for span in &record.spans {
            let hit = covers(&found, span.bytes(&text));
            kinds.entry(&span.kind).or_default().count(hit);
            if !hit && misses && span.kind != "DOMAIN_NAME" {
                println!("miss {}: {:?} of {text:?}", span.kind, &text[span.bytes(&text)]);
            }
        }
    }
    let row = |(kind, share): (&str, Share)| {
        let holds = match kind {
            "CREDIT_CARD" | "EMAIL_ADDRESS" | "US_SSN" | "IP_ADDRESS" | "IBAN_CODE" => {
                Some(share.hits == share.all)
            }
            "PHONE_NUMBER" => Some(share.ratio() >= PHONES),
            _ => None,
        };
        Row::new(&format!("sentences: {kind}"), share, holds)
    };
    kinds.into_iter().map(row).collect()
}

/// A key counts as found when anything of its text is; so does a negative.
fn secrets(records: &[Record], misses: bool) -> Vec<Row> {
    let (mut keys, mut negatives) = (Share::default(), Share::default());
    let texts = |label| records.iter().filter(move |record| record.label == Some(label)).map(Record::text);
    let (yes, no): (BTreeSet<_>, BTreeSet<_>) = (texts(true).collect(), texts(false).collect());
    for record in records {
        let text = record.text();
        // A text that carries both labels is no key that must be found.
        let disputed = yes.contains(&text) && no.contains(&text);
        let hit = !find(&text).is_empty();
        let provider = PROVIDERS.iter().any(|name| record.rule.contains(name));
        match record.label {
            Some(true) if provider && !disputed => keys.count(hit),
            Some(false) => negatives.count(hit),
            _ => continue,
        }
        if misses && hit != (record.label == Some(true)) {
            println!("{} {}: {text:?}", if hit { "touched" } else { "miss" }, record.rule);
        }
    }
    vec![
        Row::new("secrets: labelled keys of the providers", keys, Some(keys.ratio() >= KEYS)),
        Row::new("secrets: labelled negatives touched", negatives, Some(negatives.ratio() <= NEGATIVES)),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a speed")]
fn speed(records: &[Record]) -> f64 {
    let text: String = records.iter().map(Record::text).collect::<Vec<_>>().join("\n");
    let redactor = Redactor::standard();
    let rounds = 1 + (20 << 20) / text.len();
    let begun = cpu::of_thread();
    for _ in 0..rounds {
        std::hint::black_box(redactor.text(std::hint::black_box(&text)));
    }
    (text.len() * rounds) as f64 / 1e6 / (cpu::of_thread() - begun).as_secs_f64()
}

fn covers(found: &[Found], range: std::ops::Range<usize>) -> bool {
    found.iter().any(|place| place.range.start <= range.start && range.end <= place.range.end)
}

// === impl Row ===

impl Row {
    fn new(what: &str, share: Share, holds: Option<bool>) -> Self {
        Self { what: what.to_owned(), share, holds }
    }
}

// === impl Record ===

impl Record {
    fn text(&self) -> String {
        let coded = || {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(self.text_b64.as_deref().unwrap_or_default());
            String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
        };
        self.text.clone().unwrap_or_else(coded)
    }
}

// === impl Span ===

impl Span {
    fn bytes(&self, text: &str) -> std::ops::Range<usize> {
        let at = |character| text.char_indices().nth(character).map_or(text.len(), |(at, _)| at);
        at(self.start)..at(self.end)
    }
}

// === impl Share ===

impl Share {
    fn count(&mut self, hit: bool) {
        self.all += 1;
        self.hits += u32::from(hit);
    }

    fn ratio(self) -> f64 {
        f64::from(self.hits) / f64::from(self.all.max(1))
    }
}
