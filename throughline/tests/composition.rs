//! Every wrapper around every other: what comes out, when, after how many attempts, and what the metrics say.
//!
//! The wrappers and a model of each come from `throughline::testing::specimens`, so a new primitive is in here
//! without a line. Time is virtual, so the real thing and the model agree to the millisecond.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod pile;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use pile::{Pile, millis, quiet};
use throughline::testing::{Ending, How, Scene, Specimen, Turn, specimens};
use throughline::{Error, Kind};
use tokio::time::{Instant, timeout};

/// When a run is dropped that does not end: long after everything that could still happen has happened.
const PATIENCE: Duration = Duration::from_secs(3600);

fn upstream() -> Error {
    Error::new(Kind::Upstream, "503")
}

/// What the innermost work does, call by call.
fn scripts() -> Vec<(&'static str, Vec<Turn<u64>>)> {
    let fatal = || Error::new(Kind::Upstream, "401").fatal();
    vec![
        ("succeeds", vec![Turn::value(7)]),
        ("succeeds after a while", vec![Turn::value(7).after(millis(310))]),
        ("is slow", vec![Turn::value(7).after(millis(5_230))]),
        ("hangs", vec![Turn::hang()]),
        ("hangs once", vec![Turn::hang(), Turn::value(8).after(millis(20))]),
        ("fails in a way that passes", vec![Turn::fail(upstream()), Turn::value(8)]),
        ("fails late in a way that passes", vec![Turn::fail(upstream()).after(millis(170)), Turn::value(8)]),
        ("always fails", vec![Turn::fail(upstream())]),
        ("always fails, slowly", vec![Turn::fail(upstream()).after(millis(620))]),
        ("fails for good", vec![Turn::fail(fatal()), Turn::value(8)]),
        ("is fed nonsense", vec![Turn::fail(Error::new(Kind::InvalidInput, "no such model"))]),
        ("is limited", vec![Turn::fail(Error::new(Kind::RateLimited, "slow down")), Turn::value(8)]),
        ("panics", vec![Turn::panic()]),
        ("panics late", vec![Turn::panic().after(millis(40))]),
        ("panics on the second try", vec![Turn::fail(upstream()), Turn::panic()]),
    ]
}

/// When the caller goes away: before anything ends, between two attempts, never.
const DROPS: [Option<Duration>; 3] = [Some(millis(5)), Some(millis(457)), None];

/// Runs the real thing and the model side by side, twice in a row, and compares.
async fn compare(wrappers: &[Specimen], name: &str, turns: &[Turn<u64>], dropped: Option<Duration>) {
    let names: Vec<_> = wrappers.iter().map(|wrapper| wrapper.primitive).collect();
    let what = format!("{} around work that {name}, dropped {dropped:?}", names.join(" around "));
    let (pile, mut scene) = (Pile::new(wrappers, turns), Scene::new(wrappers, turns));
    let begun = Instant::now();
    for time in ["first", "second"] {
        let what = format!("{what}, {time} run");
        let at = begun.elapsed();
        let limit = dropped.unwrap_or(PATIENCE);
        let expected = scene.play(at, Some(at + limit));
        let (how, took) = run(&pile, dropped).await;
        assert_eq!(how, expected.as_ref().map(|ending| ending.how.clone()), "{what}: {scene:?}");
        let expected_time = expected.map_or(limit, |Ending { at: end, .. }| end - at);
        assert_eq!(took, expected_time, "{what}: {scene:?}");
        pile.assert_at_rest(&what).await;
        assert_eq!(pile.script.calls(), scene.calls(), "{what}: attempts: {scene:?}");
        assert_eq!(pile.told(), pile.expected(&scene), "{what}: {scene:?}");
    }
}

/// Runs a pile once: how it ended and when, or `None` when it was dropped.
async fn run(pile: &Pile, dropped: Option<Duration>) -> (Option<How>, Duration) {
    let (start, cx) = (Instant::now(), pile.recorder.context());
    let run = AssertUnwindSafe(pile.flow().run(1, &cx)).catch_unwind();
    let how = match timeout(dropped.unwrap_or(PATIENCE), run).await {
        Err(_) => None,
        Ok(Err(_)) => Some(How::Panic),
        Ok(Ok(Ok(value))) => Some(How::Value(value)),
        Ok(Ok(Err(error))) => Some(How::Error { kind: error.kind(), retryable: error.is_retryable() }),
    };
    (how, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn every_wrapper_does_what_its_model_says() {
    quiet();
    for wrapper in specimens() {
        for (name, turns) in scripts() {
            for dropped in DROPS {
                compare(&[wrapper], name, &turns, dropped).await;
            }
        }
    }
}

/// Pairs whose outer wrapper has an odd or an even place in the catalogue, so that two threads share the work.
async fn every_pair(parity: usize) {
    quiet();
    for outer in specimens().into_iter().skip(parity).step_by(2) {
        for inner in specimens() {
            for (name, turns) in scripts() {
                for dropped in DROPS {
                    compare(&[outer, inner], name, &turns, dropped).await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_ordered_pair_of_wrappers_does_what_their_models_say() {
    every_pair(0).await;
}

#[tokio::test(start_paused = true)]
async fn every_other_ordered_pair_of_wrappers_does_what_their_models_say() {
    every_pair(1).await;
}

/// The `PRIMITIVE` of every stage in the library's source.
fn declared(folder: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            declared(&path, found);
        } else {
            let source = std::fs::read_to_string(&path).unwrap();
            let constants = source.split("const PRIMITIVE: &'static str = \"").skip(1);
            found.extend(constants.map(|rest| rest.split('"').next().unwrap_or_default().to_owned()));
        }
    }
}

#[test]
fn every_primitive_is_in_the_catalogue() {
    let mut found = Vec::new();
    declared(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 5, "{found:?}: has the declaration another form?");
    let known: Vec<_> = specimens().iter().map(|specimen| specimen.primitive).collect();
    // A step is what stands inside all of them.
    let missing: Vec<_> =
        found.iter().filter(|name| *name != "step" && !known.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "no specimen in testing/specimens for {missing:?}");
}
