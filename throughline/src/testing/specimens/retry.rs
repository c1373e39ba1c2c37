use std::time::Duration;

use super::{millis, nothing};
use crate::budget::{Budget, BudgetConfig};
use crate::error::{ConfigError, Kind};
use crate::retry::{Backoff, Jitter, RetryConfig};
use crate::testing::play::{Built, Ending, How, Place, Play, Specimen};

pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "retry",
    observed: true,
    wrap: |inner, place| Ok(Built { flow: inner.retry(config(place)?).boxed(), held: nothing() }),
    law: |play| law(play, |_, _| true),
};

/// With a budget of its own, which is empty after a few retries.
pub(super) const BUDGETED: Specimen = Specimen {
    primitive: "retry",
    observed: true,
    wrap: |inner, place| {
        let budget = Budget::new(BudgetConfig::default().ratio(0.5)?.floor_per_second(0.3)?);
        let flow = inner.retry(config(place)?.budget(&budget));
        let stage = flow.clone();
        let lent = move || budget.stats().withdrawals - stage.stage().stats().retries;
        Ok(Built { flow: flow.boxed(), held: Box::new(lent) })
    },
    law: |play| law(play, has_a_token),
};

const ATTEMPTS: u32 = 3;
/// What a run remembers of a success. Anything else is when a token was taken, in milliseconds and one more.
const SUCCESS: u64 = 0;

fn config(place: &Place) -> Result<RetryConfig, ConfigError> {
    let backoff = Backoff::constant(wait(place.level))?.jitter(Jitter::None);
    Ok(RetryConfig::new(&place.operation).max_attempts(ATTEMPTS)?.backoff(backoff))
}

fn wait(level: u32) -> Duration {
    millis(127 + 2 * u64::from(level))
}

fn law(play: &mut Play<'_>, pays: fn(&Play<'_>, Duration) -> bool) -> Ending {
    let (mut at, wait) = (play.at, wait(play.level));
    for attempt in 1.. {
        let ending = play.call(at, play.deadline).0;
        at = ending.at;
        let How::Error { kind, retryable } = ending.how else {
            if ending.value().is_some() {
                play.remember(at, SUCCESS);
            }
            if attempt == 1 || ending.value().is_none() {
                return ending.hand_on();
            }
            play.event(at, "recovered");
            return Ending { outcome: "recovered", ..ending };
        };
        let gave_up = match kind {
            Kind::Cancelled | Kind::CircuitOpen => "not_retryable",
            _ if !retryable => "not_retryable",
            _ if attempt == ATTEMPTS => "exhausted",
            _ if play.deadline.is_some_and(|deadline| at + wait >= deadline) => "no_time_left",
            _ if !pays(play, at) => "budget_exhausted",
            _ => {
                let taken = u64::try_from(at.as_millis()).unwrap_or(u64::MAX - 1) + 1;
                at += wait;
                play.remember(at, taken);
                play.event(at, "retry");
                continue;
            }
        };
        play.event(at, gave_up);
        let outcome = if kind == Kind::Cancelled { "cancelled" } else { "error" };
        return Ending { outcome, ..ending };
    }
    unreachable!("the last attempt returns")
}

/// Three tokens for eleven seconds, which begin with whole ones, and half of one for each success in them.
fn has_a_token(play: &Play<'_>, at: Duration) -> bool {
    let recent = |second: u64| second + 11 > at.as_secs();
    let (successes, taken): (Vec<_>, Vec<_>) =
        play.remembered().into_iter().partition(|(_, what)| *what == SUCCESS);
    let successes = successes.iter().filter(|(when, _)| recent(when.as_secs())).count();
    let taken = taken.iter().filter(|(_, what)| recent((what - 1) / 1_000)).count();
    6 + successes >= 2 * (taken + 1)
}
