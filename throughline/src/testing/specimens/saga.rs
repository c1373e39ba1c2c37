use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Kind;
use crate::saga::SagaConfig;
use crate::step::workflow;
use crate::testing::play::{Built, Ending, How, Specimen};

/// The work is its only step: where it fails there is nothing to undo, and a panic becomes an error.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "saga",
    observed: true,
    wrap: |inner, place| {
        let undone = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&undone);
        let undo = workflow("undo", move |_: u64| {
            count.fetch_add(1, Ordering::Relaxed);
            async { Ok(()) }
        });
        let flow = inner.undo(undo).saga(SagaConfig::new(&place.operation)).boxed();
        // What is undone though the saga has succeeded, or twice, would never be at rest.
        Ok(Built { flow, held: Box::new(move || undone.load(Ordering::Relaxed)) })
    },
    law: |play| {
        let ending = play.pass();
        match ending.how {
            How::Panic => Ending::error(Kind::Internal, ending.at, "error"),
            _ => ending.hand_on(),
        }
    },
};
