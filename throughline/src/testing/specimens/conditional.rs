use super::{nothing, transparent};
use crate::conditional::{ConditionalConfig, conditional};
use crate::testing::play::{Built, Specimen};

/// The predicate always holds.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "conditional",
    observed: true,
    wrap: |inner, place| {
        let always = ConditionalConfig::new(&place.operation, |_, _| true, inner);
        Ok(Built { flow: conditional(always).boxed(), held: nothing() })
    },
    law: |play| {
        play.event(play.at, "then");
        transparent(play)
    },
};
