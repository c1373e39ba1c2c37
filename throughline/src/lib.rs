//! Typed async workflow primitives that compose, and report what they did.
//!
//! ```text
//!   question ─► trim ─► fallback ─┬─► cache ─┬─► an answer from before
//!                                 │          └─► retry ─► timeout ─► large model
//!                                 └─► small model, where all of that has failed
//! ```
//!
//! ```
//! use std::time::Duration;
//! use throughline::telemetry::{Telemetry, Traces};
//! use throughline::{CacheConfig, FallbackConfig, JsonCaching, Memory, RetryConfig, TimeoutConfig, workflow};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let telemetry = Telemetry::builder().traces(Traces::Console).init(); // metrics on 127.0.0.1:9464
//!     let small = workflow("small", |q: String| async move { Ok(format!("small model: {q}")) });
//!     let key = JsonCaching::keyed(|q: &String, _, key| Some(key.text(q)));
//!     let large = workflow("large", |q: String| async move { Ok(format!("large model: {q}")) })
//!         .timeout(TimeoutConfig::new("attempt", Duration::from_secs(20))?)
//!         .retry(RetryConfig::new("large").max_attempts(3)?)
//!         .cache(CacheConfig::new("answers", Duration::from_secs(600))?, key, Memory::new(1 << 20)?)
//!         .fallback(FallbackConfig::new("answer").then("small", small))?;
//!     let ask = (workflow("trim", |q: String| async move { Ok(q.trim().to_owned()) }) >> large).named("ask");
//!     println!("{}", ask.run(" why? ".to_owned(), &throughline::Context::new()).await?);
//!     println!("{}", telemetry.sink().render());
//!     Ok(())
//! }
//! ```
//!
//! It needs tokio with the features `macros` and `rt-multi-thread`, and `endpoint` of this crate for the
//! metrics on port 9464.
//!
//! # Concepts
//! * A [`Workflow`] is work that composes: `>>` pipes, `|` runs side by side, methods wrap, outermost last.
//!   [`workflow()`] makes one of an async function. Piping is not wrapping: see [`workflow`](mod@workflow).
//! * A *stage* is a part that is seen: a function with a name, or a primitive around one, such as a retry. Its
//!   *operation* is the name that it was given; metrics, spans and the graph show it, so it comes from code and
//!   never from an input.
//! * A primitive is configured by an `XConfig`. A number that makes no sense is a [`ConfigError`] when the workflow
//!   is built, hence the `?`. `flow.stage().stats()` says what the outermost stage has seen.
//! * A [`Context`] goes with every run: ids, trace, deadline, cancellation, shared state. One request, one
//!   context. Give a pipe a name ([`Workflow::named`]): it makes one trace of its stages, which otherwise
//!   begin a trace each where the context does not continue one.
//! * An [`Error`] says what went wrong, whether another try helps, and whose fault it is. Wrappers decide by
//!   that and never by text.
//! * An output may be a [`stream`]: every wrapper goes on until it has ended.
//! * Dropping a run cancels it: whatever it held is given back, and it counts as cancelled.
//! * [`telemetry`] is how all of it is seen: a span, durations by outcome and events of every stage.
//!
//! The [order of wrapping](guide) has the stack to begin with, and two that are wrong.
//!
//! # Primitives by question
//!
//! **To choose**
//! * Which of several should answer, and what did that save? [`router()`]
//! * How do I choose by content? [`switch()`]
//! * How do I do something only where it is called for? [`conditional()`]
//!
//! **To do several things**
//! * How do I ask several and take every result, the first or the first few? [`Workflow::settle`],
//!   [`Workflow::race`], [`Workflow::quorum`], [`parallel()`]
//! * How do I run 100 prompts, 8 at a time? [`Workflow::each`]
//! * How do I turn one type into another between two stages? [`Workflow::map`]
//! * How do I give an answer piece by piece? [`workflow_stream`]
//! * How do I undo what was done when a later step fails? [`Workflow::saga`]
//!
//! **When it may go wrong**
//! * What if it fails now and then? [`Workflow::retry`]
//! * What if it is down? [`Workflow::fallback`]
//! * How do I stop calling what is down? [`Workflow::circuit_breaker`]
//! * How do I cap what retries, hedges and fallbacks add to the load? [`Budget`]
//!
//! **When it may be slow**
//! * Do we know the answer already? [`Workflow::cache`]
//! * What if it takes too long? [`Workflow::timeout`]
//! * And if it blocks its thread? [`Workflow::timeout_detached`]
//! * And if nobody knows how long that is? [`Workflow::adaptive_timeout`]
//! * What if a few answers are much slower than the rest? [`Workflow::hedge`]
//!
//! **When there is too much of it**
//! * How do I keep one slow dependency from taking all the workers? [`Workflow::bulkhead`]
//! * How do I stay under a provider's requests and tokens per minute? [`Workflow::rate_limit`]
//! * How many requests at once can the model server take? [`Workflow::shed`]
//!
//! **To put it together**
//! * How do I see a whole workflow as one? [`Workflow::named`]
//! * How do I put unlike workflows into one collection? [`Workflow::boxed`]
//! * What did I build? [`Workflow::describe`]: JSON, Mermaid, a tree
//! * How do I test what I built? The module `testing`: scripts, recorders, faults by chance
//! * How do I write a primitive of my own? [`telemetry::Stage`]
//!
//! The folder `examples` answers more questions, one file each.
//!
//! # Features
//! None is on by default, and without them there is no HTTP crate in the tree.
//!
//! | feature | what it adds |
//! |---|---|
//! | `endpoint` | metrics on 127.0.0.1:9464, from a thread of its own |
//! | `otlp` | traces to an OTLP receiver |
//! | `disk` | a cache store in a file: [`cache::disk`] |
//! | `redis` | a cache store on a Redis or Valkey server: [`cache::redis`] |
//! | `testing` | scripted work, recorded telemetry, faults by chance: the module `testing` |
//! | `tower` | tower services of workflows and workflows of tower services: the module `tower` |

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

pub mod adaptive_timeout;
mod attempt;
pub mod budget;
pub mod bulkhead;
pub mod cache;
pub mod circuit_breaker;
pub mod conditional;
pub mod context;
pub mod error;
pub mod fallback;
pub mod graph;
#[doc = include_str!("../../docs/guides/order-of-wrapping.md")]
pub mod guide {}
pub mod hedge;
mod latency;
pub mod map;
pub mod named;
pub mod parallel;
pub mod primitive;
pub mod propagation;
pub mod rate_limit;
pub mod redact;
pub mod retry;
pub mod router;
pub mod saga;
pub mod shed;
pub mod step;
pub mod stream;
pub mod switch;
pub(crate) mod sync;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timeout;
#[cfg(feature = "tower")]
pub mod tower;
mod usd;
pub mod workflow;

pub use adaptive_timeout::AdaptiveTimeoutConfig;
pub use budget::{Budget, BudgetConfig};
pub use bulkhead::{BulkheadConfig, Compartment};
pub use cache::{CacheConfig, CacheOutcome, Caching, JsonCaching, Key, KeyBuilder, Memory, Store};
pub use circuit_breaker::{Circuit, CircuitBreakerConfig};
pub use conditional::{ConditionalConfig, conditional};
pub use context::{Context, State};
pub use error::{Blame, ConfigError, Error, Kind, Result};
pub use fallback::FallbackConfig;
pub use graph::Node;
pub use hedge::{HedgeConfig, HedgeDelay};
pub use parallel::{ParallelConfig, parallel};
pub use primitive::{Boxed, Primitive};
pub use rate_limit::{Allowance, Quota, RateLimitConfig};
pub use retry::{Backoff, Jitter, RetryConfig};
pub use router::{Bill, Pricing, RouteTaken, RouterConfig, router, weighted};
pub use saga::SagaConfig;
pub use shed::ShedConfig;
pub use step::{workflow, workflow_stream, workflow_with};
pub use stream::{ItemStream, Streaming};
pub use switch::{SwitchConfig, switch};
pub use telemetry::Clock;
pub use timeout::TimeoutConfig;
#[cfg(feature = "tower")]
pub use tower::workflow_of_service;
pub use workflow::Workflow;
