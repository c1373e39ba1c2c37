//! What the memory store takes of the machine's memory, beside what it was given.

use std::process::{Command, ExitCode};

use clap::Args;
use futures_util::FutureExt as _;
use throughline::cache::Lifetime;
use throughline::{Clock, KeyBuilder, Memory, Store as _};

/// How many arenas glibc's allocator has.
const ARENAS: &str = "MALLOC_ARENA_MAX";
/// Threads that insert.
const THREADS: u64 = 2;

#[derive(Args, Debug)]
pub(crate) struct MemoryBench {
    /// Inserts for each size of values
    #[arg(long, default_value_t = 10_000_000)]
    inserts: u64,
    /// The store's bound in MiB
    #[arg(long, default_value_t = 256)]
    mib: u64,
    /// Only values of this size in bytes; 0 for sizes from 64 bytes to 16 KiB, mixed
    #[arg(long)]
    bytes: Option<usize>,
}

/// Measures each size in a process of its own, and fails when one takes more than its bound.
pub(crate) fn run(args: &MemoryBench) -> ExitCode {
    if let Some(bytes) = args.bytes {
        return measure(args, bytes);
    }
    print_line(&format!(
        "{} inserts by {THREADS} threads into a store of {} MiB; growth of the resident set\n\n\
         | value, bytes | arenas of the allocator | held | counted, MiB | resident at most, MiB | of the bound |\n\
         |--:|---|--:|--:|--:|--:|",
        args.inserts, args.mib
    ));
    let mut fits = true;
    for bytes in [64, 1_024, 16_384, 0] {
        let program = std::env::current_exe().expect("a program knows where it is");
        let numbers = [("--inserts", args.inserts), ("--mib", args.mib), ("--bytes", bytes)];
        for arenas in [Some("1"), None] {
            let mut command = Command::new(&program);
            command.arg("memory");
            for (name, number) in numbers {
                command.arg(name).arg(number.to_string());
            }
            command.env_remove(ARENAS).envs(arenas.map(|arenas| (ARENAS, arenas)));
            let fitted = command.status().is_ok_and(|status| status.success());
            // With several, each keeps what its thread once had: that is the allocator's doing, and shown.
            fits &= fitted || arenas.is_none();
        }
    }
    let verdict = if fits { "ok" } else { "MISSED" };
    print_line(&format!("\nwanted: no more than the bound with one arena: {verdict}"));
    if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(args: &MemoryBench, bytes: usize) -> ExitCode {
    let bound = args.mib << 20;
    let before = resident("VmRSS:");
    let store = Memory::new(bound).expect("the bound is large enough");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || insert(store, thread, args.inserts / THREADS, bytes));
        }
    });
    let grown = resident("VmHWM:").saturating_sub(before);
    let share = grown as f64 / bound as f64;
    let size = if bytes == 0 { "64 to 16384".to_owned() } else { bytes.to_string() };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    print_line(&format!(
        "| {size} | {} | {} | {:.1} | {:.1} | {share:.2} |",
        std::env::var(ARENAS).unwrap_or_else(|_| "as many as it likes".to_owned()),
        store.len(),
        mib(store.bytes()),
        mib(grown)
    ));
    if share <= 1.0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn insert(store: &Memory, thread: u64, inserts: u64, bytes: usize) {
    let hour = std::time::Duration::from_secs(3600);
    let lifetime = Lifetime { fresh: hour, kept: hour, computed_in: std::time::Duration::ZERO };
    let mut state = thread + 1;
    for n in 0..inserts {
        // A generator of a few instructions: the store is what is measured.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length =
            if bytes == 0 { (64usize << ((state >> 40) & 7)) | ((state >> 50) as usize % 64) } else { bytes };
        let key = KeyBuilder::new("bench", 0).part(&[thread, n].map(u64::to_le_bytes).concat()).build();
        let value = vec![1; length].into_boxed_slice().into();
        let put = store.put(key, value, lifetime, Clock::Monotonic.now()).now_or_never();
        put.expect("memory does not wait").expect("memory does not fail");
        // What has been read costs a little more than what has not.
        if n % 4 == 0 {
            let found = store.get(&key, Clock::Monotonic.now()).now_or_never();
            drop(found.expect("memory does not wait"));
        }
    }
}

/// A line of what Linux says of this process, in bytes.
fn resident(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0u64) << 10
}

#[expect(clippy::print_stdout, reason = "the table is what this command prints")]
fn print_line(line: &str) {
    println!("{line}");
}
