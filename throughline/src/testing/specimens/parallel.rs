use super::nothing;
use crate::error::ConfigError;
use crate::parallel::{ParallelConfig, parallel};
use crate::primitive::{Boxed, Primitive};
use crate::step::workflow;
use crate::testing::play::{Built, Ending, How, Place, Play, Specimen};
use crate::workflow::Workflow;

/// A single branch, whose failure is a result.
pub(super) const SETTLE: Specimen = Specimen {
    primitive: "settle",
    observed: true,
    wrap: |inner, place| {
        let settled = parallel(config(place).settle(), vec![inner])?;
        built(settled >> workflow("only", |results: Vec<_>| async { only(results).await? }))
    },
    law: |play| {
        let ending = law(play);
        let outcome = if let How::Error { .. } = ending.how { "success" } else { ending.outcome };
        Ending { outcome, ..ending }
    },
};

/// A race of one.
pub(super) const RACE: Specimen = Specimen {
    primitive: "race",
    observed: true,
    wrap: |inner, place| built(parallel(config(place).race(), vec![inner])?),
    law,
};

/// A list of one input.
pub(super) const EACH: Specimen = Specimen {
    primitive: "each",
    observed: true,
    wrap: |inner, place| {
        let list = workflow("list", |input: u64| async move { Ok(vec![input]) });
        built(list >> inner.each(config(place).max_concurrent(1)?) >> workflow("only", only))
    },
    law,
};

fn config(place: &Place) -> ParallelConfig {
    ParallelConfig::new(&place.operation)
}

fn built<P: Primitive<In = u64, Out = u64>, Shape>(flow: Workflow<P, Shape>) -> Result<Built, ConfigError> {
    let flow: Workflow<Boxed<u64, u64>> = flow.boxed();
    Ok(Built { flow, held: nothing() })
}

async fn only<T>(results: Vec<T>) -> crate::Result<T> {
    Ok(results.into_iter().next().expect("one branch gives one result"))
}

fn law(play: &mut Play<'_>) -> Ending {
    let ending = play.pass();
    if let How::Error { .. } = ending.how {
        play.event(ending.at, "branch_failed");
    }
    ending.hand_on()
}
