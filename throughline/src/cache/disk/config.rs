//! Which file a disk store is in, and how large it may be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::ConfigError;

/// The least a file is of use with.
const SMALLEST: u64 = 4 << 20;
/// The largest value of all, and the largest share of the file that one may take.
const LARGEST: u64 = 8 << 20;
const SHARE: u64 = 16;

/// Which file a disk store is in, and how large it may be.
#[derive(Clone, Debug)]
#[must_use = "a configuration does nothing until it is given to `Disk::new`"]
pub struct DiskConfig {
    pub(super) path: PathBuf,
    pub(super) max_bytes: u64,
    pub(super) name: String,
    pub(super) deadline: Duration,
    pub(super) largest: u64,
    pub(super) compress_from: usize,
}

// === impl DiskConfig ===

impl DiskConfig {
    /// The file at `path`, which is made if it is not there, and takes at most `max_bytes` of the disk. Its length may
    /// say up to twice as much, for parts that were never written.
    ///
    /// # Errors
    /// When `max_bytes` is below 4 MiB.
    pub fn new(path: impl Into<PathBuf>, max_bytes: u64) -> Result<Self, ConfigError> {
        if max_bytes < SMALLEST {
            return Err(ConfigError::refused(
                "disk store max_bytes",
                max_bytes,
                format_args!("at least {SMALLEST}"),
            ));
        }
        Ok(Self {
            path: path.into(),
            max_bytes,
            name: "disk".to_owned(),
            deadline: Duration::from_millis(20),
            largest: LARGEST.min(max_bytes / SHARE),
            compress_from: 2 << 10,
        })
    }

    /// What the store is called in metrics and health. Default: `disk`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long one call should take at most; for [`CacheConfig::store_deadline`](crate::CacheConfig::store_deadline).
    /// Default: 20ms.
    ///
    /// # Errors
    /// When it is zero.
    pub fn deadline(mut self, deadline: Duration) -> Result<Self, ConfigError> {
        if deadline.is_zero() {
            return Err(ConfigError::refused("disk deadline", format_args!("0s"), "more"));
        }
        self.deadline = deadline;
        Ok(self)
    }

    /// See [`DiskConfig::deadline`].
    #[must_use]
    pub fn call_deadline(&self) -> Duration {
        self.deadline
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How much of the disk it may take.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }
}
