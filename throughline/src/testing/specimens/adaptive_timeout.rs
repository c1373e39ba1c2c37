use std::time::Duration;

use super::{millis, nothing};
use crate::adaptive_timeout::AdaptiveTimeoutConfig;
use crate::error::Kind;
use crate::testing::play::{Built, Ending, How, Specimen};

/// It has too few samples to enforce more than the ceiling.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "adaptive_timeout",
    observed: true,
    wrap: |inner, place| {
        let config = AdaptiveTimeoutConfig::new(&place.operation, millis(1), ceiling(place.level))?;
        Ok(Built { flow: inner.adaptive_timeout(config).boxed(), held: nothing() })
    },
    law: |play| {
        let end = play.at + ceiling(play.level);
        let (inner, mark) = play.call(play.at, Some(play.deadline.map_or(end, |deadline| deadline.min(end))));
        if !inner.by(end) {
            play.cut(mark, end);
            return Ending::error(Kind::Timeout, end, "timeout");
        }
        let outcome = if let How::Value(_) = inner.how { "success" } else { "inner_error" };
        Ending { outcome, ..inner }
    },
};

fn ceiling(level: u32) -> Duration {
    millis(1_511 - 13 * u64::from(level))
}
