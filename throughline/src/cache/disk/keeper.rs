//! The thread that has the file: it opens it, writes what waits, and tries again when something went wrong.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::config::DiskConfig;
use super::failure::{Failure, of_use};
use super::file::{Change, File};
use super::pending::{Pending, Waiting};
use crate::Clock;
use crate::cache::health::{Call, StoreHealth};
use crate::cache::key::Key;
use crate::error::{Error, Kind, Result};

/// How long a change waits for others to be written with.
const LINGER: Duration = Duration::from_millis(20);
/// How many are written at once.
const BATCH: usize = 256;
/// Changes that may wait.
const QUEUE: usize = 4096;
/// How often a file that cannot be used is tried.
const PROBE: Duration = Duration::from_millis(250);
/// How often it is looked whether the path still leads to the file: without that, what was removed is written on unseen.
const LOOK: Duration = Duration::from_secs(1);
/// How long the end of the program waits for the last write.
const LAST: Duration = Duration::from_secs(5);
/// How many keys are remembered as asked for.
const ASKED: usize = 1 << 20;

/// What the thread shares with those who use the store.
pub(super) struct Shared {
    pub(super) config: DiskConfig,
    pub(super) health: Arc<StoreHealth>,
    pub(super) pending: Pending,
    state: Mutex<State>,
    asked: Mutex<HashSet<Key>>,
}

enum State {
    Opening,
    Open(Arc<File>),
    /// It cannot be used.
    Down(Error, Failure),
}

/// What the thread is asked.
enum Ask {
    Change(Key, u64, Waiting),
    /// Say when all before this is done.
    Say(oneshot::Sender<()>),
}

/// The thread, as long as this lives.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    asks: Option<SyncSender<Ask>>,
    ended: Mutex<Receiver<()>>,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(config: DiskConfig, health: Arc<StoreHealth>) -> Self {
        Self {
            config,
            health,
            pending: Pending::default(),
            state: Mutex::new(State::Opening),
            asked: Mutex::default(),
        }
    }

    /// The file to read from.
    pub(super) fn file(&self) -> Result<Arc<File>> {
        match &*self.state() {
            State::Open(file) => Ok(Arc::clone(file)),
            State::Down(error, _) => Err(error.clone()),
            State::Opening => {
                Err(Error::new(Kind::Store, format!("{} is being opened", self.config.path.display())))
            }
        }
    }

    /// Whether changes are taken.
    pub(super) fn works(&self) -> Result<()> {
        match &*self.state() {
            State::Open(_) | State::Opening => Ok(()),
            State::Down(error, _) => Err(error.clone()),
        }
    }

    /// Takes note of a read of `file` that went wrong, for the thread to open it anew.
    pub(super) fn suspect(&self, file: &Arc<File>, failure: Failure) -> Error {
        let error = failure.of(&self.config.path);
        let mut state = self.state();
        if matches!(&*state, State::Open(open) if Arc::ptr_eq(open, file)) {
            *state = State::Down(error.clone(), failure);
        }
        error
    }

    fn take_asked(&self, key: &Key) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(key)
    }

    pub(super) fn asked(&self, key: &Key) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= ASKED {
            asked.clear();
        }
        asked.insert(*key);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> Option<Arc<File>> {
        match &*self.state() {
            State::Open(file) => Some(Arc::clone(file)),
            _ => None,
        }
    }

    /// Gives the file back.
    fn close(&self) {
        let failure = Failure::System("the store is being closed");
        *self.state() = State::Down(failure.of(&self.config.path), failure);
    }

    /// Opens the file unless it is open. What is damaged is set aside first.
    fn reopen(&self) -> Option<Arc<File>> {
        let before = std::mem::replace(&mut *self.state(), State::Opening);
        let damaged = match before {
            State::Open(file) => {
                *self.state() = State::Open(Arc::clone(&file));
                return Some(file);
            }
            State::Down(_, failure) => failure == Failure::Damaged,
            State::Opening => false,
        };
        if damaged {
            self.set_aside();
        }
        match guarded(|| File::open(&self.config)) {
            Ok(file) => {
                let file = Arc::new(file);
                *self.state() = State::Open(Arc::clone(&file));
                for call in [Call::Read, Call::Write] {
                    self.health.learn(call, Clock::Monotonic.now(), None);
                }
                Some(file)
            }
            Err(failure) => {
                self.down(failure);
                None
            }
        }
    }

    fn set_aside(&self) {
        let mut aside = self.config.path.clone().into_os_string();
        aside.push(".corrupt");
        let aside = PathBuf::from(aside);
        let moved = std::fs::rename(&self.config.path, &aside);
        tracing::warn!(
            store = self.health.name(),
            file = %self.config.path.display(),
            aside = %aside.display(),
            moved = moved.is_ok(),
            "a cache's file was damaged: it is set aside and begun anew"
        );
    }

    fn down(&self, failure: Failure) {
        let error = failure.of(&self.config.path);
        for call in [Call::Read, Call::Write] {
            self.health.learn(call, Clock::Monotonic.now(), Some(&error));
        }
        let before = std::mem::replace(&mut *self.state(), State::Down(error, failure));
        // A file that is closed is written to once more: nobody is to wait for the state meanwhile.
        drop(before);
    }

    /// Lets go of a file that was removed or replaced. It is begun anew where it was, once that can be.
    fn leave_what_is_gone(&self) {
        if self.is_open().is_some_and(|file| file.is_gone()) {
            tracing::warn!(
                store = self.health.name(),
                file = %self.config.path.display(),
                "a cache's file was removed or replaced while it was in use: it is begun anew"
            );
            self.down(Failure::Gone);
        }
    }

    /// Writes `changes`; they are forgotten if that fails, for a cache may lose what it likes.
    fn write(&self, changes: &[(Key, u64, Waiting)]) {
        if let Some(file) = self.is_open().or_else(|| self.reopen()) {
            let batch: Vec<Change> = changes.iter().map(|(key, _, change)| (*key, change.clone())).collect();
            let asked = |key: &Key| self.take_asked(key);
            match guarded(|| file.write(&batch, &asked).map_err(|error| of_use(&error))) {
                Ok(()) => self.health.learn(Call::Write, Clock::Monotonic.now(), None),
                Err(failure) => {
                    drop(file);
                    // After a failure of the system the database takes nothing before it is opened anew.
                    self.down(failure);
                }
            }
        }
        changes.iter().for_each(|(key, number, _)| self.pending.remove(key, *number));
    }
}

/// What panics on a damaged file is a damaged file.
fn guarded<T>(work: impl FnOnce() -> std::result::Result<T, Failure>) -> std::result::Result<T, Failure> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Failure::Damaged))
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn start(shared: &Arc<Shared>) -> Self {
        let (asks, asked) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        let kept = Arc::clone(shared);
        let thread = thread::Builder::new().name("throughline-disk".to_owned());
        let started = thread.spawn(move || {
            keep(&kept, &asked);
            kept.close();
            // Nobody may be waiting.
            let _ = end.send(());
        });
        if started.is_err() {
            shared.down(Failure::System("there is no thread for it"));
        }
        Self { shared: Arc::clone(shared), asks: Some(asks), ended: Mutex::new(ended) }
    }

    /// Has a change written.
    ///
    /// # Errors
    /// When too many wait.
    pub(super) fn ask(&self, key: Key, change: Waiting) -> Result<()> {
        let number = self.shared.pending.add(key, change.clone())?;
        let asks = self.asks.as_ref().expect("they are closed only by the drop");
        asks.try_send(Ask::Change(key, number, change)).map_err(|refused| {
            self.shared.pending.remove(&key, number);
            Error::new(
                Kind::Store,
                match refused {
                    TrySendError::Full(_) => "the disk does not keep up: too much waits to be written",
                    TrySendError::Disconnected(_) => "the store has stopped by a fault of the program",
                },
            )
        })
    }

    pub(super) async fn written(&self) {
        let (say, said) = oneshot::channel();
        let asks = self.asks.clone().expect("they are closed only by the drop");
        let sent = tokio::task::spawn_blocking(move || asks.send(Ask::Say(say)).is_ok()).await;
        if sent.unwrap_or(false) {
            // It is dropped when the thread is gone; nothing is written then.
            let _ = said.await;
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.asks.take());
        // A disk that hangs holds nobody up for longer.
        let _ = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner).recv_timeout(LAST);
    }
}

/// Until nobody can ask any more.
fn keep(shared: &Shared, asks: &Receiver<Ask>) {
    shared.reopen();
    let mut tried = Clock::Monotonic.now();
    let mut looked = tried;
    let most = shared.config.largest;
    loop {
        if Clock::Monotonic.now().since(looked) >= LOOK {
            shared.leave_what_is_gone();
            looked = Clock::Monotonic.now();
        }
        if shared.is_open().is_none() && Clock::Monotonic.now().since(tried) >= PROBE {
            shared.reopen();
            tried = Clock::Monotonic.now();
        }
        let mut batch = Batch::default();
        match asks.recv_timeout(PROBE) {
            Ok(ask) => batch.add(ask),
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let begun = Clock::Monotonic.now();
        while batch.changes.len() < BATCH && batch.bytes < most && batch.say.is_empty() {
            let left = LINGER.saturating_sub(Clock::Monotonic.now().since(begun));
            match asks.recv_timeout(left) {
                Ok(ask) => batch.add(ask),
                Err(_) => break,
            }
        }
        batch.write(shared);
    }
}

/// What is written at once.
#[derive(Default)]
struct Batch {
    changes: Vec<(Key, u64, Waiting)>,
    bytes: u64,
    say: Vec<oneshot::Sender<()>>,
}

// === impl Batch ===

impl Batch {
    fn add(&mut self, ask: Ask) {
        match ask {
            Ask::Change(key, number, change) => {
                self.bytes += change.bytes() as u64;
                self.changes.push((key, number, change));
            }
            Ask::Say(say) => self.say.push(say),
        }
    }

    fn write(self, shared: &Shared) {
        if !self.changes.is_empty() {
            shared.write(&self.changes);
        }
        for say in self.say {
            // Whoever asked may have gone.
            let _ = say.send(());
        }
    }
}
