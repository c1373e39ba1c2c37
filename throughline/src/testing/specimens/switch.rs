use super::{nothing, transparent};
use crate::switch::{SwitchConfig, switch};
use crate::testing::play::{Built, Specimen};

/// Every input has the one case.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "switch",
    observed: true,
    wrap: |inner, place| {
        let only = SwitchConfig::new(&place.operation).on(|_, _| "only").case("only", inner).pass_through();
        Ok(Built { flow: switch(only)?.boxed(), held: nothing() })
    },
    law: |play| {
        play.event(play.at, "case_taken");
        transparent(play)
    },
};
