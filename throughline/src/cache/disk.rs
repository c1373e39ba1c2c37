//! Values in a file, which survive a restart.
//!
//! Use it where a process should find its answers again after a restart and there is no server to share them on. One
//! process has the file at a time; to share answers, use Redis.
//!
//! Values are written behind the run that made them: a thread of the store's own collects what comes within some
//! milliseconds and writes it at once. A crash loses what was not written yet and nothing else. When the file is
//! full, what was stored first and was not asked for since goes. Reading happens off the async threads.
//!
//! The file may be away, of somebody else, damaged, locked by another process, or the disk may be full. Then runs go
//! past the store, which tries again by itself. A damaged file is set aside as `FILE.corrupt`. One that was removed or
//! replaced while it was in use is begun anew where it was.
//!
//! ```
//! use std::time::Duration;
//! use throughline::cache::disk::{Disk, DiskConfig};
//! use throughline::{CacheConfig, Context, JsonCaching, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let file = DiskConfig::new(folder.path().join("squares.cache"), 64 << 20)?;
//! let flow = workflow("square", |n: u64| async move { Ok(n * n) }).cache(
//!     CacheConfig::new("square", Duration::from_secs(60))?,
//!     JsonCaching::keyed(|n: &u64, _, key| key.json(n)),
//!     Disk::new(file),
//! );
//! assert_eq!(flow.run(7, &Context::new()).await?, 49);
//! # Ok(()) }
//! ```
//!
//! Do not put it on a network file system: locks and syncs there are not what they are on a disk.

mod config;
mod failure;
mod file;
mod keeper;
mod listing;
mod pending;
mod running;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::envelope::{open, seal};
use super::health::StoreHealth;
use super::key::Key;
use super::store::{Lifetime, Lookup, Store};
use crate::error::{Error, Kind, Result};
use crate::telemetry::{Registry, Tick};
pub use config::DiskConfig;
use file::File;
use keeper::{Keeper, Shared};
pub use listing::DiskEntries;
use pending::Waiting;
pub use running::RunningEntries;

/// Reads at once. A disk that hangs must not take all threads of the program.
const READS: usize = 8;

/// A store in a file. It opens the file by itself, in the background, when it is first used or its metrics are declared.
pub struct Disk {
    shared: Arc<Shared>,
    keeper: OnceLock<Keeper>,
    reads: Arc<Semaphore>,
}

// === impl Disk ===

impl Disk {
    /// A store in this file, which is not opened yet.
    #[must_use]
    pub fn new(config: DiskConfig) -> Self {
        let health = Arc::new(StoreHealth::found_out_by_the_store(config.name.clone()));
        let shared = Arc::new(Shared::new(config, health));
        Self { shared, keeper: OnceLock::new(), reads: Arc::new(Semaphore::new(READS)) }
    }

    /// Completes once all that was put before has been written, or has failed to be, and the file has been tried.
    pub async fn written(&self) {
        self.keeper().written().await;
    }

    /// As [`Disk::written`], but opens no file that was not used: for the end of a program, which may come before that
    /// of the store's thread.
    pub async fn flush(&self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.written().await;
        }
    }

    /// The thread that has the file, which is started when it is first asked for.
    fn keeper(&self) -> &Keeper {
        self.keeper.get_or_init(|| Keeper::start(&self.shared))
    }

    async fn read(&self, key: Key) -> Result<Option<Bytes>> {
        self.with_file(move |file| file.read(&key)).await
    }

    /// What `work` finds in the file, off the async threads.
    async fn with_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> file::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.keeper();
        let file = self.shared.file()?;
        let gone = |_| Error::new(Kind::Store, "the store is being closed");
        let read = Arc::clone(&file);
        let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(gone)?;
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&read)
        });
        let result = match read.await {
            Ok(result) => result.map_err(|error| failure::of_use(&error)),
            Err(_) => Err(failure::Failure::Damaged),
        };
        result.map_err(|failure| self.shared.suspect(&file, failure))
    }
}

impl Store for Disk {
    async fn get(&self, key: &Key, _: Tick) -> Result<Lookup> {
        let sealed = match self.shared.pending.get(key) {
            Some(Waiting::Put(sealed)) => Some(sealed),
            Some(Waiting::Deleted) => None,
            None => self.read(*key).await?,
        };
        let Some(sealed) = sealed else { return Ok(Lookup::Missing) };
        self.shared.asked(key);
        Ok(match open(key, sealed, wall_clock()) {
            Ok(found) if found.age >= found.lifetime.kept => Lookup::Missing,
            Ok(found) => Lookup::Found(found),
            Err(_) => Lookup::Corrupt,
        })
    }

    async fn put(&self, key: Key, value: Bytes, lifetime: Lifetime, _: Tick) -> Result<bool> {
        let config = &self.shared.config;
        if value.len() as u64 > config.largest {
            return Ok(false);
        }
        self.shared.works()?;
        let sealed = seal(&key, &value, lifetime, wall_clock(), config.compress_from);
        self.keeper().ask(key, Waiting::Put(sealed.into()))?;
        Ok(true)
    }

    async fn delete(&self, key: &Key, _: Tick) -> Result<()> {
        self.shared.works()?;
        self.keeper().ask(*key, Waiting::Deleted)
    }

    fn health(&self) -> Option<Arc<StoreHealth>> {
        Some(Arc::clone(&self.shared.health))
    }

    fn declare(&self, registry: &Registry) {
        self.keeper();
        self.shared.health.shows_in(registry);
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Disk({}, {:?})", self.shared.config.path.display(), self.shared.health)
    }
}

/// The one clock that outlives the process, in milliseconds.
#[expect(clippy::disallowed_methods, reason = "a monotonic clock means nothing after a restart")]
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    millis(since)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
