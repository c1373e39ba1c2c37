//! `throughline cache simulate`: lets the requests of a trace meet caches of several sizes, ttls and policies.

use std::time::Duration;

use indicatif::ProgressBar;
use throughline_llm::PriceTable;

use super::Ended;
use super::args::{Policy, Simulate, Ttl};
use super::policy::{Lru, Real, Simulated};
use super::progress;
use super::report::{Report, Row};
use super::trace::{Identity, Trace};
use crate::check::show;

/// Longer than any trace.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// The bar moves after so many requests.
const STEP: usize = 4096;

/// One cache to simulate.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// `None`: nobody leaves.
    policy: Option<(Policy, u64)>,
    ttl: Ttl,
}

/// Simulates and reports.
///
/// # Errors
/// When the trace or the wishes are not good.
pub(super) fn run(args: &Simulate) -> Result<(), Ended> {
    let prices = PriceTable::builtin();
    if let Some(model) = args.model.as_deref().filter(|model| prices.price(model).is_none()) {
        let problem =
            format!("no price is known for the model `{model}`: `--model` must be one of the price table");
        return Err(Ended::Refused(problem));
    }
    let mut trace = Trace::read(&args.trace, &prices, args.model.as_deref()).map_err(Ended::Refused)?;
    if let Some(rate) = args.rate {
        if trace.timed {
            let problem = "`--rate` is for traces that do not say when requests came: this one does";
            return Err(Ended::Refused(problem.to_owned()));
        }
        trace.paced(rate);
    }
    let cases = cases(args, trace.timed);
    let bar = progress::bar((cases.len() * trace.requests.len()) as u64, "simulating");
    let rows = cases.into_iter().map(|case| simulate(case, &trace, &bar)).collect::<Result<_, _>>()?;
    bar.finish_and_clear();
    let name = args.trace.file_name().unwrap_or(args.trace.as_os_str()).to_string_lossy().into_owned();
    let report = Report::new(name, &trace, args.rate, rows);
    show(&if args.json { report.json() } else { report.to_string() });
    Ok(())
}

/// Every policy with every size and ttl, and each ttl once without a bound. Without times there are no ttls.
fn cases(args: &Simulate, timed: bool) -> Vec<Case> {
    let ttls = if timed { args.ttl.clone() } else { vec![Ttl(None)] };
    let sized =
        args.policy.iter().flat_map(|policy| args.size.iter().map(move |size| Some((*policy, *size))));
    let policies: Vec<_> = sized.chain([None]).collect();
    let case = |policy: &Option<(Policy, u64)>| {
        let policy = *policy;
        ttls.iter().map(move |ttl| Case { policy, ttl: *ttl }).collect::<Vec<_>>()
    };
    policies.iter().flat_map(case).collect()
}

fn simulate(case: Case, trace: &Trace, bar: &ProgressBar) -> Result<Row, Ended> {
    let largest = trace.requests.iter().map(|request| request.bytes).max().unwrap_or_default();
    let mut cache: Box<dyn Simulated> = match case.policy {
        // What is larger than this is not kept in any case.
        Some((Policy::Memory, size)) => {
            Box::new(Real::new(size, largest.min(size)).map_err(|error| Ended::Refused(error.to_string()))?)
        }
        Some((Policy::Lru, size)) => Box::new(Lru::new(size)),
        None => Box::new(Lru::new(u64::MAX)),
    };
    let ttl = case.ttl.0.unwrap_or(FOREVER);
    let mut row = Row::new(case.policy, case.ttl);
    let mut answers = vec![None; trace.keys.len()];
    for (number, request) in trace.requests.iter().enumerate() {
        let key = &trace.keys[request.key];
        if cache.lookup(key, request.at) {
            let right = trace.identity == Identity::Content && answers[request.key] == request.answer;
            row.hit(request, right, trace.identity);
        } else {
            answers[request.key] = request.answer;
            cache.store(*key, request.bytes, ttl, request.at);
        }
        if number % STEP == STEP - 1 {
            bar.inc(STEP as u64);
        }
    }
    row.end(trace.requests.len(), cache.bytes());
    Ok(row)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn args(policy: Vec<Policy>, size: Vec<u64>, ttl: Vec<Ttl>) -> Simulate {
        Simulate { trace: PathBuf::new(), size, ttl, policy, rate: None, model: None, json: false }
    }

    fn trace(text: &str) -> Trace {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace.jsonl");
        std::fs::write(&path, text).unwrap();
        Trace::read(&path, &PriceTable::builtin(), None).unwrap()
    }

    fn row(policy: Option<(Policy, u64)>, ttl: Option<u64>, trace: &Trace) -> Row {
        let case = Case { policy, ttl: Ttl(ttl.map(Duration::from_secs)) };
        simulate(case, trace, &ProgressBar::hidden()).unwrap()
    }

    /// `rounds` times the same `keys` requests, a second apart, of a KiB each.
    fn rounds(rounds: u64, keys: u64) -> Trace {
        let line = |n: u64| {
            format!(
                "{{\"key\": {}, \"at_ms\": {}, \"bytes\": 1024, \"input_tokens\": 10, \"output_tokens\": 1}}\n",
                n % keys,
                n * 1000
            )
        };
        trace(&(0..rounds * keys).map(line).collect::<String>())
    }

    #[test]
    fn without_bounds_every_repeat_is_a_hit_and_saves_its_tokens() {
        let row = row(None, None, &rounds(3, 100));
        assert_eq!(
            (row.hits, row.verified, row.input_tokens_saved, row.output_tokens_saved),
            (200, 200, 2000, 200)
        );
        assert_eq!(row.hit_rate, 2.0 / 3.0);
    }

    #[test]
    fn a_ttl_shorter_than_the_pause_between_repeats_leaves_no_hit() {
        let trace = rounds(3, 100);
        for policy in [None, Some((Policy::Memory, 1 << 20)), Some((Policy::Lru, 1 << 20))] {
            assert_eq!(row(policy, Some(100), &trace).hits, 0, "{policy:?}");
            assert_eq!(row(policy, Some(101), &trace).hits, 100, "{policy:?}: a hit makes nothing younger");
            assert_eq!(row(policy, Some(201), &trace).hits, 200, "{policy:?}");
        }
    }

    #[test]
    fn going_round_more_than_fits_leaves_lru_nothing_and_our_memory_a_part() {
        let trace = rounds(20, 100);
        let (lru, memory) = (
            row(Some((Policy::Lru, 65_536)), None, &trace),
            row(Some((Policy::Memory, 65_536)), None, &trace),
        );
        assert_eq!(lru.hits, 0);
        assert!(memory.hits > 300, "{} of 1900", memory.hits);
        assert!(lru.bytes <= 65_536 && memory.bytes <= 65_536);
    }

    #[test]
    fn a_hit_with_another_answer_is_wrong_and_saves_nothing() {
        let trace = trace("[\"q\", \"a\"]\n[\"q\", \"a\"]\n[\"q\", \"b\"]\n");
        let row = row(None, None, &trace);
        assert_eq!((row.hits, row.verified, row.wrong), (2, 1, 1));
    }

    #[test]
    fn hits_by_length_are_no_verified_hits() {
        let line = "[\"2023-11-16 18:15:46\", 374, 44]\n";
        let row = row(None, None, &trace(&line.repeat(3)));
        assert_eq!((row.hits, row.verified, row.wrong, row.input_tokens_saved), (2, 0, 0, 0));
    }

    #[test]
    fn every_combination_is_simulated_and_ttls_only_where_there_are_times() {
        let ttls = vec![Ttl(Some(Duration::from_secs(1))), Ttl(None)];
        let args = args(vec![Policy::Memory, Policy::Lru], vec![1 << 20, 2 << 20, 3 << 20], ttls);
        assert_eq!(cases(&args, true).len(), (2 * 3 + 1) * 2);
        assert_eq!(cases(&args, false).len(), 2 * 3 + 1);
    }
}
