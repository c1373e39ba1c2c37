use super::{nothing, transparent};
use crate::testing::play::{Built, Specimen};

pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "workflow",
    observed: true,
    wrap: |inner, place| Ok(Built { flow: inner.named(&place.operation).boxed(), held: nothing() }),
    law: transparent,
};
