use super::{millis, nothing};
use crate::testing::chaos::ChaosConfig;
use crate::testing::play::{Built, Specimen};

/// Every run is late.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "chaos",
    observed: true,
    wrap: |inner, place| {
        let late = ChaosConfig::new(&place.operation).latency(1.0, millis(LATE)..=millis(LATE))?;
        Ok(Built { flow: inner.chaos(late).boxed(), held: nothing() })
    },
    law: |play| {
        play.event(play.at, "latency");
        play.call(play.at + millis(LATE), play.deadline).0.hand_on()
    },
};

const LATE: u64 = 13;
