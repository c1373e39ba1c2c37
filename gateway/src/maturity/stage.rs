//! The stages of a component, and what stands between them.

use std::fmt;

use serde::Serialize;

/// How far a component has come.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// It is being built; nothing is promised.
    Development,
    /// It does what it should where a failure harms nobody.
    Staging,
    /// It is relied upon.
    Production,
}

/// What is asked of a component before it enters a stage.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Gate {
    /// Its tests have run and passed.
    Tests,
    /// Its integration tests have run and passed.
    IntegrationTests,
    /// Formatting, lints and the like have passed.
    Checks,
    /// Enough of its lines are run by tests.
    Coverage,
    /// No more advisories are open than allowed.
    Advisories,
    /// Its benchmarks stay within their budgets.
    Benchmarks,
    /// The documents that it names are there.
    Documentation,
    /// The procedures for operation and rollback that it names are there.
    Runbook,
    /// It has been in the stage before for long enough.
    DaysInStage,
    /// A person has signed.
    SignOff,
}

// === impl Stage ===

impl Stage {
    /// From the first to the last.
    pub(crate) const ALL: [Self; 3] = [Self::Development, Self::Staging, Self::Production];

    /// As it is written in files and labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }

    /// The stage called `name`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// The one after it.
    pub(crate) fn next(self) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| *stage > self)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

// === impl Gate ===

impl Gate {
    /// As it is written in files and labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tests => "tests",
            Self::IntegrationTests => "integration_tests",
            Self::Checks => "checks",
            Self::Coverage => "coverage",
            Self::Advisories => "advisories",
            Self::Benchmarks => "benchmarks",
            Self::Documentation => "documentation",
            Self::Runbook => "runbook",
            Self::DaysInStage => "days_in_stage",
            Self::SignOff => "sign_off",
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
