//! For tests of workflows: work that follows a script, telemetry that remembers, and faults by chance.
//!
//! * [`Script`] stands in for the model: it answers, fails, waits, hangs or panics as it was told, and
//!   knows how often it was called and what is still running.
//! * [`Recorder`] is a telemetry instance of one test: every metric and every span.
//! * [`Workflow::chaos`](crate::Workflow::chaos) puts latency, errors and wrong answers into a workflow.
//! * [`specimens()`] has every wrapper of this library with a model of what it does, for tests of pairs.
//!
//! Time in tests stands still and moves on when everything waits: `#[tokio::test(start_paused = true)]`.
//!
//! ```
//! use std::time::Duration;
//! use throughline::testing::{Recorder, Script, Turn};
//! use throughline::{Error, Kind, TimeoutConfig};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Script::new("model").then(Turn::value(1).after(Duration::from_secs(3))).then(Turn::hang());
//! let flow = model.workflow().timeout(TimeoutConfig::new("ask", Duration::from_secs(5))?);
//!
//! let recorder = Recorder::new();
//! assert_eq!(flow.run("why?", &recorder.context()).await?, 1);
//! assert_eq!(flow.run("why?", &recorder.context()).await.unwrap_err().kind(), Kind::Timeout);
//! assert_eq!((model.calls(), model.running()), (2, 0));
//! assert_eq!(recorder.metric("timeout_failures_total", &[]), Some(1.0));
//! # Ok(()) }
//! ```

mod chaos;
mod play;
mod recorder;
mod script;
mod specimens;

pub use chaos::{Chaos, ChaosConfig, ChaosEvent};
pub use play::{Built, Ending, How, Law, Mark, Place, Play, Scene, Specimen, Told, Wrap};
pub use recorder::{Recorder, SpanData};
pub use script::{Script, Scripted, Turn};
pub use specimens::specimens;
