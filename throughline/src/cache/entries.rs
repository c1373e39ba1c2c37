//! What a store holds, for those who look after it.

use std::future::Future;
use std::time::Duration;

use super::key::Key;
use super::store::{Found, Lifetime};
use crate::error::Result;

/// Something in a store.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// Under which key.
    pub key: Key,
    /// What it is called in the store.
    pub name: String,
    /// Which part of the store has it.
    pub(super) part: usize,
    /// What it takes in the store, in bytes.
    pub bytes: u64,
    /// What its envelope says; `None` if it is of another version, or no envelope at all.
    pub stored: Option<Stored>,
}

/// What an envelope says of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// Since when it is there.
    pub age: Duration,
    /// For how long.
    pub lifetime: Lifetime,
    /// The length of the value before compression, in bytes.
    pub length: u64,
}

/// The entries of a store, a page at a time.
pub trait Entries: Send {
    /// The value under `key`, however old it is; `None` if there is none that can be read.
    ///
    /// # Errors
    /// When the store fails.
    fn get(&mut self, key: &Key) -> impl Future<Output = Result<Option<Found>>> + Send;

    /// How many there are, as far as that is cheaply known: for progress.
    ///
    /// # Errors
    /// When the store cannot say.
    fn count(&mut self) -> impl Future<Output = Result<u64>> + Send;

    /// Some more entries; `None` after the last. An entry that comes or goes meanwhile may be missing or come twice.
    ///
    /// # Errors
    /// When the store fails.
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<Entry>>>> + Send;

    /// Removes these entries of this store, and says how many there still were.
    ///
    /// # Errors
    /// When the store fails.
    fn remove(&mut self, entries: &[Entry]) -> impl Future<Output = Result<u64>> + Send;
}
