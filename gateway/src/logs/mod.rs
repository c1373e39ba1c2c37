//! What the gateway logs, and how a line gets out: a file a step.
//!
//! An event becomes a [`Record`](record::Record) where it happens (`layer.rs`), unless there were too many like it
//! (`repeats.rs`). A thread of its own (`writer.rs`) takes out what is secret, makes a line of it (`line.rs`) and writes it
//! (`target.rs`). Whatever goes wrong there is counted and shown (`condition.rs`), and no request waits for it.
//!
//! What a request has to say is in `requests.rs` and `access.rs`; the ids of its trace come from `current.rs`.

mod access;
mod condition;
pub(crate) mod current;
mod layer;
mod level;
mod line;
mod panics;
mod record;
mod repeats;
pub(crate) mod requests;
mod start;
mod target;
mod visible;
mod writer;

pub(crate) use access::{Access, Asked, Used};
pub(crate) use condition::{FAMILIES, Loss};
pub(crate) use level::Level;
pub(crate) use line::Format;
pub(crate) use panics::report_panics;
pub(crate) use repeats::Limit;
pub(crate) use start::{Logs, complain};
pub(crate) use visible::visible;
