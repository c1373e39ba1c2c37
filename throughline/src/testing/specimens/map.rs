use super::nothing;
use crate::testing::play::{Built, Specimen};

pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "map",
    observed: false,
    wrap: |inner, _| Ok(Built { flow: inner.map(|n| n).boxed(), held: nothing() }),
    law: |play| play.pass(),
};
