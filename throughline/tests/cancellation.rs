//! Runs that are dropped at every point where they can be: nothing stays behind, and they count as cancelled.
//!
//! A run is polled once, twice, three times … with time moving on in between, and dropped. The wrappers come from
//! `throughline::testing::specimens`, so a new primitive is in here without a line.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod pile;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use pile::{Pile, millis, quiet};
use throughline::testing::{Specimen, Turn, specimens};
use throughline::{Error, Kind, Result};

/// More polls than any of the runs here takes.
const ENOUGH: usize = 60;

type Running<'a> = Pin<Box<dyn Future<Output = Result<u64>> + 'a>>;

/// Work that gives every wrapper something to wait for.
fn scripts() -> Vec<(&'static str, Vec<Turn<u64>>)> {
    let busy = || Error::new(Kind::Upstream, "503");
    vec![
        ("takes a while", vec![Turn::value(7).after(millis(90))]),
        ("hangs", vec![Turn::hang()]),
        ("fails, and hangs when tried again", vec![Turn::fail(busy()).after(millis(30)), Turn::hang()]),
        ("always fails", vec![Turn::fail(busy()).after(millis(30))]),
    ]
}

/// Polls once and lets time move on, for those that wait for it and for tasks in the background.
async fn poll(run: &mut Running<'_>, step: Duration) -> Poll<Result<u64>> {
    let polled = run.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
    tokio::time::advance(step).await;
    tokio::task::yield_now().await;
    polled
}

fn start(pile: &Pile, input: u64) -> Running<'_> {
    Box::pin(async move { pile.flow().run(input, &pile.recorder.context()).await })
}

/// Runs that ended as `outcome`, over all that the outermost observed wrapper has seen.
fn ended(pile: &Pile, outcome: &str) -> u64 {
    let level = |((level, name), count): (&(u32, &'static str), &u64)| {
        (*level == 0 && *name == outcome).then_some(*count)
    };
    pile.told().runs.iter().filter_map(level).sum()
}

async fn one_run(wrappers: &[Specimen], name: &str, turns: &[Turn<u64>], step: Duration) {
    let names: Vec<_> = wrappers.iter().map(|wrapper| wrapper.primitive).collect();
    for polls in 0..ENOUGH {
        let what = format!("{} around work that {name}, {polls} polls of {step:?}", names.join(" around "));
        let pile = Pile::new(wrappers, turns);
        let mut run = start(&pile, 1);
        let mut done = false;
        for _ in 0..polls {
            done = poll(&mut run, step).await.is_ready();
            if done {
                break;
            }
        }
        drop(run);
        pile.assert_at_rest(&what).await;
        let cancelled = u64::from(!done && polls > 0 && wrappers[0].observed);
        assert_eq!(ended(&pile, "cancelled"), cancelled, "{what}");
        if done {
            return;
        }
    }
}

/// Three runs at once, of which each in turn goes away first, while the others wait for it or for their turn.
async fn a_crowd(wrapper: Specimen, name: &str, turns: &[Turn<u64>]) {
    for first_to_go in 0..3 {
        for polls in [1, 2, 5] {
            let what = format!(
                "three runs of {} around work that {name}; run {first_to_go} goes after {polls} polls",
                wrapper.primitive
            );
            let pile = Pile::new(&[wrapper], turns);
            let mut runs: Vec<_> = (0..3).map(|_| Some(start(&pile, 1))).collect();
            for round in 0..polls + 3 {
                if round == polls {
                    runs[first_to_go] = None;
                }
                for slot in &mut runs {
                    if let Some(run) = slot
                        && poll(run, millis(7)).await.is_ready()
                    {
                        *slot = None;
                    }
                }
            }
            drop(runs);
            pile.assert_at_rest(&what).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_at_any_point_leaves_nothing_behind() {
    quiet();
    for wrapper in specimens() {
        for (name, turns) in scripts() {
            for step in [millis(3), millis(101)] {
                one_run(&[wrapper], name, &turns, step).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_is_dropped_at_any_point_leaves_nothing_behind() {
    quiet();
    let (name, turns) = &scripts()[2];
    for outer in specimens() {
        for inner in specimens() {
            one_run(&[outer, inner], name, turns, millis(53)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_runs_at_once_any_may_go_first() {
    quiet();
    for wrapper in specimens() {
        for (name, turns) in scripts() {
            a_crowd(wrapper, name, &turns).await;
        }
    }
}
