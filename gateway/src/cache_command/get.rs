//! `throughline cache get`: what a store holds under a key.

use std::borrow::Borrow;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use throughline::cache::Found;
use throughline::{Key, Result};
use throughline_llm::stored_answer;

use super::Ended;
use super::args::Get;
use super::open::{Through, chosen, ended, failed, through};
use super::report::size;
use super::stats::Names;
use super::target::Target;
use crate::check::show;
use crate::logs::visible;

/// What stores hold under a key.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Shelf {
    found: Vec<Shown>,
    /// What stores said that did not do it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) failures: Vec<String>,
}

/// An answer in a store.
#[derive(Debug, Deserialize, Serialize)]
struct Shown {
    store: String,
    key: String,
    /// The model as clients name it, where the configuration has it.
    model: Option<String>,
    /// The model that has answered.
    answered_by: Option<String>,
    stream: Option<bool>,
    bytes: usize,
    age_ms: u64,
    fresh_ms: u64,
    kept_ms: u64,
}

/// Values under one key, each with the name of its store.
pub(crate) struct Hits {
    found: Vec<(String, Key, Found)>,
    failures: Vec<String>,
}

/// Looks for the key and shows what is there.
///
/// # Errors
/// When the configuration is not good, a store fails, nothing is found, or too much.
pub(super) async fn run(args: &Get) -> std::result::Result<(), Ended> {
    let through = through(&args.stores).await?;
    if args.value {
        let (value, failures) = match through {
            Through::Gateway(gateway) => {
                let (value, failures) = gateway.value(args).await?;
                (Some(value), failures)
            }
            Through::Stores(config) => {
                let hits = Hits::of(&chosen(&config, &args.stores), &args.key).await?;
                (hits.value().map_err(Ended::Failed)?, hits.failures)
            }
        };
        value.map_or(Ok(()), |value| print(&value)).map_err(Ended::Failed)?;
        return ended(&failures);
    }
    let shelf = match through {
        Through::Gateway(gateway) => gateway.get(args).await?,
        Through::Stores(config) => {
            let hits = Hits::of(&chosen(&config, &args.stores), &args.key).await?;
            // What cannot be taken out of its envelope is shown all the same.
            hits.shelf(&Names::new(config.models.keys(), &[]))
        }
    };
    show(&if args.stores.json {
        serde_json::to_string_pretty(&shelf.found).expect("texts and numbers serialise") + "\n"
    } else {
        shelf.found.iter().map(Shown::text).collect()
    });
    ended(&shelf.failures)
}

/// What is under a key, or under the keys that begin with these digits.
async fn look(target: &Target, digits: &str) -> Result<Vec<(Key, Found)>> {
    let mut store = target.open().await?;
    let mut keys = Vec::new();
    if let Ok(key) = digits.parse() {
        keys.push(key);
    } else {
        while let Some(page) = store.next().await? {
            keys.extend(page.iter().map(|entry| entry.key).filter(|key| key.to_string().starts_with(digits)));
        }
    }
    let mut found = Vec::new();
    for key in keys {
        found.extend(store.get(&key).await?.map(|value| (key, value)));
    }
    Ok(found)
}

/// Prints it byte for byte, but for a terminal, which would take orders from it.
fn print(value: &[u8]) -> std::result::Result<(), String> {
    let mut out = std::io::stdout();
    let written =
        if out.is_terminal() { out.write_all(harmless(value).as_bytes()) } else { out.write_all(value) };
    written.map_err(|error| format!("the answer could not be printed: {error}"))
}

/// What can be read of it, line by line.
fn harmless(value: &[u8]) -> String {
    String::from_utf8_lossy(value).split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

// === impl Hits ===

impl Hits {
    /// What these hold under the key that is `digits`, or begins with them.
    ///
    /// # Errors
    /// When nothing is found though all were asked, or several keys are.
    pub(crate) async fn of(
        targets: &[impl Borrow<Target>],
        digits: &str,
    ) -> std::result::Result<Self, Ended> {
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for target in targets.iter().map(Borrow::borrow) {
            match look(target, digits).await {
                Ok(hits) => {
                    found.extend(hits.into_iter().map(|(key, value)| (target.name.clone(), key, value)));
                }
                Err(error) => failures.push(failed(&target.name, &error)),
            }
        }
        match found.as_slice() {
            [] if failures.is_empty() => Err(Ended::Failed(format!("nothing is stored under {digits}"))),
            [(_, first, _), others @ ..] if others.iter().any(|(_, key, _)| key != first) => {
                let keys: Vec<_> = found.iter().map(|(_, key, _)| key.to_string()).collect();
                Err(Ended::Refused(format!("several keys begin with {digits}: {}", keys.join(", "))))
            }
            _ => Ok(Self { found, failures }),
        }
    }

    /// What is to be said of them.
    pub(crate) fn shelf(&self, names: &Names) -> Shelf {
        let shown = self.found.iter().map(|(store, key, value)| Shown::new(names, store, key, value));
        Shelf { found: shown.collect(), failures: self.failures.clone() }
    }

    /// The answer itself, of the first store that has it.
    ///
    /// # Errors
    /// When it is no answer.
    pub(crate) fn value(&self) -> std::result::Result<Option<Bytes>, String> {
        let Some((_, _, found)) = self.found.first() else { return Ok(None) };
        let answer = stored_answer(found.value.clone()).map_err(|error| error.to_string())?;
        Ok(Some(answer.content))
    }
}

// === impl Shown ===

impl Shown {
    fn new(names: &Names, store: &str, key: &Key, found: &Found) -> Self {
        let answer = stored_answer(found.value.clone()).ok();
        Self {
            store: store.to_owned(),
            key: key.to_string(),
            model: names.model(key.namespace()).cloned(),
            // Whoever may write to the store has chosen it.
            answered_by: answer.as_ref().map(|answer| visible(&answer.model)),
            stream: answer.as_ref().map(|answer| answer.stream),
            bytes: found.value.len(),
            age_ms: millis(found.age),
            fresh_ms: millis(found.lifetime.fresh),
            kept_ms: millis(found.lifetime.kept),
        }
    }

    fn text(&self) -> String {
        let unknown = || "unknown".to_owned();
        let time = |ms: u64| humantime::format_duration(Duration::from_millis(ms));
        let form = if self.stream == Some(true) { ", as a stream" } else { "" };
        format!(
            "{}\n  store {}\n  model {}, answered by {}{form}\n  {}, {} old, fresh for {}, kept for {}\n",
            self.key,
            self.store,
            self.model.clone().unwrap_or_else(unknown),
            self.answered_by.clone().unwrap_or_else(unknown),
            size(self.bytes as u64),
            time(self.age_ms),
            time(self.fresh_ms),
            time(self.kept_ms),
        )
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_on_a_terminal_keeps_its_lines_and_gives_no_orders() {
        assert_eq!(harmless(b"a\n\x1b[2Jb\n"), "a\n\\u{1b}[2Jb\n");
        assert_eq!(harmless(b"\xff"), "\u{fffd}");
    }
}
