//! `throughline cache stats`: how many answers the stores hold, of which models and tenants.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use throughline::Result;
use throughline::cache::{Entry, Tag, tag};

use super::Ended;
use super::args::Stats;
use super::open::{Through, chosen, ended, failed, through};
use super::report::size;
use super::target::Target;
use crate::check::show;

/// The most models and tenants that are told apart, beside those that were named.
const MOST: usize = 10_000;
/// What all others are called.
const OTHERS: &str = "(others)";

/// What the stores hold.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Report {
    stores: Vec<Held>,
    /// What stores said that did not do it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) failures: Vec<String>,
}

/// What a store holds.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Held {
    name: String,
    place: String,
    entries: u64,
    bytes: u64,
    /// Entries past their ttl, kept to be served stale or not removed yet.
    stale: u64,
    /// Entries that this version cannot read.
    unreadable: u64,
    /// The age of the oldest entry in seconds.
    oldest_seconds: Option<u64>,
    /// By model; others by their mark.
    models: BTreeMap<String, Part>,
    /// By tenant, as far as they were named; others by their mark. Those of nobody are under the empty name.
    tenants: BTreeMap<String, Part>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct Part {
    entries: u64,
    bytes: u64,
}

/// The names that marks stand for.
pub(crate) struct Names {
    models: BTreeMap<Tag, String>,
    tenants: BTreeMap<Tag, String>,
}

/// Counts and reports.
///
/// # Errors
/// When the configuration is not good or a store fails; the others are reported all the same.
pub(super) async fn run(args: &Stats) -> std::result::Result<(), Ended> {
    let report = match through(&args.stores).await? {
        Through::Gateway(gateway) => gateway.stats(args).await?,
        Through::Stores(config) => {
            let names = Names::new(config.models.keys(), &args.tenant);
            Report::of(&chosen(&config, &args.stores), &names).await
        }
    };
    show(&if args.stores.json {
        serde_json::to_string_pretty(&report).expect("texts and numbers serialise") + "\n"
    } else {
        report.stores.iter().map(Held::text).collect()
    });
    ended(&report.failures)
}

async fn count(target: &Target, names: &Names) -> Result<Held> {
    let mut held = Held { name: target.name.clone(), place: target.place.clone(), ..Held::default() };
    let mut store = target.open().await?;
    let bar = store.bar().await;
    while let Some(page) = store.next().await? {
        bar.inc(page.len() as u64);
        page.iter().for_each(|entry| held.add(entry, names));
    }
    bar.finish_and_clear();
    Ok(held)
}

// === impl Report ===

impl Report {
    /// What these hold.
    pub(crate) async fn of(targets: &[impl std::borrow::Borrow<Target>], names: &Names) -> Self {
        let mut report = Self::default();
        for target in targets.iter().map(std::borrow::Borrow::borrow) {
            match count(target, names).await {
                Ok(held) => report.stores.push(held),
                Err(error) => report.failures.push(failed(&target.name, &error)),
            }
        }
        report
    }
}

// === impl Names ===

impl Names {
    /// Those of the configured models, and of the tenants that were named.
    pub(crate) fn new<'a>(models: impl Iterator<Item = &'a String>, tenants: &'a [String]) -> Self {
        let named = |names: &mut dyn Iterator<Item = &'a String>| {
            names.map(|name| (tag(name), name.clone())).collect::<BTreeMap<_, _>>()
        };
        let mut names = Self { models: named(&mut { models }), tenants: named(&mut tenants.iter()) };
        names.tenants.insert(tag(""), String::new());
        names
    }

    /// The model that this mark stands for, where it is known.
    pub(super) fn model(&self, mark: Tag) -> Option<&String> {
        self.models.get(&mark)
    }
}

// === impl Held ===

impl Held {
    fn add(&mut self, entry: &Entry, names: &Names) {
        self.entries += 1;
        self.bytes += entry.bytes;
        let Some(stored) = entry.stored else {
            self.unreadable += 1;
            return;
        };
        self.stale += u64::from(stored.age >= stored.lifetime.fresh);
        self.oldest_seconds = self.oldest_seconds.max(Some(stored.age.as_secs()));
        let models = part(&mut self.models, &names.models, entry.key.namespace());
        let tenants = part(&mut self.tenants, &names.tenants, entry.key.tenant());
        for part in [models, tenants] {
            part.entries += 1;
            part.bytes += entry.bytes;
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "store {}: {}\n  {} entries, {}; {} past their ttl, {} unreadable",
            self.name,
            self.place,
            self.entries,
            size(self.bytes),
            self.stale,
            self.unreadable
        );
        if let Some(oldest) = self.oldest_seconds {
            let age = humantime::format_duration(Duration::from_secs(oldest));
            write!(text, "; the oldest is {age} old").expect("a string takes any text");
        }
        text.push('\n');
        for (title, parts) in [("model", &self.models), ("tenant", &self.tenants)] {
            for (name, Part { entries, bytes }) in parts {
                let name = if name.is_empty() { "(none)" } else { name };
                writeln!(text, "  {title} {name}: {entries} entries, {}", size(*bytes))
                    .expect("a string takes any text");
            }
        }
        text
    }
}

/// The part of this mark. Marks without end are put together, for what is made of them has to end.
fn part<'a>(parts: &'a mut BTreeMap<String, Part>, names: &BTreeMap<Tag, String>, mark: Tag) -> &'a mut Part {
    let name = match names.get(&mark) {
        Some(name) => name.clone(),
        None => {
            let shown = format!("#{:08x}", u32::from_be_bytes(mark));
            if parts.len() < MOST || parts.contains_key(&shown) { shown } else { OTHERS.to_owned() }
        }
    };
    parts.entry(name).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_without_end_are_put_together_and_named_ones_are_not() {
        let names = BTreeMap::from([(tag("red"), "red".to_owned())]);
        let mut parts = BTreeMap::new();
        for n in 0..20_000_u32 {
            part(&mut parts, &names, n.to_be_bytes()).entries += 1;
        }
        part(&mut parts, &names, tag("red")).entries += 1;
        part(&mut parts, &names, 7_u32.to_be_bytes()).entries += 1;
        assert_eq!((parts[OTHERS].entries, parts["red"].entries, parts["#00000007"].entries), (10_000, 1, 2));
        assert_eq!(parts.len(), MOST + 2);
    }
}
