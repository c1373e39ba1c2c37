use crate::error::Kind;
use crate::shed::ShedConfig;
use crate::testing::play::{Built, How, Specimen};

/// The limit is never reached.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "shed",
    observed: true,
    wrap: |inner, place| {
        let flow = inner.shed(ShedConfig::new(&place.operation));
        let held = flow.clone();
        Ok(Built { flow: flow.boxed(), held: Box::new(move || held.stage().stats().in_flight as u64) })
    },
    law: |play| {
        let ending = play.pass();
        if let How::Error { kind, .. } = ending.how
            && matches!(kind, Kind::Timeout | Kind::Rejected)
        {
            play.event(ending.at, "overload");
        }
        ending.hand_on()
    },
};
