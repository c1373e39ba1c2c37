//! Random sagas against a model: which steps are undone, when, and in which order.
//!
//! A tree of steps, pipes, fans and sagas is run in virtual time and dropped at a random moment, or not. The
//! model says for the same tree what the log of compensations must be.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use throughline::testing::Recorder;
use throughline::{Boxed, Error, Kind, SagaConfig, Workflow, saga, workflow};
use tokio::time::{Instant, sleep, timeout};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    Well,
    InError,
    InPanic,
    Never,
}

#[derive(Clone, Debug)]
enum Tree {
    Step { id: usize, millis: u64, ends: Ends, undo: Option<Way> },
    Pipe(Vec<Tree>),
    Fan(Box<(Tree, Tree)>),
    Saga(Box<Tree>),
}

/// How the compensation of a step goes.
#[derive(Clone, Copy, Debug)]
struct Way {
    millis: u64,
    works: bool,
}

/// Longer than any run, in virtual milliseconds.
const FOREVER: u64 = 1_000_000;

/// `(virtual milliseconds, step)`
type Lines = Vec<(u64, usize)>;

fn tree() -> impl Strategy<Value = Tree> {
    let ends = prop_oneof![
        20 => Just(Ends::Well),
        1 => Just(Ends::InError),
        1 => Just(Ends::InPanic),
        1 => Just(Ends::Never)
    ];
    let way = (prop_oneof![1 => Just(0_u64), 3 => 1_u64..900], any::<bool>())
        .prop_map(|(millis, works)| Way { millis, works });
    let step = (1_u64..1_000, ends, prop::option::weighted(0.8, way))
        .prop_map(|(millis, ends, undo)| Tree::Step { id: 0, millis, ends, undo });
    let part = step.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            2 => prop::collection::vec(inner.clone(), 2..4).prop_map(Tree::Pipe),
            2 => (inner.clone(), inner.clone()).prop_map(|pair| Tree::Fan(Box::new(pair))),
            3 => inner.prop_map(|inner| Tree::Saga(Box::new(inner))),
        ]
    });
    prop::collection::vec(part, 1..5).prop_map(Tree::Pipe)
}

/// Numbers the steps, so that each has an id of its own.
fn number(tree: &mut Tree, next: &mut usize) {
    match tree {
        Tree::Step { id, .. } => {
            *id = *next;
            *next += 1;
        }
        Tree::Pipe(parts) => parts.iter_mut().for_each(|part| number(part, next)),
        Tree::Fan(pair) => {
            number(&mut pair.0, next);
            number(&mut pair.1, next);
        }
        Tree::Saga(inner) => number(inner, next),
    }
}

// === the real thing ===

#[derive(Clone)]
struct Log {
    start: Instant,
    lines: Arc<Mutex<Lines>>,
}

type Flow = Workflow<Boxed<(), ()>>;

fn config() -> SagaConfig {
    SagaConfig::new("saga").max_attempts(1).unwrap()
}

fn build(tree: &Tree, log: &Log) -> Flow {
    match tree {
        Tree::Step { id, millis, ends, undo } => step(*id, *millis, *ends, *undo, log),
        Tree::Pipe(parts) => {
            let mut flows = parts.iter().map(|part| build(part, log));
            let first = flows.next().unwrap();
            flows.fold(first, |flow, next| (flow >> next).boxed())
        }
        Tree::Fan(pair) => (build(&pair.0, log) | build(&pair.1, log)).map(|_| ()).boxed(),
        Tree::Saga(inner) => build(inner, log).saga(config()).boxed(),
    }
}

fn step(id: usize, millis: u64, ends: Ends, undo: Option<Way>, log: &Log) -> Flow {
    let forward = workflow("step", move |()| async move {
        sleep(Duration::from_millis(millis)).await;
        match ends {
            Ends::Well => Ok(()),
            Ends::InError => Err(Error::new(Kind::Upstream, "503")),
            Ends::InPanic => panic!("the model asks for it"),
            Ends::Never => pending().await,
        }
    });
    let Some(way) = undo else { return forward.boxed() };
    let log = log.clone();
    let back = workflow("back", move |()| {
        let log = log.clone();
        async move {
            let at = u64::try_from(log.start.elapsed().as_millis()).unwrap();
            log.lines.lock().unwrap().push((at, id));
            sleep(Duration::from_millis(way.millis)).await;
            if way.works { Ok(()) } else { Err(Error::new(Kind::Upstream, "503")) }
        }
    });
    forward.undo(back).boxed()
}

// === the model ===

/// A step that can be undone, or a nested saga that undoes itself until then.
#[derive(Clone, Debug)]
enum Entry {
    Done(usize, Way),
    Until(u64),
}

#[derive(Debug, Default)]
struct Course {
    /// When it ended and whether it did well; `None`: it was dropped, or goes on for ever.
    ended: Option<(u64, bool)>,
    /// What the saga around it would have to undo, with the time of completion.
    entries: Vec<(u64, Entry)>,
    /// Compensations begun inside it.
    begun: Lines,
    /// Moments at which something happened.
    moments: Vec<u64>,
}

/// Undoes entries from the back beginning at `at`: when it is over.
fn unwind(at: u64, entries: &[(u64, Entry)], begun: &mut Lines, moments: &mut Vec<u64>) -> u64 {
    entries.iter().rev().fold(at, |now, (_, entry)| match entry {
        Entry::Done(id, way) => {
            begun.push((now, *id));
            if way.millis > 0 {
                moments.push(now + way.millis);
            }
            now + way.millis
        }
        Entry::Until(end) => now.max(*end),
    })
}

/// The course of `tree` begun at `start` and dropped at `cut`.
fn course(tree: &Tree, start: u64, cut: u64) -> Course {
    match tree {
        Tree::Step { id, millis, ends, undo } => {
            let end = start + millis;
            let mut course = Course { moments: vec![end], ..Course::default() };
            if *ends == Ends::Never || end >= cut {
                return course;
            }
            course.ended = Some((end, *ends == Ends::Well));
            if let (Ends::Well, Some(way)) = (ends, undo) {
                course.entries.push((end, Entry::Done(*id, *way)));
            }
            course
        }
        Tree::Pipe(parts) => {
            let mut whole = Course { ended: Some((start, true)), ..Course::default() };
            for part in parts {
                let Some((now, true)) = whole.ended else { break };
                let next = course(part, now, cut);
                whole.ended = next.ended;
                whole.entries.extend(next.entries);
                whole.begun.extend(next.begun);
                whole.moments.extend(next.moments);
            }
            whole
        }
        Tree::Fan(pair) => fan(&pair.0, &pair.1, start, cut),
        Tree::Saga(inner) => {
            let Course { ended, entries, mut begun, mut moments } = course(inner, start, cut);
            if let Some((end, true)) = ended {
                let entries = entries.into_iter().map(|(_, entry)| (end, entry)).collect();
                return Course { ended, entries, begun, moments };
            }
            let at = ended.map_or(cut, |(end, _)| end);
            let over = unwind(at, &entries, &mut begun, &mut moments);
            let entries = match entries.is_empty() {
                true => Vec::new(),
                false => vec![(at, Entry::Until(over))],
            };
            // Dropped while it undoes itself, it goes on all the same.
            let ended = ended.map(|_| (over, false)).filter(|_| over < cut);
            Course { ended, entries, begun, moments }
        }
    }
}

fn fan(left: &Tree, right: &Tree, start: u64, cut: u64) -> Course {
    let failed = |course: &Course| course.ended.filter(|(_, well)| !well).map(|(end, _)| end);
    let (mut a, mut b) = (course(left, start, cut), course(right, start, cut));
    let first = [failed(&a), failed(&b)].into_iter().flatten().min();
    let ended = match first {
        Some(at) => {
            // The one that fails is cut as it ends, the other in its midst.
            if failed(&a) != Some(at) {
                a = course(left, start, at);
            } else {
                b = course(right, start, at);
            }
            Some((at, false))
        }
        None => a.ended.zip(b.ended).map(|(a, b)| (a.0.max(b.0), true)),
    };
    let mut entries = [a.entries, b.entries].concat();
    entries.sort_by_key(|(at, _)| *at);
    Course { ended, entries, begun: [a.begun, b.begun].concat(), moments: [a.moments, b.moments].concat() }
}

fn run(tree: &Tree, drop_at: u64) -> (Lines, bool) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let log = Log { start: Instant::now(), lines: Arc::default() };
        let flow = build(tree, &log).saga(config());
        let cx = Recorder::new().context();
        let limit = Duration::from_millis(drop_at);
        let ended = timeout(limit, flow.run((), &cx)).await.is_ok_and(|result| result.is_ok());
        saga::settled().await;
        let lines = log.lines.lock().unwrap().clone();
        (lines, ended)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    /// `drop_at` is in thousandths of the time that the run takes.
    #[test]
    fn what_is_undone_is_what_the_model_says(mut tree in tree(), drop_at in prop::option::weighted(0.7, 1_u64..1_100)) {
        number(&mut tree, &mut 0);
        let whole = Tree::Saga(Box::new(tree.clone()));
        let takes = course(&whole, 0, FOREVER).ended.map_or(5_000, |(end, _)| end);
        let cut = drop_at.map_or(FOREVER, |share| 1 + takes * share / 1_000);
        let Course { ended, mut begun, mut moments, .. } = course(&whole, 0, cut);
        // Where two things happen in the same moment their order is nobody's business.
        moments.push(cut);
        let distinct: BTreeSet<_> = moments.iter().collect();
        prop_assume!(distinct.len() == moments.len());
        begun.sort_by_key(|(at, _)| *at);

        let (lines, well) = run(&tree, cut);
        prop_assert_eq!(well, ended.is_some_and(|(_, well)| well));
        let ids: BTreeSet<_> = lines.iter().map(|(_, id)| id).collect();
        prop_assert_eq!(ids.len(), lines.len(), "a step was undone twice: {:?}", lines);
        prop_assert_eq!(lines, begun);
    }
}
