//! Holds back lines that say the same again and again, and says how often that was.
//!
//! Lines are the same when they come from the same place in the code, with the same message and the same values of the few
//! fields that come from the configuration. Memory is bounded: a place in the code with very many different messages has
//! one account for all that is beyond the first ones.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{Hash as _, Hasher as _};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::callsite::Identifier;

use super::record::{Record, Value};

/// The most accounts of one place in the code.
const MOST_MESSAGES: usize = 32;

/// Fields that tell one line from another; their values come from the configuration or from an enum.
const TELLING: [&str; 7] = ["route", "model", "provider", "kind", "family", "reason", "saga"];

/// How many lines that say the same are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The most of them …
    pub(crate) lines: NonZeroU32,
    /// … in this time.
    pub(crate) interval: Duration,
}

/// What was written and held back.
#[derive(Debug)]
pub(super) struct Repeats {
    limit: Limit,
    places: Mutex<HashMap<Identifier, HashMap<u64, Account>>>,
}

#[derive(Debug)]
struct Account {
    began: Duration,
    written: u32,
    held_back: u64,
    /// What was held back, without what differs from one to the next.
    like: Record,
}

/// What becomes of a line.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is written, after this if there is something.
    Write(Option<Record>),
    /// It is held back.
    HoldBack,
}

// === impl Repeats ===

impl Repeats {
    pub(super) fn new(limit: Limit) -> Self {
        Self { limit, places: Mutex::default() }
    }

    /// What becomes of `record`, from `place` in the code, at `now` by a clock that only goes forward.
    pub(super) fn judge(&self, place: Identifier, record: &Record, now: Duration) -> Verdict {
        let mut places = self.lock();
        let accounts = places.entry(place).or_default();
        let key = key(record);
        let key = if accounts.len() >= MOST_MESSAGES && !accounts.contains_key(&key) { 0 } else { key };
        let account = match accounts.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => free.insert(Account::begin(record, now)),
        };
        let sum = match now.saturating_sub(account.began) >= self.limit.interval {
            true => account.renew(now, self.limit.interval, record.at),
            false => None,
        };
        if account.written < self.limit.lines.get() {
            account.written += 1;
            return Verdict::Write(sum);
        }
        account.held_back += 1;
        Verdict::HoldBack
    }

    /// The sums of what was held back in intervals that are over, to be written `at`; of all with `all`.
    pub(super) fn due(&self, now: Duration, at: SystemTime, all: bool) -> Vec<Record> {
        let mut sums = Vec::new();
        let mut places = self.lock();
        places.retain(|_, accounts| {
            accounts.retain(|_, account| {
                let over = now.saturating_sub(account.began) >= self.limit.interval;
                if over || all {
                    sums.extend(account.renew(now, self.limit.interval, at));
                }
                !over || account.written > 0
            });
            !accounts.is_empty()
        });
        sums
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, HashMap<u64, Account>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Account ===

impl Account {
    fn begin(record: &Record, now: Duration) -> Self {
        let telling = |(name, _): &&(&str, Value)| TELLING.contains(name);
        let fields = record.fields.iter().filter(telling).cloned().collect();
        let like = Record { fields, ids: None, ..record.clone() };
        Self { began: now, written: 0, held_back: 0, like }
    }

    /// Begins anew: what was held back, if anything was.
    fn renew(&mut self, now: Duration, interval: Duration, at: SystemTime) -> Option<Record> {
        // The interval is what was promised; a quiet time behind it does not make the sum less dense.
        let took = now.saturating_sub(self.began).min(interval);
        let count = std::mem::take(&mut self.held_back);
        (self.began, self.written) = (now, 0);
        (count > 0).then(|| {
            let message = format!("repeated {count} times in {}: {}", shown(took), self.like.message);
            Record { at, message, ..self.like.clone() }.with("repeated", Value::Whole(count.into()))
        })
    }
}

fn shown(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
}

fn key(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    record.message.hash(&mut hasher);
    for (name, value) in record.fields.iter().filter(|(name, _)| TELLING.contains(name)) {
        (name, value.to_string()).hash(&mut hasher);
    }
    // 0 is the account of all that is beyond the bound.
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use tracing::Level;
    use tracing::callsite::Callsite;
    use tracing::metadata::Metadata;
    use tracing::subscriber::Interest;

    use super::*;

    struct Here(#[expect(dead_code, reason = "two values must not share an address")] u8);
    static HERE: Here = Here(1);
    static THERE: Here = Here(2);

    impl Callsite for Here {
        fn set_interest(&self, _: Interest) {}
        fn metadata(&self) -> &Metadata<'_> {
            unreachable!("it is only told apart")
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn repeats(lines: u32) -> Repeats {
        Repeats::new(Limit { lines: NonZeroU32::new(lines).unwrap(), interval: 10 * SECOND })
    }

    fn record(message: &str, route: &str) -> Record {
        Record {
            at: SystemTime::UNIX_EPOCH,
            level: Level::WARN,
            target: "t",
            message: message.to_owned(),
            fields: vec![
                ("route", Value::Text(route.to_owned())),
                ("request_id", Value::Text("different".to_owned())),
            ],
            ids: None,
        }
    }

    /// Whether it is written.
    fn written(repeats: &Repeats, place: &'static Here, record: &Record, now: Duration) -> bool {
        matches!(repeats.judge(Identifier(place), record, now), Verdict::Write(_))
    }

    fn sums(repeats: &Repeats, now: Duration, all: bool) -> Vec<String> {
        let sums = repeats.due(now, SystemTime::UNIX_EPOCH, all);
        sums.into_iter().map(|record| record.message).collect()
    }

    #[test]
    fn the_first_lines_are_written_and_the_rest_is_summed_up_when_the_time_is_over() {
        let (repeats, failed) = (repeats(3), record("it failed", "cheap"));
        let count = (0..1000_u32).filter(|i| written(&repeats, &HERE, &failed, SECOND * *i / 1000)).count();
        assert_eq!(count, 3);
        assert_eq!(sums(&repeats, 9 * SECOND, false), [""; 0]);
        let due = repeats.due(10 * SECOND, SystemTime::UNIX_EPOCH, false);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].message, "repeated 997 times in 10s: it failed");
        assert_eq!(due[0].level, Level::WARN);
        assert_eq!(
            due[0].fields,
            [("route", Value::Text("cheap".to_owned())), ("repeated", Value::Whole(997))],
            "what differs from line to line is not in the sum"
        );
        assert_eq!(sums(&repeats, 20 * SECOND, false), [""; 0], "it is said once");
        assert!(written(&repeats, &HERE, &failed, 20 * SECOND), "a new interval begins");
    }

    #[test]
    fn a_line_after_the_interval_brings_the_sum_along() {
        let (repeats, failed) = (repeats(1), record("it failed", "cheap"));
        (0..5).for_each(|_| _ = written(&repeats, &HERE, &failed, Duration::ZERO));
        match repeats.judge(Identifier(&HERE), &failed, 60 * SECOND) {
            Verdict::Write(Some(sum)) => assert_eq!(sum.message, "repeated 4 times in 10s: it failed"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_sick_route_does_not_hide_another_nor_one_message_another() {
        let repeats = repeats(1);
        let zero = Duration::ZERO;
        assert!(written(&repeats, &HERE, &record("it failed", "cheap"), zero));
        assert!(!written(&repeats, &HERE, &record("it failed", "cheap"), zero));
        assert!(written(&repeats, &HERE, &record("it failed", "dear"), zero));
        assert!(written(&repeats, &HERE, &record("it broke", "cheap"), zero));
        assert!(written(&repeats, &THERE, &record("it failed", "cheap"), zero));
    }

    #[test]
    fn memory_is_bounded_and_what_is_quiet_is_forgotten() {
        let repeats = repeats(1);
        let fresh = (0..10_000)
            .filter(|i| written(&repeats, &HERE, &record(&format!("no {i}"), "r"), Duration::ZERO))
            .count();
        assert_eq!(fresh, MOST_MESSAGES + 1);
        assert_eq!(repeats.lock()[&Identifier(&HERE)].len(), MOST_MESSAGES + 1);
        assert_eq!(sums(&repeats, 10 * SECOND, false).len(), 1, "the others were not repeated");
        assert_eq!(sums(&repeats, 30 * SECOND, false).len(), 0);
        assert!(repeats.lock().is_empty());
    }

    #[test]
    fn at_the_end_everything_is_summed_up_at_once() {
        let (repeats, failed) = (repeats(1), record("it failed", "cheap"));
        (0..3).for_each(|_| _ = written(&repeats, &HERE, &failed, Duration::ZERO));
        assert_eq!(sums(&repeats, 2 * SECOND, true), ["repeated 2 times in 2s: it failed"]);
    }
}
