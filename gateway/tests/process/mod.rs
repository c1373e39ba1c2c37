//! The gateway as a process of its own, and what tests ask it.

#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

pub(crate) mod client;
pub(crate) mod launch;
pub(crate) mod prometheus;
pub(crate) mod upstream;

pub(crate) use client::{Answer, chat};
pub(crate) use launch::{Finished, Gateway, Launch};
pub(crate) use upstream::{Step, Upstream};

use std::time::Duration;

/// How long anything here may take before it counts as broken. Far longer than it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// The configuration of a provider that answers at once, always the same.
pub(crate) const PROMPT_PROVIDER: &str = r#"
[providers.sim.simulated]
latency = { p50 = "1ms", p99 = "1ms" }
tokens_per_second = 1000000.0
answers = ["Tuesday, as far as I know."]
"#;

/// A model `auto` of one route, `only`, to [`PROMPT_PROVIDER`].
pub(crate) const PROMPT_MODEL: &str = r#"
[models.auto.routes.only]
provider = "sim"
model = "gpt-4o-mini"
"#;

/// [`PROMPT_PROVIDER`] and [`PROMPT_MODEL`], after `more`.
pub(crate) fn prompt_config(more: &str) -> String {
    format!("{more}\n{PROMPT_PROVIDER}\n{PROMPT_MODEL}")
}
