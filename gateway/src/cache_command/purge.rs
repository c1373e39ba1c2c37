//! `throughline cache purge`: removes answers by key, tenant or model.

use std::borrow::Borrow;

use serde::{Deserialize, Serialize};
use throughline::cache::{Entry, Tag, tag};
use throughline::{Key, Result};

use super::Ended;
use super::args::{Purge, Which};
use super::open::{Through, chosen, ended, failed, through};
use super::report::size;
use super::target::Target;
use crate::check::show;
use crate::config::unknown;
use crate::logs::complain;

/// What was removed from the stores, or would be.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Removal {
    dry_run: bool,
    stores: Vec<Removed>,
    /// What stores said that did not do it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) failures: Vec<String>,
    /// What else is to be known of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// What was removed from a store, or would be.
#[derive(Debug, Deserialize, Serialize)]
struct Removed {
    name: String,
    /// Entries that were looked at.
    scanned: u64,
    entries: u64,
    bytes: u64,
    /// Some of the keys, where nothing is removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<String>,
}

/// The most keys that are named.
const NAMED: usize = 1_000;
/// And to people.
const SHOWN: usize = 10;

/// Which entries.
pub(crate) enum Selection {
    All,
    /// Those that all of it applies to.
    Of(Filter),
}

/// A choice of entries.
pub(crate) struct Filter {
    keys: Vec<Key>,
    prefix: Option<String>,
    tenant: Option<Tag>,
    model: Option<Tag>,
}

/// Purges the stores.
///
/// # Errors
/// When the configuration is not good or a store fails; the others are purged all the same.
pub(super) async fn run(args: &Purge) -> std::result::Result<(), Ended> {
    let removal = match through(&args.stores).await? {
        Through::Gateway(gateway) => gateway.purge(args).await?,
        Through::Stores(config) => {
            let which = Selection::of(&args.which);
            let removal = Removal::from(&chosen(&config, &args.stores), &which, args.dry_run).await;
            removal.of_known(&args.which, config.models.keys()).map_err(Ended::Refused)?
        }
    };
    removal.show(args.stores.json);
    ended(&removal.failures)
}

/// Removes what is selected, or only counts it.
async fn remove(target: &Target, which: &Selection, dry_run: bool) -> Result<Removed> {
    let mut store = target.open().await?;
    let bar = store.bar().await;
    let mut removed =
        Removed { name: target.name.clone(), scanned: 0, entries: 0, bytes: 0, keys: Vec::new() };
    while let Some(page) = store.next().await? {
        bar.inc(page.len() as u64);
        removed.scanned += page.len() as u64;
        let chosen: Vec<Entry> = page.into_iter().filter(|entry| which.has(&entry.key)).collect();
        if chosen.is_empty() {
            continue;
        }
        removed.bytes += chosen.iter().map(|entry| entry.bytes).sum::<u64>();
        if dry_run {
            let left = NAMED - removed.keys.len();
            removed.keys.extend(chosen.iter().take(left).map(|entry| entry.key.to_string()));
            removed.entries += chosen.len() as u64;
        } else {
            removed.entries += store.remove(&chosen).await?;
        }
    }
    bar.finish_and_clear();
    Ok(removed)
}

/// The mark that `throughline cache stats` shows, or that of a name.
fn mark(named: &str) -> Tag {
    written_mark(named).unwrap_or_else(|| tag(named))
}

/// A mark as `throughline cache stats` shows it.
fn written_mark(text: &str) -> Option<Tag> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 8)?;
    let whole = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    whole.then(|| u32::from_str_radix(digits, 16).ok()).flatten().map(u32::to_be_bytes)
}

/// That nothing is stored which all of this applies to.
fn nothing_fits(which: &Which) -> String {
    let mut wanted = Vec::new();
    if !which.key.is_empty() {
        wanted.push(if which.key.len() == 1 { "this key" } else { "these keys" }.to_owned());
    }
    wanted.extend(which.prefix.as_ref().map(|digits| format!("a key that begins with {digits}")));
    wanted.extend(which.tenant.as_ref().map(|name| match name.as_str() {
        "" => "no tenant".to_owned(),
        name => format!("the tenant `{name}`"),
    }));
    wanted.extend(which.model.as_ref().map(|name| format!("the model `{name}`")));
    let hint = if which.tenant.as_ref().is_some_and(|name| !name.is_empty()) {
        "; `throughline cache stats` shows the marks of the tenants that there are"
    } else {
        ""
    };
    format!("nothing matched: no answer in these stores has {}{hint}", wanted.join(" and "))
}

// === impl Selection ===

impl Selection {
    pub(crate) fn of(which: &Which) -> Self {
        Self::Of(Filter::new(which))
    }

    fn has(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Of(filter) => filter.fits(key),
        }
    }
}

// === impl Filter ===

impl Filter {
    fn new(which: &Which) -> Self {
        Self {
            keys: which.key.clone(),
            prefix: which.prefix.clone(),
            tenant: which.tenant.as_deref().map(mark),
            model: which.model.as_deref().map(mark),
        }
    }

    /// Whether all that was given applies.
    fn fits(&self, key: &Key) -> bool {
        (self.keys.is_empty() || self.keys.contains(key))
            && self.tenant.is_none_or(|tenant| key.tenant() == tenant)
            && self.model.is_none_or(|model| key.namespace() == model)
            && self.prefix.as_ref().is_none_or(|prefix| key.to_string().starts_with(prefix))
    }
}

// === impl Removal ===

impl Removal {
    /// Removes what is selected from each of these, or only counts it.
    pub(crate) async fn from(targets: &[impl Borrow<Target>], which: &Selection, dry_run: bool) -> Self {
        let mut removal = Self { dry_run, stores: Vec::new(), failures: Vec::new(), notes: Vec::new() };
        for target in targets.iter().map(Borrow::borrow) {
            match remove(target, which, dry_run).await {
                Ok(removed) => {
                    let live_on = !dry_run && removed.entries > 0;
                    removal.notes.extend(target.copies().filter(|_| live_on));
                    removal.stores.push(removed);
                }
                Err(error) => removal.failures.push(failed(&target.name, &error)),
            }
        }
        removal
    }

    /// Says so where nothing fits. A model that is configured no more may have answers still, so that its name is wrong only where
    /// there are none.
    ///
    /// # Errors
    /// When nothing fits and the model is none of `models`.
    pub(crate) fn of_known<'a>(
        mut self,
        which: &Which,
        models: impl Iterator<Item = &'a String>,
    ) -> std::result::Result<Self, String> {
        if self.entries() > 0 {
            return Ok(self);
        }
        let models: Vec<_> = models.map(String::as_str).collect();
        let named = which.model.as_deref().filter(|name| written_mark(name).is_none());
        let stranger = named.filter(|name| !models.contains(name));
        let stranger = stranger.map(|name| unknown("model", name, "configured", models.iter().copied()));
        match stranger {
            Some(message) if self.failures.is_empty() => {
                return Err(format!("{message}: nothing in these stores fits, so nothing was removed"));
            }
            Some(message) => self.notes.push(message),
            None if self.failures.is_empty() => self.notes.push(nothing_fits(which)),
            None => {}
        }
        Ok(self)
    }

    /// How many entries were removed, or would be.
    pub(crate) fn entries(&self) -> u64 {
        self.stores.iter().map(|removed| removed.entries).sum()
    }

    /// Prints it, and what else is to be known beside it.
    pub(super) fn show(&self, json: bool) {
        self.print(json);
        self.notes.iter().for_each(|note| complain(note));
    }

    fn print(&self, json: bool) {
        if json {
            show(&(serde_json::to_string_pretty(self).expect("texts and numbers serialise") + "\n"));
            return;
        }
        let done = if self.dry_run { "would be removed" } else { "removed" };
        for Removed { name, scanned, entries, bytes, keys } in &self.stores {
            show(&format!("store {name}: {entries} of {scanned} entries {done}, {}\n", size(*bytes)));
            keys.iter().take(SHOWN).for_each(|key| show(&format!("  {key}\n")));
            if *entries > SHOWN as u64 && !keys.is_empty() {
                show(&format!("  … and {} more\n", entries - SHOWN as u64));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use throughline::KeyBuilder;

    use super::*;

    fn which(tenant: Option<&str>, model: Option<&str>, prefix: Option<&str>) -> Filter {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (tenant, model, prefix) = (owned(tenant), owned(model), owned(prefix));
        Filter::new(&Which { key: Vec::new(), prefix, tenant, model })
    }

    #[test]
    fn a_mark_stands_for_itself_and_everything_else_is_a_name() {
        assert_eq!(mark("#1f3a5b7c"), [0x1f, 0x3a, 0x5b, 0x7c]);
        for name in ["acme", "", "#1f3a5b7", "#1f3a5b7c1f3a5b7c1f3a5b7c1f3a5b7c", "#+1f3a5b7"] {
            assert_eq!(mark(name), tag(name), "{name}");
        }
    }

    fn removal(entries: u64, failures: &[&str]) -> Removal {
        let removed = Removed { name: "kept".to_owned(), scanned: 9, entries, bytes: 0, keys: Vec::new() };
        let failures = failures.iter().map(|&text| text.to_owned()).collect();
        Removal { dry_run: false, stores: vec![removed], failures, notes: Vec::new() }
    }

    #[test]
    fn an_unknown_model_is_said_to_be_one_unless_it_has_answers_still() {
        let models = ["auto".to_owned(), "fast".to_owned()];
        let judged = |removal: Removal, model: &str| {
            let which = Which { key: Vec::new(), prefix: None, tenant: None, model: Some(model.to_owned()) };
            removal.of_known(&which, models.iter()).map(|removal| removal.notes)
        };
        let unknown = "unknown model `autto`, did you mean `auto`? (configured: auto, fast)";
        assert_eq!(
            judged(removal(0, &[]), "autto"),
            Err(format!("{unknown}: nothing in these stores fits, so nothing was removed"))
        );
        assert_eq!(judged(removal(3, &[]), "autto"), Ok(vec![]));
        assert_eq!(judged(removal(0, &["store other: refused"]), "autto"), Ok(vec![unknown.to_owned()]));
        assert_eq!(judged(removal(0, &["store other: refused"]), "auto"), Ok(vec![]));
        for known in ["auto", "#1f3a5b7c"] {
            let said = format!("nothing matched: no answer in these stores has the model `{known}`");
            assert_eq!(judged(removal(0, &[]), known), Ok(vec![said]));
        }
    }

    #[test]
    fn what_nothing_fits_is_named() {
        let which = |tenant: &str, model: Option<&str>| Which {
            key: vec![KeyBuilder::new("a", 0).build()],
            prefix: Some("3f9c0a1b".to_owned()),
            tenant: Some(tenant.to_owned()),
            model: model.map(str::to_owned),
        };
        assert_eq!(
            nothing_fits(&which("acmee", Some("auto"))),
            "nothing matched: no answer in these stores has this key and a key that begins with 3f9c0a1b and the tenant `acmee` and the \
             model `auto`; `throughline cache stats` shows the marks of the tenants that there are"
        );
        assert!(nothing_fits(&which("", None)).ends_with("begins with 3f9c0a1b and no tenant"));
    }

    #[test]
    fn all_that_is_given_must_apply() {
        let key = KeyBuilder::new("auto", 0).tenant("acme").text("hello").build();
        let text = key.to_string();
        let fits = |filter: Filter| filter.fits(&key);
        assert!(fits(which(Some("acme"), Some("auto"), Some(&text[..8]))));
        assert!(fits(which(Some("acme"), None, None)) && fits(which(None, Some("auto"), None)));
        assert!(!fits(which(Some("acme"), Some("fast"), None)) && !fits(which(Some(""), Some("auto"), None)));
        assert!(!fits(which(None, None, Some("00000000"))));
        let one = Which { key: vec![key], prefix: None, tenant: None, model: None };
        assert!(fits(Filter::new(&one)));
        let other = Which { key: vec![KeyBuilder::new("a", 0).build()], ..one };
        assert!(!fits(Filter::new(&other)));
    }
}
