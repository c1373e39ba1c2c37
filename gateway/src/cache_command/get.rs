//! `throughline cache get`: what a store holds under a key.

use std::io::Write as _;
use std::time::Duration;

use serde::Serialize;
use throughline::cache::Found;
use throughline::{Key, Result};
use throughline_llm::stored_answer;

use super::Ended;
use super::args::Get;
use super::open::{Opened, chosen, configuration, ended, failed};
use super::report::size;
use crate::check::show;
use crate::config::{Config, Store};

/// An answer in a store.
#[derive(Debug, Serialize)]
struct Shown {
    store: String,
    key: String,
    /// The model as clients name it, where the configuration has it.
    model: Option<String>,
    /// The model that has answered.
    answered_by: Option<String>,
    stream: Option<bool>,
    bytes: usize,
    age_ms: u128,
    fresh_ms: u128,
    kept_ms: u128,
}

/// Looks for the key and shows what is there.
///
/// # Errors
/// When the configuration is not good, a store fails, nothing is found, or too much.
pub(super) async fn run(args: &Get) -> std::result::Result<(), Ended> {
    let config = configuration(&args.stores)?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for (name, store) in chosen(&config, &args.stores) {
        match look(store, &args.key).await {
            Ok(entries) => found.extend(entries.into_iter().map(|(key, value)| (name, key, value))),
            Err(error) => failures.push(failed(name, &error)),
        }
    }
    match found.as_slice() {
        [] if failures.is_empty() => {
            return Err(Ended::Failed(format!("nothing is stored under {}", args.key)));
        }
        [(_, first, _), others @ ..] if others.iter().any(|(_, key, _)| key != first) => {
            let keys: Vec<_> = found.iter().map(|(_, key, _)| key.to_string()).collect();
            let problem = format!("several keys begin with {}: {}", args.key, keys.join(", "));
            return Err(Ended::Refused(problem));
        }
        _ => {}
    }
    let shown = found.iter().map(|(store, key, value)| Shown::new(&config, store, key, value));
    if args.value {
        if let Some((_, _, value)) = found.first() {
            print(value).map_err(Ended::Failed)?;
        }
    } else if args.stores.json {
        let shown: Vec<_> = shown.collect();
        show(&(serde_json::to_string_pretty(&shown).expect("texts and numbers serialise") + "\n"));
    } else {
        shown.for_each(|shown| show(&shown.text()));
    }
    ended(&failures)
}

/// What is under a key, or under the keys that begin with these digits.
async fn look(store: &Store, digits: &str) -> Result<Vec<(Key, Found)>> {
    let mut store = Opened::new(store).await?;
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

fn print(found: &Found) -> std::result::Result<(), String> {
    let answer = stored_answer(found.value.clone()).map_err(|error| error.to_string())?;
    let written = std::io::stdout().write_all(&answer.content);
    written.map_err(|error| format!("the answer could not be printed: {error}"))
}

// === impl Shown ===

impl Shown {
    fn new(config: &Config, store: &str, key: &Key, found: &Found) -> Self {
        let answer = stored_answer(found.value.clone()).ok();
        let models = config.models.keys();
        Self {
            store: store.to_owned(),
            key: key.to_string(),
            model: models.into_iter().find(|name| throughline::cache::tag(name) == key.namespace()).cloned(),
            answered_by: answer.as_ref().map(|answer| answer.model.clone()),
            stream: answer.as_ref().map(|answer| answer.stream),
            bytes: found.value.len(),
            age_ms: found.age.as_millis(),
            fresh_ms: found.lifetime.fresh.as_millis(),
            kept_ms: found.lifetime.kept.as_millis(),
        }
    }

    fn text(&self) -> String {
        let unknown = || "unknown".to_owned();
        let time = |ms: u128| {
            humantime::format_duration(Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)))
        };
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
