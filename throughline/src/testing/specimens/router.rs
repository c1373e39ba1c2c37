use super::{nothing, transparent};
use crate::router::{RouterConfig, router};
use crate::testing::play::{Built, Specimen};

pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "router",
    observed: true,
    wrap: |inner, place| {
        let only = RouterConfig::new(&place.operation).route("only", inner).select(|_, _| Ok("only".into()));
        Ok(Built { flow: router(only)?.boxed(), held: nothing() })
    },
    law: transparent,
};
