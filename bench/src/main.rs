//! Measures what the primitives and the gateway cost. Run with `--release`.

mod cpu;
mod lookups;
mod memory;
mod overhead;
mod primitives;
mod redaction;
mod redis;
mod redis_faults;
mod results;
mod scrape;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measurements that compare within one run, in processor time.
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Processor time per call of each primitive, beside a bare call
    Primitives {
        /// Rounds; each measures every case once
        #[arg(long, default_value_t = 15)]
        rounds: usize,
        /// Calls per case and round
        #[arg(long, default_value_t = 20_000)]
        calls: u32,
        /// Only the case or the group of this name, say to profile it
        #[arg(long)]
        only: Option<String>,
        /// Only with this telemetry
        #[arg(long, value_parser = primitives::MODES)]
        mode: Option<String>,
        /// Keep the medians in this file too, for `throughline maturity`
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Answers a second from each kind of cache, and how long one takes
    Lookups(lookups::Lookups),
    /// What the memory store takes of the machine's memory after millions of inserts
    Memory(memory::MemoryBench),
    /// What telemetry costs a proxied request, in processor time and latency; needs the gateway built beside this
    Overhead(overhead::Overhead),
    /// Answers from a Redis cache beside a bare client's; starts a redis-server
    Redis(redis::RedisBench),
    /// How well redaction finds what is labelled in `generated`, `sentences` and `secrets.jsonl`, and how fast
    Redaction {
        /// The folder with the three files
        folder: PathBuf,
        /// Show what is missed and what is touched wrongly
        #[arg(long)]
        misses: bool,
    },
    /// Processor time of a scrape of 10,000 series, in both formats, beside `prometheus-client`
    Scrape {
        /// Rounds; each renders every page once
        #[arg(long, default_value_t = 101)]
        rounds: usize,
    },
}

fn main() -> ExitCode {
    match Cli::parse().what {
        What::Primitives { rounds, calls, only, mode, json } => {
            let medians = primitives::run(rounds.max(1), calls.max(1), only.as_deref(), mode.as_deref());
            match json.map(|file| results::write(&file, "primitives", "ns", &medians)) {
                Some(Err(problem)) => {
                    eprintln!("{problem}");
                    ExitCode::FAILURE
                }
                _ => ExitCode::SUCCESS,
            }
        }
        What::Lookups(args) => lookups::run(&args),
        What::Memory(args) => memory::run(&args),
        What::Overhead(args) => overhead::run(&args),
        What::Scrape { rounds } => {
            if scrape::run(rounds.max(1)) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        What::Redis(args) => redis::run(&args),
        What::Redaction { folder, misses } => match redaction::run(&folder, misses) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::from(2)
            }
        },
    }
}
