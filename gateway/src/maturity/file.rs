//! `maturity.toml`: what a project has, how far each part of it claims to be, and where the evidence is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::component::{Component, ComponentFile};
use super::criteria::{Criteria, CriteriaFile};
use super::evidence::{Kind, Reports};
use crate::config::{Check, ConfigErrors, document};

/// The file that is looked for when none is named.
pub(crate) const DEFAULT_FILE: &str = "maturity.toml";

/// Everything that the file says, defaults filled in.
#[derive(Debug)]
pub(crate) struct Maturity {
    /// What the report is headed with. Default: Maturity.
    pub(crate) title: String,
    /// The folder of the file, where its paths begin.
    pub(crate) dir: PathBuf,
    /// What is asked before each stage.
    pub(crate) criteria: Criteria,
    /// The components by name; at least one.
    pub(crate) components: BTreeMap<String, Component>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct MaturityFile {
    title: Option<Spanned<String>>,
    #[serde(default)]
    criteria: CriteriaFile,
    #[serde(default)]
    evidence: EvidenceFile,
    #[serde(default)]
    max_age: MaxAgeFile,
    #[serde(default)]
    components: BTreeMap<Spanned<String>, ComponentFile>,
}

/// `[evidence]`: the reports that count for every component which names none of its own.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct EvidenceFile {
    tests: Option<Vec<String>>,
    coverage: Option<Vec<String>>,
    advisories: Option<Vec<String>>,
    benchmarks: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct MaxAgeFile {
    tests: Option<Spanned<Value>>,
    coverage: Option<Spanned<Value>>,
    advisories: Option<Spanned<Value>>,
    benchmarks: Option<Spanned<Value>>,
}

/// What components share.
pub(super) struct Shared {
    evidence: EvidenceFile,
    max_age: BTreeMap<Kind, Duration>,
}

// === impl Maturity ===

impl Maturity {
    /// Reads a file.
    ///
    /// # Errors
    /// All that is wrong with the file.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigErrors> {
        document::load(path, &|_| None, MaturityFile::check)
    }

    /// Every file that its evaluation depends on, but itself.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        let of = |component: &Component| {
            let reports = component.reports.values().flat_map(|reports| &reports.paths);
            let documents = component.documentation.iter().chain(&component.runbook);
            reports.chain(documents).map(|path| self.dir.join(path)).collect::<Vec<_>>()
        };
        self.components.values().flat_map(of).collect::<BTreeSet<_>>().into_iter()
    }

    /// Reads a text. `name` stands for it in errors, and is the path that evidence is looked for beside.
    ///
    /// # Errors
    /// All that is wrong with the text.
    #[cfg(test)]
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, ConfigErrors> {
        document::parse(text, name, &|_| None, MaturityFile::check)
    }
}

// === impl MaturityFile ===

impl MaturityFile {
    fn check(self, check: &mut Check<'_>) -> Maturity {
        if self.components.is_empty() {
            check.refuse_all("there is no component: add at least one [components.NAME]");
        }
        let title = self.title.map(|written| check.text("title", written));
        let criteria = self.criteria.check(check);
        let shared = Shared { evidence: self.evidence, max_age: self.max_age.check(check) };
        Maturity {
            title: title.unwrap_or_else(|| "Maturity".to_owned()),
            dir: check.dir.to_owned(),
            criteria,
            components: check
                .named("component", self.components, |check, _, file| file.check(check, &shared)),
        }
    }
}

// === impl MaxAgeFile ===

impl MaxAgeFile {
    fn check(&self, check: &mut Check<'_>) -> BTreeMap<Kind, Duration> {
        let written = |kind| match kind {
            Kind::Tests => &self.tests,
            Kind::Coverage => &self.coverage,
            Kind::Advisories => &self.advisories,
            Kind::Benchmarks => &self.benchmarks,
        };
        let age = |kind: Kind| check.age(kind.name(), written(kind).as_ref(), kind.default_max_age());
        Kind::ALL.into_iter().zip(Kind::ALL.map(age)).collect()
    }
}

// === impl EvidenceFile ===

impl EvidenceFile {
    fn of(&self, kind: Kind) -> Option<&Vec<String>> {
        match kind {
            Kind::Tests => self.tests.as_ref(),
            Kind::Coverage => self.coverage.as_ref(),
            Kind::Advisories => self.advisories.as_ref(),
            Kind::Benchmarks => self.benchmarks.as_ref(),
        }
    }
}

// === impl Shared ===

impl Shared {
    /// The reports of a component which names `own`.
    pub(super) fn reports(&self, own: &EvidenceFile) -> BTreeMap<Kind, Reports> {
        let reports = |kind| {
            let paths = own.of(kind).or_else(|| self.evidence.of(kind)).cloned().unwrap_or_default();
            (kind, Reports { paths, max_age: self.max_age[&kind] })
        };
        Kind::ALL.into_iter().map(reports).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maturity::fixture::{accepted, refused};
    use crate::maturity::moment::DAY;

    #[test]
    fn a_component_takes_the_evidence_of_all_unless_it_names_its_own() {
        let maturity = accepted(
            "title = \"T\"\n[evidence]\ntests = [\"a.xml\"]\ncoverage = [\"a.info\"]\n[max_age]\ntests = \"2d\"\n\
             [components.b]\nstage = \"development\"\ndescription = \"B\"\nevidence.tests = [\"b.xml\", \"c.xml\"]\n",
        );
        let of = |name: &str, kind| maturity.components[name].reports[&kind].clone();
        assert_eq!(of("a", Kind::Tests), Reports { paths: vec!["a.xml".into()], max_age: 2 * DAY });
        assert_eq!(of("b", Kind::Tests).paths, ["b.xml", "c.xml"]);
        assert_eq!(of("b", Kind::Coverage), Reports { paths: vec!["a.info".into()], max_age: 30 * DAY });
        assert_eq!(of("a", Kind::Advisories), Reports { paths: vec![], max_age: 7 * DAY });
        assert_eq!(maturity.title, "T");
    }

    #[test]
    fn a_file_without_components_is_refused() {
        let said = Maturity::parse("title = \"T\"\n", "m.toml").unwrap_err().to_string();
        assert_eq!(said, "m.toml: there is no component: add at least one [components.NAME]");
    }

    #[test]
    fn what_is_not_known_is_refused_with_its_place_and_a_cure() {
        for (text, said) in [
            ("titel = \"T\"\n", "m.toml:1:1: unknown key `titel`, did you mean `title`? (allowed: title, "),
            ("evidence.test = []\n", "m.toml:1:10: unknown key `test`, did you mean `tests`?"),
            ("evidence.tests = \"a\"\n", "m.toml:1:18: expected a list in [ ], found text"),
            (
                "max_age.tests = \"7 days\"\n",
                "m.toml:1:17: `tests` is not an age: write a whole number and h, d or w",
            ),
            ("max_age.tests = \"0d\"\n", "m.toml:1:17: `tests` is 0d: write 1h to 3653d"),
            (
                "[components.\"a b\"]\ndescription = \"B\"\nstage = \"staging\"\n",
                "m.toml:1:13: `a b` cannot name a component",
            ),
        ] {
            let found = refused(text);
            assert!(found.starts_with(said), "{found}");
        }
    }
}
