//! The entries of a file that no gateway has open.

use bytes::Bytes;

use super::config::DiskConfig;
use super::failure::{Failure, of_use};
use super::file::{Change, File};
use super::pending::Waiting;
use super::wall_clock;
use crate::cache::entries::{Entries, Entry};
use crate::cache::envelope::{HEADER, open, peek};
use crate::cache::key::Key;
use crate::cache::store::Found;
use crate::error::{Error, Result};

/// Entries at once.
pub(super) const PAGE: usize = 512;

/// The entries of a disk store's file, which nobody else has open meanwhile. It works on the thread that it is asked
/// on: it is for commands.
pub struct DiskEntries {
    config: DiskConfig,
    file: File,
    last: Option<Key>,
}

// === impl DiskEntries ===

impl DiskEntries {
    /// Opens the file, which must be there.
    ///
    /// # Errors
    /// When it is not there, not ours, damaged, or open in another process.
    pub fn open(config: DiskConfig) -> Result<Self> {
        let failed = |failure: &Failure| Err(failure.of(&config.path));
        if !config.path.exists() {
            return failed(&Failure::System("there is no such file"));
        }
        match std::panic::catch_unwind(|| File::open(&config)) {
            Ok(Ok(file)) => Ok(Self { config, file, last: None }),
            Ok(Err(failure)) => failed(&failure),
            Err(_) => failed(&Failure::Damaged),
        }
    }

    fn failure(&self, error: &redb::Error) -> Error {
        of_use(error).of(&self.config.path)
    }
}

/// What a page of the file says of its entries.
pub(super) fn entries(page: Vec<(Key, Bytes, u64)>) -> Vec<Entry> {
    let now = wall_clock();
    let entry = |(key, head, bytes): (Key, Bytes, u64)| {
        let (name, stored) = (key.to_string(), peek(&head, now));
        Entry { key, name, part: 0, bytes, stored }
    };
    page.into_iter().map(entry).collect()
}

impl Entries for DiskEntries {
    async fn get(&mut self, key: &Key) -> Result<Option<Found>> {
        let sealed = self.file.read(key).map_err(|error| self.failure(&error))?;
        Ok(sealed.and_then(|sealed: Bytes| open(key, sealed, wall_clock()).ok()))
    }

    async fn count(&mut self) -> Result<u64> {
        self.file.len().map_err(|error| self.failure(&error))
    }

    async fn next(&mut self) -> Result<Option<Vec<Entry>>> {
        let page = self.file.list(self.last, PAGE, HEADER).map_err(|error| self.failure(&error))?;
        let Some((last, _, _)) = page.last() else { return Ok(None) };
        self.last = Some(*last);
        Ok(Some(entries(page)))
    }

    async fn remove(&mut self, entries: &[Entry]) -> Result<u64> {
        let before = self.count().await?;
        let changes: Vec<Change> = entries.iter().map(|entry| (entry.key, Waiting::Deleted)).collect();
        self.file.write(&changes, &|_| false).map_err(|error| self.failure(&error))?;
        Ok(before - self.count().await?)
    }
}
