//! What a check found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) job: String,
    /// How many names of series are needed.
    pub(super) needed: usize,
    pub(super) missing: Vec<Missing>,
    /// Not there, which is good news.
    pub(super) quiet: Vec<String>,
    /// How many rules there should be.
    pub(super) rules: usize,
    pub(super) not_loaded: Vec<String>,
    /// Rules that Prometheus cannot evaluate, and why.
    pub(super) failing: BTreeMap<String, String>,
}

/// A name without series.
#[derive(Debug, Serialize)]
pub(super) struct Missing {
    pub(super) name: String,
    /// When it appears.
    pub(super) appears: &'static str,
    /// Alerts and panels that see nothing, or too little, without it.
    pub(super) blind: Vec<String>,
}

// === impl Report ===

impl Report {
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and numbers serialise") + "\n"
    }

    /// What is missing, in short; `None` when nothing is.
    pub(super) fn shortfall(&self) -> Option<String> {
        let counts = [
            (self.missing.len(), "series missing"),
            (self.not_loaded.len(), "rules not loaded"),
            (self.failing.len(), "rules failing"),
        ];
        let said: Vec<_> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!said.is_empty()).then(|| said.join(", "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for missing in &self.missing {
            writeln!(f, "missing {}: it appears {}", missing.name, missing.appears)?;
            for reader in &missing.blind {
                writeln!(f, "    blind: {reader}")?;
            }
        }
        if !self.not_loaded.is_empty() {
            writeln!(f, "not loaded: are the pack's rules in `rule_files`, and is it of this version?")?;
            for name in &self.not_loaded {
                writeln!(f, "    rule {name}")?;
            }
        }
        for (name, error) in &self.failing {
            writeln!(f, "failing: rule {name}: {error}")?;
        }
        for name in &self.quiet {
            writeln!(f, "no {name}: it is born with its first event, so there was none")?;
        }
        let found = self.needed - self.missing.len() - self.quiet.len();
        writeln!(
            f,
            "job {}: {found} of {} series are there, {} of {} rules are loaded",
            self.job,
            self.needed,
            self.rules - self.not_loaded.len(),
            self.rules
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_who_is_blind_and_what_to_do() {
        let missing = Missing {
            name: "cache_store_up".to_owned(),
            appears: "once a model's `cache` has a `store`",
            blind: vec!["alert CacheStoreDown".to_owned()],
        };
        let report = Report {
            job: "throughline".to_owned(),
            needed: 3,
            missing: vec![missing],
            quiet: vec!["router_errors_total".to_owned()],
            rules: 2,
            not_loaded: vec!["CircuitOpen".to_owned()],
            failing: BTreeMap::new(),
        };
        assert_eq!(
            report.to_string(),
            "missing cache_store_up: it appears once a model's `cache` has a `store`\n    \
             blind: alert CacheStoreDown\n\
             not loaded: are the pack's rules in `rule_files`, and is it of this version?\n    rule CircuitOpen\n\
             no router_errors_total: it is born with its first event, so there was none\n\
             job throughline: 1 of 3 series are there, 1 of 2 rules are loaded\n"
        );
        assert_eq!(report.shortfall().as_deref(), Some("1 series missing, 1 rules not loaded"));
        assert_eq!(Report::default().shortfall(), None);
    }
}
