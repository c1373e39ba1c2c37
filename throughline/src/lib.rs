//! Typed async workflow primitives.

mod cache;
mod context;
mod error;
mod graph;
mod named;
mod primitive;
mod router;
mod step;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod timeout;
mod workflow;

pub use cache::{
    Cache, CacheConfig, CacheEvent, CacheOutcome, CacheStats, Caching, Found, JsonCaching, Key, KeyBuilder,
    Lifetime, Memory, Store,
};
pub use context::{Context, ContextBuilder, State};
pub use error::{Blame, ConfigError, Error, Kind, Result};
pub use graph::Node;
pub use named::Named;
pub use primitive::{Boxed, Primitive};
pub use router::{
    Bill, OnUnknownRoute, Pricing, RouteReason, RouteTaken, Router, RouterConfig, RouterEvent, RouterStats,
    router, weighted,
};
pub use step::{Step, StepWith, workflow, workflow_with};
pub use telemetry::Clock;
pub use timeout::{Detached, Timeout, TimeoutConfig, TimeoutEvent, TimeoutOutcome, TimeoutStats};
pub use workflow::{Branches, Chain, Fan, One, Pipe, Workflow};
