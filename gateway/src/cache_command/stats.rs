//! `throughline cache stats`: how many answers the stores hold, of which models and tenants.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use throughline::Result;
use throughline::cache::{Entry, Tag, tag};

use super::Ended;
use super::args::Stats;
use super::open::{Opened, chosen, configuration, ended, failed};
use super::report::size;
use crate::check::show;
use crate::config::Store;

/// What the stores hold.
#[derive(Debug, Serialize)]
struct Report {
    stores: Vec<Held>,
}

/// What a store holds.
#[derive(Debug, Default, Serialize)]
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

#[derive(Debug, Default, Serialize)]
struct Part {
    entries: u64,
    bytes: u64,
}

/// The names that marks stand for.
struct Names {
    models: BTreeMap<Tag, String>,
    tenants: BTreeMap<Tag, String>,
}

/// Counts and reports.
///
/// # Errors
/// When the configuration is not good or a store fails; the others are reported all the same.
pub(super) async fn run(args: &Stats) -> std::result::Result<(), Ended> {
    let config = configuration(&args.stores)?;
    let named = |names: &mut dyn Iterator<Item = &String>| {
        names.map(|name| (tag(name), name.clone())).collect::<BTreeMap<_, _>>()
    };
    let nobody = String::new();
    let names = Names {
        models: named(&mut config.models.keys()),
        tenants: named(&mut args.tenant.iter().chain([&nobody])),
    };
    let (mut report, mut failures) = (Report { stores: Vec::new() }, Vec::new());
    for (name, store) in chosen(&config, &args.stores) {
        match count(name, store, &names).await {
            Ok(held) => report.stores.push(held),
            Err(error) => failures.push(failed(name, &error)),
        }
    }
    show(&if args.stores.json {
        serde_json::to_string_pretty(&report).expect("texts and numbers serialise") + "\n"
    } else {
        report.stores.iter().map(Held::text).collect()
    });
    ended(&failures)
}

async fn count(name: &str, store: &Store, names: &Names) -> Result<Held> {
    let mut held = Held { name: name.to_owned(), place: store.shown(), ..Held::default() };
    let mut store = Opened::new(store).await?;
    let bar = store.bar(&format!("store {name}")).await;
    while let Some(page) = store.next().await? {
        bar.inc(page.len() as u64);
        page.iter().for_each(|entry| held.add(entry, names));
    }
    bar.finish_and_clear();
    Ok(held)
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
        let model = named(&names.models, entry.key.namespace());
        let tenant = named(&names.tenants, entry.key.tenant());
        for part in [self.models.entry(model).or_default(), self.tenants.entry(tenant).or_default()] {
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

fn named(names: &BTreeMap<Tag, String>, mark: Tag) -> String {
    names.get(&mark).cloned().unwrap_or_else(|| format!("#{:08x}", u32::from_be_bytes(mark)))
}
