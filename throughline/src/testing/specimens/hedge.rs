use std::time::Duration;

use super::{millis, nothing};
use crate::hedge::{HedgeConfig, HedgeDelay};
use crate::testing::play::{Built, Ending, How, Mark, Play, Specimen};

/// One extra attempt, after longer than most of what it wraps takes.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "hedge",
    observed: true,
    wrap: |inner, place| {
        let delay = HedgeDelay::fixed(delay(place.level))?;
        let config = HedgeConfig::for_idempotent_work(&place.operation, delay);
        Ok(Built { flow: inner.hedge(config).boxed(), held: nothing() })
    },
    law: |play| {
        let (first, mark) = play.call(play.at, play.deadline);
        let fire = play.at + delay(play.level);
        if !first.by(fire) {
            return match another(play, fire, "hedged") {
                Some((second, other)) => race(play, (first, mark, "primary"), (second, other, "hedge")),
                None => hand_on(first, "primary"),
            };
        }
        if !matches!(first.how, How::Error { retryable: true, .. }) {
            return hand_on(first, "primary");
        }
        match another(play, first.at, "failed_over") {
            Some((second, _)) => after(&first, second, "hedge"),
            None => hand_on(first, "primary"),
        }
    },
};

fn delay(level: u32) -> Duration {
    millis(2_203 - 11 * u64::from(level))
}

/// Begins another attempt, if there is time for one.
fn another(play: &mut Play<'_>, at: Duration, why: &'static str) -> Option<(Ending, Mark)> {
    if play.deadline.is_some_and(|deadline| at >= deadline) {
        play.event(at, "no_time_left");
        return None;
    }
    play.event(at, why);
    Some(play.call(at, play.deadline))
}

type Attempt = (Ending, Mark, &'static str);

/// Two attempts under way; of two that end together the first one is heard.
fn race(play: &mut Play<'_>, first: Attempt, second: Attempt) -> Ending {
    let second_ends = second.0.how != How::Never && !first.0.by(second.0.at);
    let (winner, other) = if second_ends { (second, first) } else { (first, second) };
    match winner.0.how {
        How::Error { retryable: true, .. } => after(&winner.0, other.0, other.2),
        How::Never => winner.0,
        How::Value(_) | How::Error { .. } | How::Panic => {
            // Also where it would have ended at the same moment.
            play.cut(other.1, winner.0.at - Duration::from_nanos(1));
            play.event(winner.0.at, "loser_dropped");
            hand_on(winner.0, winner.2)
        }
    }
}

/// The last attempt, after one that failed in a way that passes.
fn after(failed: &Ending, last: Ending, name: &'static str) -> Ending {
    match last.how {
        How::Error { retryable: true, .. } => Ending { how: failed.how.clone(), ..last }.hand_on(),
        _ => hand_on(last, name),
    }
}

fn hand_on(ending: Ending, name: &'static str) -> Ending {
    let outcome = if ending.value().is_some() { name } else { "error" };
    Ending { outcome, ..ending }
}
