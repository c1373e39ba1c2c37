use super::transparent;
use crate::bulkhead::{BulkheadConfig, Compartment};
use crate::testing::play::{Built, Specimen};

/// There is a place for whoever comes.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "bulkhead",
    observed: true,
    wrap: |inner, place| {
        let places = Compartment::new(BulkheadConfig::new(&place.operation, 3)?.queue(1));
        let flow = inner.bulkhead(places.clone()).boxed();
        Ok(Built { flow, held: Box::new(move || (places.in_use() + places.queued()) as u64) })
    },
    law: transparent,
};
