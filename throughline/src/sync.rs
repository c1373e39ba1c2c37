//! What concurrency cores use of `std::sync`, in one place, so that their tests can put loom's there instead.

pub(crate) use std::sync::{Mutex, PoisonError, atomic};
