//! How do I stop calling what is down?
//!
//! A provider goes down. Two workflows call it and share one circuit: after some failures they stop calling, and
//! are told at once; a trial now and then finds out when it is back.
//!
//! ```text
//! cargo run -p throughline --example circuit_breaker
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use throughline::circuit_breaker::{CircuitState, Window};
use throughline::{Circuit, CircuitBreakerConfig, Context, Error, Kind, workflow};

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (up, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let provider = |name: &'static str| {
        let (up, calls) = (Arc::clone(&up), Arc::clone(&calls));
        workflow(name, move |question: &'static str| {
            calls.fetch_add(1, Ordering::Relaxed);
            let up = up.load(Ordering::Relaxed);
            async move {
                if up {
                    Ok(question.len())
                } else {
                    Err(Error::new(Kind::Upstream, "the provider answered 503"))
                }
            }
        })
    };

    // Half of the last ten calls, but not before four: open for 200 ms, then two trials.
    let circuit = Circuit::new(
        CircuitBreakerConfig::new("provider")
            .window(Window::count(10))?
            .min_calls(4)?
            .failure_rate(0.5)?
            .open_for(Duration::from_millis(200))?
            .trials(2)?,
    );
    let chat = provider("chat").circuit_breaker(&circuit);
    let embed = provider("embed").circuit_breaker(&circuit);
    let cx = Context::new();

    assert_eq!(chat.run("why?", &cx).await?, 4);
    up.store(false, Ordering::Relaxed);
    for _ in 0..3 {
        let error = chat.run("why?", &cx).await.expect_err("the provider is down");
        assert_eq!(error.kind(), Kind::Upstream);
    }
    assert_eq!(circuit.state(), CircuitState::Open, "three of four have failed");

    // Now nobody calls the provider, and nobody waits for it.
    let before = calls.load(Ordering::Relaxed);
    for _ in 0..100 {
        let error = embed.run("why?", &cx).await.expect_err("the circuit is open");
        assert_eq!(error.kind(), Kind::CircuitOpen);
        assert!(!error.is_retryable(), "a fallback can help, another try here cannot");
    }
    assert_eq!(calls.load(Ordering::Relaxed), before);

    up.store(true, Ordering::Relaxed);
    let error = embed.run("why?", &cx).await.expect_err("the circuit is open");
    tokio::time::sleep(error.retry_after().unwrap_or_default()).await;
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
    assert_eq!(chat.run("why?", &cx).await?, 4);
    assert_eq!(embed.run("why?", &cx).await?, 4);
    assert_eq!(circuit.state(), CircuitState::Closed, "both trials went well");

    // An operator can take it out of the way, or put it in it.
    circuit.force_open();
    let error = chat.run("why?", &cx).await.expect_err("the circuit is forced open");
    assert_eq!(error.to_string(), "circuit forced open until it is reset");
    circuit.metrics_only();
    assert_eq!(chat.run("why?", &cx).await?, 4);

    let stats = circuit.stats();
    assert_eq!((stats.failures, stats.rejected, stats.opened), (3, 102, 1));
    Ok(())
}
