//! Answers a second from a cache on each kind of store of this machine, and how long one takes.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use throughline::cache::Tiered;
use throughline::cache::disk::{Disk, DiskConfig};
use throughline::{CacheConfig, Clock, Context, JsonCaching, Memory, Store, workflow};

/// What the first version promised: a lookup within this time, and so many operations a second.
const LATEST: Duration = Duration::from_millis(5);
const LEAST: f64 = 10_000.0;
/// Keys that are asked for in turn.
const KEYS: usize = 10_000;
/// Long enough that no answer of a busy machine comes too late.
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub(crate) struct Lookups {
    /// Answers per store and number of tasks
    #[arg(long, default_value_t = 200_000)]
    answers: usize,
    /// The length of a value, in bytes
    #[arg(long, default_value_t = 1_024)]
    bytes: usize,
}

/// What was measured of a store with so many tasks.
struct Row {
    store: &'static str,
    tasks: usize,
    rate: f64,
    p50: Duration,
    p99: Duration,
    longest: Duration,
    hits: u64,
}

/// Measures and prints a table; fails when a promise is not kept.
pub(crate) fn run(args: &Lookups) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let rows = runtime.expect("a runtime can start").block_on(async {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let disk = |name: &str| {
            let config = DiskConfig::new(folder.path().join(name), 256 << 20);
            config.map(Disk::new).map_err(|error| error.to_string())
        };
        let memory = || Memory::new(256 << 20).map_err(|error| error.to_string());
        let mut rows = measure("memory", memory()?, args).await?;
        rows.extend(measure("disk", Arc::new(disk("disk")?), args).await?);
        let tiered = Tiered::new(memory()?, disk("tiered")?, DEADLINE).map_err(|error| error.to_string())?;
        rows.extend(measure("memory over disk", tiered, args).await?);
        Ok::<_, String>(rows)
    });
    match rows {
        Ok(rows) => report(args, &rows),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

async fn measure(
    store: &'static str,
    kept: impl Store + 'static,
    args: &Lookups,
) -> Result<Vec<Row>, String> {
    let answer = "v".repeat(args.bytes);
    let cache =
        CacheConfig::new("bench", Duration::from_secs(3600)).and_then(|cache| cache.store_deadline(DEADLINE));
    let flow = workflow("value", move |_: usize| std::future::ready(Ok(answer.clone()))).cache(
        cache.map_err(|error| error.to_string())?,
        JsonCaching::keyed(|n: &usize, _, key| Some(key.part(&n.to_le_bytes()))),
        kept,
    );
    let flow = Arc::new(flow);
    // Twice: a file takes what it is given while it can, and the rest the next time.
    for n in (0..KEYS).chain(0..KEYS) {
        if n % 1_000 == 0 {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        flow.run(n, &Context::new()).await.map_err(|error| error.to_string())?;
    }
    let mut rows = Vec::new();
    for tasks in [1, 64] {
        let (before, begun) = (flow.stage().stats().hits, Clock::default().now());
        let each = args.answers.div_ceil(tasks);
        let running: Vec<_> = (0..tasks)
            .map(|task| {
                let flow = Arc::clone(&flow);
                tokio::spawn(async move {
                    let mut times = Vec::with_capacity(each);
                    for n in 0..each {
                        let begun = Clock::default().now();
                        let answer = flow.run((task * 31 + n) % KEYS, &Context::new()).await;
                        times.push(Clock::default().now().since(begun));
                        assert!(answer.is_ok(), "the workflow does not fail");
                    }
                    times
                })
            })
            .collect();
        let mut times = Vec::new();
        for task in running {
            times.extend(task.await.map_err(|error| error.to_string())?);
        }
        let passed = Clock::default().now().since(begun);
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        rows.push(Row {
            store,
            tasks,
            rate: times.len() as f64 / passed.as_secs_f64(),
            p50: at(50),
            p99: at(99),
            longest: at(100),
            hits: flow.stage().stats().hits - before,
        });
    }
    Ok(rows)
}

#[expect(clippy::print_stdout, reason = "the table is what this command prints")]
fn report(args: &Lookups, rows: &[Row]) -> ExitCode {
    println!(
        "{} answers of {} bytes, {KEYS} keys\n\n| store | tasks | answers, 1/s | p50, us | p99, us | longest, us | hits |\n\
         |---|--:|--:|--:|--:|--:|--:|",
        args.answers, args.bytes
    );
    let mut kept = true;
    for Row { store, tasks, rate, p50, p99, longest, hits } in rows {
        let us = |time: &Duration| time.as_nanos() as f64 / 1e3;
        let share = *hits as f64 / (args.answers.div_ceil(*tasks) * tasks) as f64;
        println!(
            "| {store} | {tasks} | {rate:.0} | {:.1} | {:.1} | {:.0} | {:.1}% |",
            us(p50),
            us(p99),
            us(longest),
            share * 100.0
        );
        kept &= *p99 < LATEST && *rate >= LEAST;
    }
    let verdict = if kept { "ok" } else { "MISSED" };
    println!("\nwanted: p99 of a lookup below {LATEST:?}, and {LEAST} a second: {verdict}");
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
