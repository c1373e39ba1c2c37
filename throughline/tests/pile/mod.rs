//! Wrappers piled up over scripted work, as real workflows.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]
#![allow(clippy::cast_possible_truncation, reason = "what a test counts is little")]
#![allow(dead_code, reason = "not every test needs all of it")]

use std::time::Duration;

use throughline::telemetry::Scrape;
use throughline::testing::{Built, Place, Recorder, Scene, Script, Specimen, Told, Turn};
use throughline::{Boxed, Workflow};

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) struct Pile {
    wrappers: Vec<Specimen>,
    built: Vec<Built>,
    pub(crate) script: Script<u64>,
    pub(crate) recorder: Recorder,
}

impl Pile {
    /// Wrappers, outermost first.
    pub(crate) fn new(wrappers: &[Specimen], turns: &[Turn<u64>]) -> Self {
        let script = turns.iter().fold(Script::new("work"), |script, turn| script.then(turn.clone()));
        let mut built: Vec<Built> = Vec::new();
        for (level, wrapper) in (0..).zip(wrappers).collect::<Vec<_>>().into_iter().rev() {
            let inner = built.last().map_or_else(|| script.workflow().boxed(), |inner| inner.flow.clone());
            built.push((wrapper.wrap)(inner, &Place { operation: operation(level), level }).unwrap());
        }
        Self { wrappers: wrappers.to_vec(), built, script, recorder: Recorder::new() }
    }

    /// The whole pile.
    pub(crate) fn flow(&self) -> &Workflow<Boxed<u64, u64>> {
        &self.built.last().unwrap().flow
    }

    /// What metrics say of runs and events.
    pub(crate) fn told(&self) -> Told {
        let mut told = Told::default();
        for sample in self.counts().samples() {
            let label = |name: &str| sample.labels.get(name).map(String::as_str).unwrap_or_default();
            let Some(level) = self.level(label("operation")).filter(|_| sample.value > 0.0) else { continue };
            let (counts, value) = match sample.name.as_str() {
                "throughline_primitive_duration_seconds_count" => (&mut told.runs, label("outcome")),
                "throughline_primitive_events_total" => (&mut told.events, label("event")),
                _ => continue,
            };
            *counts.entry((level, value.to_owned().leak())).or_default() += count(sample.value);
        }
        told
    }

    /// The generic families without their buckets: reading whole pages is most of what these tests cost.
    fn counts(&self) -> Scrape {
        let page = self.recorder.sink().render();
        let wanted = |line: &&str| line.starts_with("throughline_primitive_") && !line.contains("_bucket{");
        Scrape::parse(&page.lines().filter(wanted).map(|line| format!("{line}\n")).collect::<String>())
    }

    fn level(&self, name: &str) -> Option<u32> {
        let work = u32::try_from(self.wrappers.len()).unwrap();
        (0..work).find(|level| operation(*level) == name).or((name == "work").then_some(work))
    }

    /// What the model says, without the runs of wrappers that are not observed.
    pub(crate) fn expected(&self, scene: &Scene) -> Told {
        let mut told = scene.told();
        told.runs.retain(|(level, _), _| {
            self.wrappers.get(*level as usize).is_none_or(|wrapper| wrapper.observed)
        });
        told
    }

    /// Work in the background has had its time, and nothing is held or running any more.
    pub(crate) async fn assert_at_rest(&self, what: &str) {
        tokio::time::sleep(millis(1)).await;
        assert_eq!(self.script.running(), 0, "{what}: calls run on");
        for (built, wrapper) in self.built.iter().rev().zip(&self.wrappers) {
            assert_eq!((built.held)(), 0, "{what}: {} holds on to something", wrapper.primitive);
        }
        let in_flight = self.counts().sum("throughline_primitive_in_flight", &[]);
        assert_eq!(in_flight.unwrap_or_default(), 0.0, "{what}: runs are counted as in flight");
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count is a small whole number"
)]
fn count(value: f64) -> u64 {
    value as u64
}

fn operation(level: u32) -> String {
    format!("level {level}")
}

/// A panic that a test asks for says nothing.
pub(crate) fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        if info.payload_as_str() != Some("the script says so") {
            eprintln!("{info}");
        }
    }));
}
