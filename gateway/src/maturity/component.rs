//! `[components.NAME]`: a part of the project and what it claims.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use toml::{Spanned, Value};

use super::evidence::{Kind, Reports};
use super::file::{EvidenceFile, Shared};
use super::moment;
use super::stage::Stage;
use crate::config::Check;

/// A part of the project.
#[derive(Debug)]
pub(crate) struct Component {
    /// What is said about it.
    pub(crate) about: About,
    /// The stage that it claims.
    pub(crate) stage: Stage,
    /// Its source files and folders, which its coverage is counted over. Default: all of the report.
    pub(crate) sources: Vec<String>,
    /// Patterns of its tests. Default: all of the report.
    pub(crate) tests: Vec<String>,
    /// Patterns of its integration tests. Default: none.
    pub(crate) integration_tests: Vec<String>,
    /// Patterns of checks in the test reports, such as formatting and lints. Default: none.
    pub(crate) checks: Vec<String>,
    /// Documents that must be there. Default: none.
    pub(crate) documentation: Vec<String>,
    /// Procedures for operation and rollback that must be there. Default: none.
    pub(crate) runbook: Vec<String>,
    /// What its benchmarks may cost at most, by their names. Default: none.
    pub(crate) budgets: BTreeMap<String, f64>,
    /// When it entered its stages. Default: never.
    pub(crate) since: BTreeMap<Stage, SystemTime>,
    /// Who has signed for which stage. Default: nobody.
    pub(crate) sign_off: BTreeMap<Stage, SignOff>,
    /// Where the reports are.
    pub(crate) reports: BTreeMap<Kind, Reports>,
}

/// What is said about a component, for the report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct About {
    /// What it is for, in one sentence.
    pub(crate) description: String,
    /// What it belongs to. Default: nothing.
    pub(crate) group: Option<String>,
    /// Who answers for it. Default: nobody.
    pub(crate) owner: Option<String>,
    /// What it does. Default: none.
    pub(crate) features: Vec<String>,
    /// What it needs. Default: none.
    pub(crate) dependencies: Vec<String>,
    /// What is planned. Default: none.
    pub(crate) next_steps: Vec<String>,
}

/// A signature.
#[derive(Debug)]
pub(crate) struct SignOff {
    /// Whose.
    pub(crate) by: String,
    /// Of which day.
    pub(crate) on: SystemTime,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct ComponentFile {
    description: Spanned<String>,
    stage: Spanned<String>,
    group: Option<Spanned<String>>,
    owner: Option<Spanned<String>>,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    dependencies: Vec<String>,
    #[serde(default)]
    next_steps: Vec<String>,
    #[serde(default)]
    sources: Vec<String>,
    #[serde(default)]
    tests: Vec<String>,
    #[serde(default)]
    integration_tests: Vec<String>,
    #[serde(default)]
    checks: Vec<String>,
    #[serde(default)]
    documentation: Vec<String>,
    #[serde(default)]
    runbook: Vec<String>,
    #[serde(default)]
    budgets: BTreeMap<String, Spanned<f64>>,
    #[serde(default)]
    since: PromotionsFile,
    #[serde(default)]
    sign_off: SignOffsFile,
    #[serde(default)]
    evidence: EvidenceFile,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct PromotionsFile {
    staging: Option<Spanned<Value>>,
    production: Option<Spanned<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct SignOffsFile {
    staging: Option<SignOffFile>,
    production: Option<SignOffFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct SignOffFile {
    by: Spanned<String>,
    on: Spanned<Value>,
}

// === impl ComponentFile ===

impl ComponentFile {
    /// Checks the section.
    pub(super) fn check(self, check: &mut Check<'_>, shared: &Shared) -> Component {
        check.known("stage", &self.stage, "stages", Stage::ALL.map(Stage::name));
        let mut optional =
            |key: &str, written: Option<Spanned<String>>| written.map(|written| check.text(key, written));
        let about = About {
            group: optional("group", self.group),
            owner: optional("owner", self.owner),
            description: check.text("description", self.description),
            features: self.features,
            dependencies: self.dependencies,
            next_steps: self.next_steps,
        };
        Component {
            about,
            stage: Stage::named(self.stage.get_ref()).unwrap_or(Stage::Development),
            sources: self.sources,
            tests: self.tests,
            integration_tests: self.integration_tests,
            checks: self.checks,
            documentation: self.documentation,
            runbook: self.runbook,
            budgets: budgets(check, self.budgets),
            since: self.since.check(check),
            sign_off: self.sign_off.check(check),
            reports: shared.reports(&self.evidence),
        }
    }
}

fn budgets(check: &mut Check<'_>, written: BTreeMap<String, Spanned<f64>>) -> BTreeMap<String, f64> {
    let mut budget = |(name, written): (String, Spanned<f64>)| {
        let budget = check.number("the budget", Some(&written), 0.0..=f64::MAX, "a number of 0 or more", 0.0);
        (name, budget)
    };
    written.into_iter().map(&mut budget).collect()
}

fn date(check: &mut Check<'_>, key: &str, written: &Spanned<Value>) -> SystemTime {
    let found = match written.get_ref() {
        Value::Datetime(date) => moment::of(date),
        Value::String(text) => moment::moment(text),
        _ => None,
    };
    found.unwrap_or_else(|| {
        let problem = format!("`{key}` is not a date from 1970 on: write one such as 2026-11-27");
        check.refuse(written.span(), problem);
        SystemTime::UNIX_EPOCH
    })
}

// === impl PromotionsFile ===

impl PromotionsFile {
    fn check(&self, check: &mut Check<'_>) -> BTreeMap<Stage, SystemTime> {
        let mut since = BTreeMap::new();
        for (stage, written) in [(Stage::Staging, &self.staging), (Stage::Production, &self.production)] {
            if let Some(written) = written {
                since.insert(stage, date(check, stage.name(), written));
            }
        }
        if let (Some(first), Some(then), Some(written)) =
            (since.get(&Stage::Staging), since.get(&Stage::Production), &self.production)
            && then < first
        {
            let problem = format!("`production` begins before `staging`, on {}", moment::day(*first));
            check.refuse(written.span(), problem);
        }
        since
    }
}

// === impl SignOffsFile ===

impl SignOffsFile {
    fn check(self, check: &mut Check<'_>) -> BTreeMap<Stage, SignOff> {
        let mut sign_offs = BTreeMap::new();
        for (stage, written) in [(Stage::Staging, self.staging), (Stage::Production, self.production)] {
            if let Some(SignOffFile { by, on }) = written {
                let on = date(check, "on", &on);
                sign_offs.insert(stage, SignOff { by: check.text("by", by), on });
            }
        }
        sign_offs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maturity::fixture::{accepted, refused};

    fn component(more: &str) -> String {
        format!("[components.c]\ndescription = \"C\"\nstage = \"staging\"\n{more}\n")
    }

    #[test]
    fn dates_may_be_quoted_or_not() {
        let maturity = accepted(&component(
            "since = { staging = 2026-11-01, production = \"2026-11-20\" }\nsign_off.staging = { by = \"Ada\", on = 2026-11-02 }",
        ));
        let component = &maturity.components["c"];
        let days: Vec<_> = component.since.values().map(|since| moment::day(*since)).collect();
        assert_eq!(days, ["2026-11-01", "2026-11-20"]);
        let signed = &component.sign_off[&Stage::Staging];
        assert_eq!((signed.by.as_str(), moment::day(signed.on).as_str()), ("Ada", "2026-11-02"));
    }

    #[test]
    fn what_means_nothing_is_refused_with_its_place() {
        assert_eq!(
            refused("[components.c]\ndescription = \"C\"\nstage = \"stagin\"\n"),
            "m.toml:3:9: unknown stage `stagin`, did you mean `staging`? (stages: development, staging, production)\n    \
             3 | stage = \"stagin\"\n      |         ^^^^^^^^"
        );
        for (more, said) in [
            ("ownr = \"x\"", "m.toml:4:1: unknown key `ownr`, did you mean `owner`?"),
            ("owner = \"\"", "m.toml:4:9: `owner` is empty: write some text"),
            (
                "since = { staging = 7 }",
                "m.toml:4:21: `staging` is not a date from 1970 on: write one such as 2026-11-27",
            ),
            ("since = { staging = \"soon\" }", "m.toml:4:21: `staging` is not a date"),
            (
                "since = { staging = 2026-02-02, production = 2026-01-01 }",
                "m.toml:4:46: `production` begins before `staging`, on 2026-02-02",
            ),
            ("sign_off.staging = { by = \"Ada\" }", "m.toml:4:20: missing key `on`"),
            ("budgets = { \"a\" = -1.0 }", "m.toml:4:19: `the budget` is -1: write a number of 0 or more"),
        ] {
            let found = refused(&component(more));
            assert!(found.starts_with(said), "{found}");
        }
        assert!(refused("[components.c]\nstage = \"staging\"\n").contains("missing key `description`"));
    }
}
