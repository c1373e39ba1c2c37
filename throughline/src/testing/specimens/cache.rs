use std::time::Duration;

use crate::cache::{CacheConfig, JsonCaching, Memory};
use crate::testing::play::{Built, Ending, How, Specimen};

/// A value is kept for good, and what went wrong is not.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "cache",
    observed: true,
    wrap: |inner, place| {
        let config = CacheConfig::new(&place.operation, Duration::from_secs(24 * 3600))?.jitter(0.0)?;
        let caching = JsonCaching::keyed(|n: &u64, _, key| key.json(n));
        let flow = inner.cache(config, caching, Memory::new(1 << 20)?);
        let stage = flow.clone();
        let led = move || stage.stage().stats().computing as u64;
        Ok(Built { flow: flow.boxed(), held: Box::new(led) })
    },
    law: |play| {
        if let Some((_, value)) = play.remembered().iter().find(|(when, _)| *when <= play.at) {
            return Ending { how: How::Value(*value), at: play.at, outcome: "success" };
        }
        // A second run of the same key waits for the first, and takes the lead where that has failed in a way
        // that passes.
        let begins = match play.under_way() {
            Some(Ending { how: How::Error { retryable: true, .. }, at, .. }) => at,
            Some(leader) => return leader,
            None => play.at,
        };
        let ending = play.call(begins, play.deadline).0.hand_on();
        if let Some(value) = ending.value() {
            play.event(ending.at, "stored");
            play.remember(ending.at, value);
        }
        ending
    },
};
