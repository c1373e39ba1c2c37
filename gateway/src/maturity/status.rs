//! Where every component stands: what an evaluation finds, for pages, metrics and machines.

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::component::About;
use super::evidence::Kind;
use super::moment;
use super::stage::{Gate, Stage};

/// Where a project stands.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    /// What it is called.
    pub(crate) title: String,
    /// When it was evaluated.
    #[serde(serialize_with = "rfc3339")]
    pub(crate) evaluated: SystemTime,
    /// Whether every claim holds.
    pub(crate) holds: bool,
    /// The components by name.
    pub(crate) components: Vec<ComponentStatus>,
}

/// Where a component stands.
#[derive(Debug, Serialize)]
pub(crate) struct ComponentStatus {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) about: About,
    /// The stage that it claims.
    pub(crate) claimed: Stage,
    /// The furthest stage, up to the claimed one, that the evidence supports.
    pub(crate) supported: Stage,
    /// Whether that is the claimed one.
    pub(crate) holds: bool,
    /// The stage after the claimed one.
    pub(crate) next: Option<Stage>,
    /// Whether everything that is asked before the next stage is shown.
    pub(crate) ready: bool,
    /// The share of its lines that tests run, where it is known.
    pub(crate) coverage: Option<f64>,
    /// Its source files with their lines, as far as they are known.
    pub(crate) files: Vec<FileStatus>,
    /// Everything that is asked of it, stage by stage.
    pub(crate) gates: Vec<GateStatus>,
    /// The reports that it is judged by.
    pub(crate) evidence: Vec<EvidenceStatus>,
    /// When it entered its stages.
    pub(crate) promotions: Vec<Promotion>,
}

/// A source file's coverage.
#[derive(Debug, Serialize)]
pub(crate) struct FileStatus {
    pub(crate) path: String,
    pub(crate) lines_run: u64,
    pub(crate) lines: u64,
}

/// Whether a gate is open.
#[derive(Debug, Serialize)]
pub(crate) struct GateStatus {
    /// Before which stage it stands.
    pub(crate) stage: Stage,
    pub(crate) gate: Gate,
    pub(crate) passed: bool,
    /// The number that decided, or why there is none.
    pub(crate) why: String,
}

/// A report and whether it counts.
#[derive(Debug, Serialize)]
pub(crate) struct EvidenceStatus {
    pub(crate) kind: Kind,
    pub(crate) path: String,
    /// Its date, if it can be read.
    #[serde(serialize_with = "optional_rfc3339")]
    pub(crate) date: Option<SystemTime>,
    /// Why it does not count.
    pub(crate) problem: Option<String>,
}

/// An entry into a stage.
#[derive(Debug, Serialize)]
pub(crate) struct Promotion {
    pub(crate) stage: Stage,
    #[serde(serialize_with = "optional_rfc3339")]
    pub(crate) since: Option<SystemTime>,
    /// Who has signed, and when.
    pub(crate) signed: Option<String>,
}

fn rfc3339<S: Serializer>(moment: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&moment::shown(*moment))
}

#[expect(clippy::ref_option, reason = "serde hands the field over as it is")]
fn optional_rfc3339<S: Serializer>(moment: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    moment.map(moment::shown).serialize(serializer)
}

// === impl Status ===

impl Status {
    /// How many components claim a stage.
    pub(crate) fn claiming(&self, stage: Stage) -> usize {
        self.components.iter().filter(|component| component.claimed == stage).count()
    }

    /// The components whose claims do not hold.
    pub(crate) fn broken(&self) -> impl Iterator<Item = &ComponentStatus> {
        self.components.iter().filter(|component| !component.holds)
    }
}

// === impl ComponentStatus ===

impl ComponentStatus {
    /// What is asked before `stage`.
    pub(crate) fn gates_before(&self, stage: Stage) -> impl Iterator<Item = &GateStatus> {
        self.gates.iter().filter(move |gate| gate.stage == stage)
    }

    /// How many gates before `stage` are open, and how many there are.
    pub(crate) fn count(&self, stage: Stage) -> (usize, usize) {
        let passed = self.gates_before(stage).filter(|gate| gate.passed).count();
        (passed, self.gates_before(stage).count())
    }
}
