use std::time::Duration;

use super::millis;
use crate::error::Kind;
use crate::rate_limit::{Allowance, Quota, RateLimitConfig};
use crate::testing::play::{Built, Ending, Specimen};

/// One run in an interval, and the next one waits.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "rate_limit",
    observed: true,
    wrap: |inner, place| {
        let allowance = Allowance::new(Quota::new(1, interval(place.level))?);
        let config = RateLimitConfig::new(&place.operation, allowance.clone()).max_wait(millis(60_000))?;
        Ok(Built { flow: inner.rate_limit(config).boxed(), held: Box::new(move || allowance.waiting()) })
    },
    law: |play| {
        let interval = interval(play.level);
        let last = play.remembered().last().map(|(at, _)| *at);
        let at = last.map_or(play.at, |last| play.at.max(last + interval));
        if at > play.at && play.deadline.is_some_and(|deadline| at >= deadline) {
            play.event(play.at, "limited_by_requests");
            return Ending::error(Kind::RateLimited, play.at, "limited");
        }
        if at > play.at {
            play.event(play.at, "waited");
        }
        play.remember(at, 0);
        play.call(at, play.deadline).0.hand_on()
    },
};

fn interval(level: u32) -> Duration {
    millis(211 - 7 * u64::from(level))
}
