//! What the concurrent cores lock and count with. Tests that explore interleavings put loom's in its place.

pub(crate) use std::sync::{Mutex, atomic};
