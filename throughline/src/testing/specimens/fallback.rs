use super::nothing;
use crate::error::Kind;
use crate::fallback::FallbackConfig;
use crate::testing::play::{Built, Ending, How, Play, Specimen};

/// Asks the same work again.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "fallback",
    observed: true,
    wrap: |inner, place| {
        let again = FallbackConfig::new(&place.operation).then("again", inner.clone());
        Ok(Built { flow: inner.fallback(again)?.boxed(), held: nothing() })
    },
    law: |play| {
        let first = match primary(play) {
            Ok(ending) => return ending,
            Err(first) => first,
        };
        if play.deadline.is_some_and(|deadline| first.at >= deadline) {
            play.event(first.at, "no_time_left");
            play.event(first.at, "exhausted");
            return first.hand_on();
        }
        play.event(first.at, "fell_back");
        let second = play.call(first.at, play.deadline).0;
        match second.how {
            How::Value(_) => Ending { outcome: "fallback", ..second },
            How::Error { .. } => {
                play.event(second.at, "exhausted");
                Ending { at: second.at, ..first }.hand_on()
            }
            How::Panic | How::Never => second.hand_on(),
        }
    },
};

/// Answers with a constant.
pub(super) const CONSTANT: Specimen = Specimen {
    primitive: "fallback",
    observed: true,
    wrap: |inner, place| {
        let constant = FallbackConfig::new(&place.operation).then_value("constant", CONSTANT_VALUE);
        Ok(Built { flow: inner.fallback(constant)?.boxed(), held: nothing() })
    },
    law: |play| match primary(play) {
        Ok(ending) => ending,
        Err(first) => {
            play.event(first.at, "fell_back");
            Ending { how: How::Value(CONSTANT_VALUE), outcome: "fallback", ..first }
        }
    },
};

const CONSTANT_VALUE: u64 = 99;

/// What the workflow itself came to, or as an error what an alternative is for.
fn primary(play: &mut Play<'_>) -> Result<Ending, Ending> {
    let ending = play.pass();
    match ending.how {
        How::Value(_) => Ok(Ending { outcome: "primary", ..ending }),
        How::Error { kind: Kind::InvalidInput | Kind::Cancelled, .. } => {
            play.event(ending.at, "not_handled");
            Ok(ending.hand_on())
        }
        How::Error { .. } => Err(ending),
        How::Panic | How::Never => Ok(ending.hand_on()),
    }
}
