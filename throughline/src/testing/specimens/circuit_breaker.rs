use std::time::Duration;

use super::millis;
use crate::circuit_breaker::{Circuit, CircuitBreakerConfig, Window};
use crate::error::Kind;
use crate::testing::play::{Built, Ending, How, Play, Specimen};

/// One failure opens it. With so many trials it never closes by itself, so that only failures change its state.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "circuit_breaker",
    observed: true,
    wrap: |inner, place| {
        let config = CircuitBreakerConfig::new(&place.operation).window(Window::consecutive(1))?;
        let config = config.open_for(open_for(place.level))?.growth(1.0)?.jitter(0.0)?.trials(1_000)?;
        let circuit = Circuit::new(config.count_slow_drops(false));
        let shared = circuit.clone();
        let held = Box::new(move || u64::from(shared.stats().trials));
        Ok(Built { flow: inner.circuit_breaker(&circuit).boxed(), held })
    },
    law: |play| {
        let began = state(play, play.at);
        if began.1 {
            let how = How::Error { kind: Kind::CircuitOpen, retryable: false };
            return Ending { how, at: play.at, outcome: "rejected" };
        }
        let ending = play.pass().hand_on();
        if failed(&ending.how) && state(play, ending.at) == began {
            play.remember(ending.at, 0);
        }
        ending
    },
};

fn open_for(level: u32) -> Duration {
    millis(331 + 2 * u64::from(level))
}

/// The failures that opened it by then, and whether it is open still.
fn state(play: &Play<'_>, at: Duration) -> (usize, bool) {
    let failures: Vec<_> = play.remembered().into_iter().filter(|(time, _)| *time <= at).collect();
    let last = failures.iter().map(|(time, _)| *time).max();
    (failures.len(), last.is_some_and(|last| at < last + open_for(play.level)))
}

fn failed(how: &How) -> bool {
    match how {
        How::Error { kind: Kind::Timeout | Kind::Upstream, .. } => true,
        How::Error { kind: Kind::Store | Kind::Internal, retryable } => *retryable,
        _ => false,
    }
}
