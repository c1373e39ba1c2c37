use std::time::Duration;

use super::nothing;
use crate::cache::{CacheConfig, JsonCaching, Memory};
use crate::testing::play::{Built, Ending, How, Specimen};

/// A value is kept for good, and what went wrong is not.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "cache",
    observed: true,
    wrap: |inner, place| {
        let config = CacheConfig::new(&place.operation, Duration::from_secs(24 * 3600))?.jitter(0.0)?;
        let caching = JsonCaching::keyed(|n: &u64, _, key| key.json(n));
        Ok(Built { flow: inner.cache(config, caching, Memory::new(1 << 20)?).boxed(), held: nothing() })
    },
    law: |play| {
        if let Some((_, value)) = play.remembered().first() {
            return Ending { how: How::Value(*value), at: play.at, outcome: "success" };
        }
        let ending = play.pass().hand_on();
        if let Some(value) = ending.value() {
            play.event(ending.at, "stored");
            play.remember(ending.at, value);
        }
        ending
    },
};
