//! Primitives that were built before telemetry began, and several telemetry instances in one process.
//!
//! The wrappers come from `throughline::testing::specimens`, so a new primitive is in here without a line.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod pile;

use pile::Pile;
use throughline::Context;
use throughline::telemetry::{Clock, Sink};
use throughline::testing::{Recorder, Specimen, Turn, specimens};

/// Runs of the wrapper that an instance has counted, whatever came of them.
fn runs(recorder: &Recorder) -> f64 {
    let labels = [("operation", "level 0")];
    recorder.metric("throughline_primitive_duration_seconds_count", &labels).unwrap_or_default()
}

fn observed() -> Vec<Specimen> {
    specimens().into_iter().filter(|specimen| specimen.observed).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_built_and_run_before_telemetry_began_reports_after_it() {
    for wrapper in observed() {
        let pile = Pile::new(&[wrapper], &[Turn::value(7)]);
        let off = Context::builder().sink(&Sink::without_telemetry(Clock::Tokio)).build();
        pile.flow().run(1, &off).await.unwrap();
        let begun_later = Recorder::new();
        pile.flow().run(2, &begun_later.context()).await.unwrap();
        assert_eq!(runs(&begun_later), 1.0, "{wrapper:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_instance_counts_its_own_runs_and_no_others() {
    for wrapper in observed() {
        let pile = Pile::new(&[wrapper], &[Turn::value(7)]);
        let (one, other) = (Recorder::new(), Recorder::new());
        for recorder in [&one, &other, &one, &one] {
            pile.flow().run(1, &recorder.context()).await.unwrap();
        }
        assert_eq!((runs(&one), runs(&other)), (3.0, 1.0), "{wrapper:?}");
        for recorder in [&one, &other] {
            let in_flight = recorder.metric("throughline_primitive_in_flight", &[]);
            assert_eq!(in_flight, Some(0.0), "{wrapper:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_begins_anew_is_reported_to() {
    for wrapper in observed() {
        let pile = Pile::new(&[wrapper], &[Turn::value(7)]);
        for round in 0..3 {
            let recorder = Recorder::new();
            pile.flow().run(round, &recorder.context()).await.unwrap();
            assert_eq!((runs(&recorder), recorder.spans().is_empty()), (1.0, false), "{wrapper:?}, {round}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn binding_shows_every_series_before_the_first_run() {
    for wrapper in observed() {
        let pile = Pile::new(&[wrapper], &[Turn::value(7)]);
        let recorder = Recorder::new();
        pile.flow().bind(recorder.sink());
        for operation in ["level 0", "work"] {
            let in_flight = recorder.metric("throughline_primitive_in_flight", &[("operation", operation)]);
            assert_eq!(in_flight, Some(0.0), "{wrapper:?}: {operation}");
        }
    }
}
