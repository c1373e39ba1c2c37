//! The connections to one server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::task::AbortHandle;

use super::changes::Changes;
use super::link::{Link, Share};
use super::way::Way;
use crate::Clock;
use crate::cache::health::{Call, StoreHealth};
use crate::cache::key::Key;
use crate::error::{Error, Kind, Result};

/// How often a server that is left alone is tried.
const PROBE: Duration = Duration::from_millis(250);

/// What all servers of a store have in common.
pub(super) struct Settings {
    pub(super) connections: usize,
    pub(super) connect_timeout: Duration,
    pub(super) deadline: Duration,
    /// Whether one command may ask for several keys.
    pub(super) by_one: bool,
    pub(super) changes: Arc<Changes>,
}

/// Connections to one server, each for a part of the keys.
pub(super) struct Node {
    links: Box<[Link]>,
    health: Arc<StoreHealth>,
    deadline: Duration,
}

/// Who knows what to ask a server to see whether it works.
pub(super) trait Tries: Sync {
    /// # Errors
    /// When it does not.
    fn try_server(&self, call: Call) -> impl Future<Output = Result<()>> + Send;
}

/// A task that is started when it is needed, and again when its runtime has ended.
#[derive(Default)]
pub(super) struct Keeper {
    runs: Arc<AtomicBool>,
    task: Mutex<Option<AbortHandle>>,
}

/// Says that the task has ended, however that came.
struct Running(Arc<AtomicBool>);

// === impl Node ===

impl Node {
    pub(super) fn new(way: Way, settings: &Settings, health: Arc<StoreHealth>) -> Self {
        let (way, of) = (Arc::new(way), settings.connections);
        let link = |number| Link::new(Arc::clone(&way), Share { number, of }, settings);
        Self { links: (0..of).map(link).collect(), health, deadline: settings.deadline }
    }

    pub(super) fn link(&self, key: &Key) -> &Link {
        &self.links[usize::from(key.as_bytes()[0]) % self.links.len()]
    }

    pub(super) fn any(&self) -> &Link {
        &self.links[0]
    }

    /// Whether all its connections are there.
    pub(super) fn is_up(&self) -> bool {
        self.links.iter().all(Link::is_up)
    }

    pub(super) fn health(&self) -> &Arc<StoreHealth> {
        &self.health
    }

    /// Begins anew: connections of a runtime that has ended are of no use.
    pub(super) fn forget(&self) {
        self.links.iter().for_each(Link::forget);
    }

    /// Keeps the connections, and has the server tried while it is left alone, so that no run has to. Ends only by
    /// being dropped.
    pub(super) async fn keep(&self, tries: &impl Tries) {
        join(join_all(self.links.iter().map(Link::keep)), self.probe(tries)).await;
    }

    async fn probe(&self, tries: &impl Tries) {
        loop {
            while self.health.is_closed(Call::Read) || self.health.is_closed(Call::Write) {
                tokio::time::sleep(PROBE).await;
                for call in [Call::Read, Call::Write].into_iter().filter(|call| self.health.is_closed(*call))
                {
                    self.learn(call, tokio::time::timeout(self.deadline, tries.try_server(call)).await);
                }
            }
            self.health.closed().await;
        }
    }

    fn learn(&self, call: Call, answer: Result<Result<()>, tokio::time::error::Elapsed>) {
        let answer = answer.map_err(|_| late(self.deadline)).and_then(|answer| answer);
        self.health.learn(call, Clock::Tokio.now(), answer.err().as_ref());
    }
}

/// What is said of a call that was given up.
pub(super) fn late(deadline: Duration) -> Error {
    Error::new(Kind::Store, format!("no answer from the store within {deadline:?}"))
}

// === impl Keeper ===

impl Keeper {
    /// Has `task` run by the runtime that this is called on, unless it runs already.
    pub(super) fn start<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce() -> F) {
        if self.runs.load(Ordering::Acquire) {
            return;
        }
        let mut kept = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.runs.swap(true, Ordering::AcqRel) {
            let (running, task) = (Running(Arc::clone(&self.runs)), task());
            let task = async move {
                let _running = running;
                task.await;
            };
            *kept = Some(tokio::spawn(task).abort_handle());
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
