use super::nothing;
use crate::testing::play::{Built, Specimen};

/// One more box around what is boxed already.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "boxed",
    observed: false,
    wrap: |inner, _| Ok(Built { flow: inner.boxed(), held: nothing() }),
    law: |play| play.pass(),
};
