//! `[criteria]`: what a component must show before it enters a stage.

use std::ops::RangeInclusive;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::stage::{Gate, Stage};
use crate::config::Check;

/// What is asked before each stage but the first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Criteria {
    staging: Vec<Criterion>,
    production: Vec<Criterion>,
}

/// One thing that is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Criterion {
    /// What.
    pub(crate) gate: Gate,
    /// The bound, for gates that have one: a share, a number of advisories, or days.
    pub(crate) bound: f64,
}

/// As it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct CriteriaFile {
    staging: Option<GatesFile>,
    production: Option<GatesFile>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct GatesFile {
    tests: Option<bool>,
    integration_tests: Option<bool>,
    checks: Option<bool>,
    coverage: Option<Spanned<Value>>,
    advisories: Option<Spanned<Value>>,
    benchmarks: Option<bool>,
    documentation: Option<bool>,
    runbook: Option<bool>,
    days_in_stage: Option<Spanned<Value>>,
    sign_off: Option<bool>,
}

/// What is asked where the file does not say otherwise.
struct Defaults {
    on: &'static [Gate],
    coverage: f64,
    days: f64,
}

const STAGING: Defaults = Defaults {
    on: &[Gate::Tests, Gate::Checks, Gate::Coverage, Gate::Advisories, Gate::Documentation],
    coverage: 0.7,
    days: 7.0,
};

const PRODUCTION: Defaults = Defaults {
    on: &[
        Gate::IntegrationTests,
        Gate::Coverage,
        Gate::Advisories,
        Gate::Benchmarks,
        Gate::Runbook,
        Gate::DaysInStage,
        Gate::SignOff,
    ],
    coverage: 0.8,
    days: 7.0,
};

/// The most advisories or days that may be written.
const MOST: f64 = 3653.0;

// === impl Criteria ===

impl Criteria {
    /// What is asked before `stage`; nothing before the first.
    pub(crate) fn before(&self, stage: Stage) -> &[Criterion] {
        match stage {
            Stage::Development => &[],
            Stage::Staging => &self.staging,
            Stage::Production => &self.production,
        }
    }
}

// === impl CriteriaFile ===

impl CriteriaFile {
    /// Checks the section.
    pub(super) fn check(self, check: &mut Check<'_>) -> Criteria {
        Criteria {
            staging: self.staging.unwrap_or_default().check(check, &STAGING),
            production: self.production.unwrap_or_default().check(check, &PRODUCTION),
        }
    }
}

// === impl GatesFile ===

impl GatesFile {
    fn check(self, check: &mut Check<'_>, defaults: &Defaults) -> Vec<Criterion> {
        let switch = |gate, written: Option<bool>| {
            written.unwrap_or_else(|| defaults.on.contains(&gate)).then_some(Criterion { gate, bound: 0.0 })
        };
        let mut bound = |gate: Gate, written: Option<Spanned<Value>>, allowed, default| {
            let bound = match written {
                None => defaults.on.contains(&gate).then_some(default),
                Some(written) => number(check, gate, &written, allowed),
            };
            bound.map(|bound| Criterion { gate, bound })
        };
        let criteria = [
            switch(Gate::Tests, self.tests),
            switch(Gate::IntegrationTests, self.integration_tests),
            switch(Gate::Checks, self.checks),
            bound(Gate::Coverage, self.coverage, 0.0..=1.0, defaults.coverage),
            bound(Gate::Advisories, self.advisories, 0.0..=MOST, 0.0),
            switch(Gate::Benchmarks, self.benchmarks),
            switch(Gate::Documentation, self.documentation),
            switch(Gate::Runbook, self.runbook),
            bound(Gate::DaysInStage, self.days_in_stage, 0.0..=MOST, defaults.days),
            switch(Gate::SignOff, self.sign_off),
        ];
        criteria.into_iter().flatten().collect()
    }
}

/// The bound as written; none for `false`.
fn number(
    check: &mut Check<'_>,
    gate: Gate,
    written: &Spanned<Value>,
    allowed: RangeInclusive<f64>,
) -> Option<f64> {
    let whole = gate != Gate::Coverage;
    let number = match written.get_ref() {
        Value::Boolean(false) => return None,
        Value::Integer(number) => i32::try_from(*number).ok().map(f64::from),
        Value::Float(number) if !whole => Some(*number),
        _ => None,
    };
    if let Some(number) = number.filter(|number| allowed.contains(number)) {
        return Some(number);
    }
    let wanted = if whole { "a whole number from 0 to 3653" } else { "a share from 0 to 1, such as 0.7" };
    check.refuse(
        written.span(),
        format!("`{gate}` is no such bound: write {wanted}, or false to ask for none"),
    );
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maturity::fixture::{accepted, refused};

    fn asked(text: &str, stage: Stage) -> String {
        let maturity = accepted(text);
        let shown = |criterion: &Criterion| format!("{}={}", criterion.gate, criterion.bound);
        maturity.criteria.before(stage).iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn asks_for_something_where_the_file_says_nothing() {
        assert_eq!(asked("", Stage::Development), "");
        assert_eq!(asked("", Stage::Staging), "tests=0 checks=0 coverage=0.7 advisories=0 documentation=0");
        assert_eq!(
            asked("", Stage::Production),
            "integration_tests=0 coverage=0.8 advisories=0 benchmarks=0 runbook=0 days_in_stage=7 sign_off=0"
        );
    }

    #[test]
    fn every_criterion_can_be_set_and_left_out() {
        let text = "[criteria.staging]\ntests = false\nchecks = false\ncoverage = 0.5\nadvisories = 3\n\
                    documentation = false\nsign_off = true\ndays_in_stage = 1\n";
        assert_eq!(asked(text, Stage::Staging), "coverage=0.5 advisories=3 days_in_stage=1 sign_off=0");
        let none = "[criteria.staging]\ntests = false\nchecks = false\ncoverage = false\nadvisories = false\n\
                    documentation = false\n";
        assert_eq!(asked(none, Stage::Staging), "");
    }

    #[test]
    fn bounds_that_mean_nothing_are_refused() {
        assert_eq!(
            refused("[criteria.staging]\ncoverage = 70\n"),
            "m.toml:2:12: `coverage` is no such bound: write a share from 0 to 1, such as 0.7, or false to ask for none\n    \
             2 | coverage = 70\n      |            ^^"
        );
        for wrong in [
            "coverage = true",
            "coverage = nan",
            "advisories = -1",
            "days_in_stage = 0.5",
            "advisories = \"0\"",
        ] {
            assert!(
                refused(&format!("[criteria.staging]\n{wrong}\n")).contains("or false to ask for none"),
                "{wrong}"
            );
        }
        assert!(refused("[criteria.staging]\ncovrage = 0.7\n").contains("did you mean `coverage`?"));
        assert!(refused("[criteria.prod]\n").contains("unknown key `prod`"));
    }
}
