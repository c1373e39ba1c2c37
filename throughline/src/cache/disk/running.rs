//! The entries of a file that this process has open, beside those who use it.

use std::sync::Arc;

use super::listing::{PAGE, entries};
use super::pending::Waiting;
use super::{Disk, wall_clock};
use crate::cache::entries::{Entries, Entry};
use crate::cache::envelope::{HEADER, open};
use crate::cache::key::Key;
use crate::cache::store::Found;
use crate::error::Result;

/// The entries of a [`Disk`] that caches use meanwhile. What was put before the walk begins is seen.
#[derive(Debug)]
pub struct RunningEntries {
    disk: Arc<Disk>,
    begun: bool,
    last: Option<Key>,
}

// === impl Disk ===

impl Disk {
    /// Its entries, from the first, while caches go on using it.
    #[must_use]
    pub fn entries(self: &Arc<Self>) -> RunningEntries {
        RunningEntries { disk: Arc::clone(self), begun: false, last: None }
    }
}

// === impl RunningEntries ===

impl RunningEntries {
    /// What waits to be written is no entry of the file yet.
    async fn begin(&mut self) {
        if !self.begun {
            self.disk.written().await;
            self.begun = true;
        }
    }
}

impl Entries for RunningEntries {
    async fn get(&mut self, key: &Key) -> Result<Option<Found>> {
        self.begin().await;
        let sealed = self.disk.read(*key).await?;
        Ok(sealed.and_then(|sealed| open(key, sealed, wall_clock()).ok()))
    }

    async fn count(&mut self) -> Result<u64> {
        self.begin().await;
        self.disk.with_file(|file| file.len()).await
    }

    async fn next(&mut self) -> Result<Option<Vec<Entry>>> {
        self.begin().await;
        let last = self.last;
        let page = self.disk.with_file(move |file| file.list(last, PAGE, HEADER)).await?;
        let Some((last, _, _)) = page.last() else { return Ok(None) };
        self.last = Some(*last);
        Ok(Some(entries(page)))
    }

    async fn remove(&mut self, entries: &[Entry]) -> Result<u64> {
        let keys: Vec<Key> = entries.iter().map(|entry| entry.key).collect();
        let asked = keys.clone();
        let held = self.disk.with_file(move |file| file.held(&asked)).await?;
        for key in keys {
            // Where too much waits already, it is waited for: a walk is in no hurry.
            if self.disk.keeper().ask(key, Waiting::Deleted).is_err() {
                self.disk.written().await;
                self.disk.keeper().ask(key, Waiting::Deleted)?;
            }
        }
        self.disk.written().await;
        // A write that failed is not said to be done.
        self.disk.shared.file()?;
        Ok(held)
    }
}
