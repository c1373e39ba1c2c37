use std::time::Duration;

use super::{millis, nothing};
use crate::error::Kind;
use crate::testing::play::{Built, Ending, How, Play, Specimen};
use crate::timeout::TimeoutConfig;

pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "timeout",
    observed: true,
    wrap: |inner, place| {
        let config = TimeoutConfig::new(&place.operation, limit(place.level))?;
        Ok(Built { flow: inner.timeout(config).boxed(), held: nothing() })
    },
    law: |play| law(play, false),
};

/// With the work in a task of its own, where a panic is an error.
pub(super) const DETACHED: Specimen = Specimen {
    primitive: "timeout",
    observed: true,
    wrap: |inner, place| {
        let config = TimeoutConfig::new(&place.operation, limit(place.level))?;
        Ok(Built { flow: inner.timeout_detached(config).boxed(), held: nothing() })
    },
    law: |play| law(play, true),
};

fn limit(level: u32) -> Duration {
    millis(1_009 - 9 * u64::from(level))
}

fn law(play: &mut Play<'_>, detached: bool) -> Ending {
    let end = play.at + limit(play.level);
    let (inner, mark) = play.call(play.at, Some(play.deadline.map_or(end, |deadline| deadline.min(end))));
    if !inner.by(end) {
        play.cut(mark, end);
        play.event(end, "stop_requested");
        return Ending::error(Kind::Timeout, end, "timeout");
    }
    match inner.how {
        How::Value(_) => Ending { outcome: "success", ..inner },
        How::Panic if detached => Ending::error(Kind::Internal, inner.at, "inner_error"),
        _ => Ending { outcome: "inner_error", ..inner },
    }
}
