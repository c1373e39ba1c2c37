//! The file itself: which tables there are, what a write does, and who leaves when it is full.
//!
//! | table | key | value |
//! |---|---|---|
//! | `values` | key | the sealed value |
//! | `places` | key | its place in the order, and what it takes |
//! | `order` | place | key |
//! | `about` | name | the version of this layout, what all values take, the next place |

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition,
    TableHandle as _, WriteTransaction,
};

use super::config::DiskConfig;
use super::failure::{Failure, of_open, of_system, of_use};
use super::pending::Waiting;
use crate::cache::key::Key;

pub(super) type Result<T> = std::result::Result<T, redb::Error>;

pub(super) const VALUES: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("values");
const PLACES: TableDefinition<'_, [u8; 32], (u64, u64)> = TableDefinition::new("places");
const ORDER: TableDefinition<'_, u64, [u8; 32]> = TableDefinition::new("order");
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");

/// Changes with the tables. A file of another version is not ours.
const LAYOUT: u64 = 1;
/// Of the file, as much as its pages may hold: the rest is for what is being rewritten.
const FILLED: (u64, u64) = (5, 8);
/// Near the bound, the file is filled less than that: what values take is estimated.
const NEAR: (u64, u64) = (15, 16);
const PAGE: u64 = 4096;
/// What an entry takes in the tables beside its value.
const BESIDE: u64 = 384;

/// Whether a key was asked for since it was last asked about.
pub(super) type WasAsked<'a> = &'a dyn Fn(&Key) -> bool;

/// A change with its key.
pub(super) type Change = (Key, Waiting);

/// An open file.
pub(super) struct File {
    db: Database,
    path: PathBuf,
    max_bytes: u64,
    /// What values may take together.
    budget: AtomicU64,
    /// The most that the file has taken of the disk.
    taken: AtomicU64,
    /// What was at the path when it was opened.
    identity: Option<Identity>,
}

/// What tells a file from another one: its device and its number there.
type Identity = (u64, u64);

// === impl File ===

impl File {
    /// Opens the file or makes it.
    pub(super) fn open(config: &DiskConfig) -> std::result::Result<Self, Failure> {
        let mut options = OpenOptions::new();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        // Answers are nobody else's to read.
        options.read(true).write(true).create(true).truncate(false);
        options.open(&config.path).map_err(|error| of_system(&error))?;
        let cache = usize::try_from((config.max_bytes / 16).min(32 << 20)).expect("32 MiB fit");
        let db = Database::builder()
            .set_cache_size(cache)
            .create(&config.path)
            .map_err(|error| of_open(&error))?;
        let mut file = Self {
            db,
            path: config.path.clone(),
            max_bytes: config.max_bytes,
            budget: AtomicU64::new(config.max_bytes / FILLED.1 * FILLED.0),
            taken: AtomicU64::new(0),
            identity: at(&config.path).ok().flatten(),
        };
        file.prepare().map_err(|problem| match problem {
            Some(error) => of_use(&error),
            None => Failure::Foreign,
        })?;
        file.shrink()?;
        Ok(file)
    }

    /// Makes a file smaller that may not be as large as it was. Nobody reads yet.
    fn shrink(&mut self) -> std::result::Result<(), Failure> {
        while taken(&self.path).is_some_and(|taken| taken > self.max_bytes) {
            let moved = self.db.compact().map_err(|_| Failure::System("it could not be made smaller"))?;
            if !moved {
                break;
            }
        }
        Ok(())
    }

    /// Makes the tables, and sees that it is a file of ours and no larger than it may be: `None` if it is not ours.
    fn prepare(&mut self) -> std::result::Result<(), Option<redb::Error>> {
        let write = begin(&self.db)?;
        let names: Vec<_> =
            write.list_tables().map_err(redb::Error::from)?.map(|table| table.name().to_owned()).collect();
        let layout = if names.iter().any(|name| name == ABOUT.name()) {
            let about = write.open_table(ABOUT).map_err(redb::Error::from)?;
            about.get("layout").map_err(redb::Error::from)?.map(|layout| layout.value())
        } else if names.is_empty() {
            None
        } else {
            return Err(None);
        };
        if layout.is_some_and(|layout| layout != LAYOUT) {
            return Err(None);
        }
        self.make_tables(&write)?;
        write.commit().map_err(redb::Error::from)?;
        Ok(())
    }

    fn make_tables(&self, write: &WriteTransaction) -> Result<()> {
        write.open_table(VALUES)?;
        write.open_table(PLACES)?;
        write.open_table(ORDER)?;
        write.open_table(ABOUT)?.insert("layout", LAYOUT)?;
        Tables::open(write)?.make_room(self.budget.load(Ordering::Relaxed), &|_| false)
    }

    /// The sealed value under `key`.
    pub(super) fn read(&self, key: &Key) -> Result<Option<Bytes>> {
        let values = self.db.begin_read()?.open_table(VALUES)?;
        Ok(values.get(key.as_bytes())?.map(|sealed| Bytes::copy_from_slice(sealed.value())))
    }

    /// Makes all changes or none. `asked` says which keys stay when others must go.
    pub(super) fn write(&self, changes: &[Change], asked: WasAsked<'_>) -> Result<()> {
        let write = begin(&self.db)?;
        {
            let mut tables = Tables::open(&write)?;
            for (key, change) in changes {
                tables.remove(key.as_bytes())?;
                if let Waiting::Put(sealed) = change {
                    tables.add(key.as_bytes(), sealed)?;
                }
            }
            tables.make_room(self.budget.load(Ordering::Relaxed), asked)?;
        }
        write.commit()?;
        self.watch();
        Ok(())
    }

    /// Fills the file less when it comes near its bound: it never becomes smaller by itself.
    fn watch(&self) {
        let Some(taken) = taken(&self.path) else { return };
        if taken > self.taken.fetch_max(taken, Ordering::Relaxed) && taken > self.max_bytes / NEAR.1 * NEAR.0
        {
            let less = self.budget.load(Ordering::Relaxed) / NEAR.1 * NEAR.0;
            self.budget.store(less.max(self.max_bytes / 8), Ordering::Relaxed);
        }
    }

    /// Whether the path leads to this file no more, which then nobody else sees and no restart finds. What cannot be looked at
    /// is taken to be there.
    pub(super) fn is_gone(&self) -> bool {
        self.identity.is_some() && at(&self.path).is_ok_and(|found| found != self.identity)
    }

    /// As many entries as fit into a page, after `last`, and the beginning and the length of what each holds.
    pub(super) fn list(&self, last: Option<Key>, most: usize, head: usize) -> Result<Vec<(Key, Bytes, u64)>> {
        let values = self.db.begin_read()?.open_table(VALUES)?;
        let first =
            last.map_or(std::ops::Bound::Unbounded, |last| std::ops::Bound::Excluded(*last.as_bytes()));
        let range = values.range::<[u8; 32]>((first, std::ops::Bound::Unbounded))?;
        let mut page = Vec::new();
        for entry in range.take(most) {
            let (key, sealed) = entry?;
            let sealed = sealed.value();
            let head = Bytes::copy_from_slice(&sealed[..head.min(sealed.len())]);
            page.push((Key::from_bytes(key.value()), head, sealed.len() as u64));
        }
        Ok(page)
    }

    /// How many of these keys have a value.
    pub(super) fn held(&self, keys: &[Key]) -> Result<u64> {
        let values = self.db.begin_read()?.open_table(VALUES)?;
        let mut held = 0;
        for key in keys {
            held += u64::from(values.get(key.as_bytes())?.is_some());
        }
        Ok(held)
    }

    /// How many values there are.
    pub(super) fn len(&self) -> Result<u64> {
        Ok(self.db.begin_read()?.open_table(VALUES)?.len()?)
    }
}

fn begin(db: &Database) -> Result<WriteTransaction> {
    let mut write = db.begin_write()?;
    // The next open after a crash takes no longer for it, however large the file is.
    write.set_quick_repair(true);
    Ok(write)
}

/// The tables in a write.
struct Tables<'w> {
    values: redb::Table<'w, [u8; 32], &'static [u8]>,
    places: redb::Table<'w, [u8; 32], (u64, u64)>,
    order: redb::Table<'w, u64, [u8; 32]>,
    about: redb::Table<'w, &'static str, u64>,
    used: u64,
    next: u64,
}

// === impl Tables ===

impl<'w> Tables<'w> {
    fn open(write: &'w WriteTransaction) -> Result<Self> {
        let about = write.open_table(ABOUT)?;
        let number = |name| Ok::<_, redb::Error>(about.get(name)?.map_or(0, |number| number.value()));
        let (used, next) = (number("used")?, number("next")?);
        Ok(Self {
            values: write.open_table(VALUES)?,
            places: write.open_table(PLACES)?,
            order: write.open_table(ORDER)?,
            about,
            used,
            next,
        })
    }

    fn add(&mut self, key: &[u8; 32], sealed: &[u8]) -> Result<()> {
        let takes = takes(sealed.len() as u64);
        self.values.insert(key, sealed)?;
        self.place(key, takes)?;
        self.used += takes;
        Ok(())
    }

    fn place(&mut self, key: &[u8; 32], takes: u64) -> Result<()> {
        self.places.insert(key, (self.next, takes))?;
        self.order.insert(self.next, key)?;
        self.next += 1;
        Ok(())
    }

    fn remove(&mut self, key: &[u8; 32]) -> Result<()> {
        let Some((place, takes)) = self.places.remove(key)?.map(|place| place.value()) else { return Ok(()) };
        self.order.remove(place)?;
        self.values.remove(key)?;
        self.used = self.used.saturating_sub(takes);
        Ok(())
    }

    /// Who came first goes first, but for those that were asked for: they go to the end, once.
    fn make_room(mut self, budget: u64, asked: WasAsked<'_>) -> Result<()> {
        let mut stay = self.values.len()?;
        while self.used > budget {
            let Some(key) = self.order.first()?.map(|(_, key)| key.value()) else { break };
            if stay > 0 && asked(&Key::from_bytes(key)) {
                stay -= 1;
                let old = self.places.remove(key)?.map(|place| place.value());
                if let Some((place, takes)) = old {
                    self.order.remove(place)?;
                    self.place(&key, takes)?;
                    continue;
                }
            }
            self.remove(&key)?;
        }
        self.about.insert("used", self.used)?;
        self.about.insert("next", self.next)?;
        Ok(())
    }
}

/// What a value takes of the file: small ones share pages that are half full, larger ones have pages of a power of two.
fn takes(sealed: u64) -> u64 {
    let pair = sealed + 64;
    BESIDE + if pair <= PAGE / 2 { pair * 2 } else { pair.next_power_of_two().max(PAGE) }
}

/// What is at `path`; `None` if nothing is.
fn at(path: &Path) -> io::Result<Option<Identity>> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match path.metadata() {
        #[cfg(unix)]
        Ok(found) => {
            use std::os::unix::fs::MetadataExt as _;
            Ok(Some((found.dev(), found.ino())))
        }
        #[cfg(not(unix))]
        Ok(_) => Ok(Some((0, 0))),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the file at `path` takes of the disk.
pub(super) fn taken(path: &Path) -> Option<u64> {
    let metadata = path.metadata().ok()?;
    #[cfg(unix)]
    return Some(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512);
    #[cfg(not(unix))]
    return Some(metadata.len());
}
