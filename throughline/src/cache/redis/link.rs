//! One connection to the server, replaced when it is lost.
//!
//! Connecting is nobody's errand: a task of the store does it, and goes on until the server is back. A call waits
//! for a connection only while the first attempt after a loss is under way; when that has failed, it fails at
//! once. A connection on which nothing has been answered for a while is replaced, for the way through it may be
//! dead while a new one would be fine.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Cmd, Pipeline, PushInfo, PushKind, RedisError, Value, cmd};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::changes::Changes;
use super::commands::{self, Answer};
use super::failure::failure;
use super::gather::{Gathering, Group};
use super::node::Settings;
use super::way::Way;
use crate::cache::key::Key;
use crate::error::{Error, Kind, Result};

/// The pause after the first failed attempt to connect, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A connection that lived for less was not a good one: the next attempt waits.
const GOOD_LIFE: Duration = Duration::from_secs(1);
/// After this long without any answer a connection is replaced.
const SILENCE: Duration = Duration::from_millis(500);
/// Calls that may wait to be written.
const QUEUE: usize = 1024;

/// One connection, or the attempt to have one.
pub(super) struct Link {
    way: Arc<Way>,
    share: Share,
    changes: Arc<Changes>,
    connect_timeout: Duration,
    by_one: bool,
    state: watch::Sender<State>,
    reads: Gathering,
    begun: Instant,
    /// When the first of the calls since the last answer was given up, in milliseconds since `begun`, and one
    /// more; 0 when the last call was answered.
    unanswered_since: AtomicU64,
}

/// Which of how many connections to a server it is.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub(super) number: usize,
    pub(super) of: usize,
}

#[derive(Clone)]
enum State {
    /// The first attempt, or the first after a loss.
    Connecting,
    Up(MultiplexedConnection, Arc<Notify>),
    /// The last attempt has failed; more are made.
    Down(Error),
}

/// A call that is given up when it is dropped before it is answered.
struct Pending<'a> {
    link: &'a Link,
    answered: bool,
}

// === impl Link ===

impl Link {
    pub(super) fn new(way: Arc<Way>, share: Share, settings: &Settings) -> Self {
        let reads = Gathering::new(way.is_near());
        Self {
            way,
            share,
            changes: Arc::clone(&settings.changes),
            connect_timeout: settings.connect_timeout,
            by_one: settings.by_one,
            state: watch::Sender::new(State::Connecting),
            reads,
            begun: Instant::now(),
            unanswered_since: AtomicU64::new(0),
        }
    }

    /// Whether calls can be made now.
    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(..))
    }

    /// The server's answer to `command`. An answer that says that something is wrong is an `Err` inside.
    ///
    /// # Errors
    /// When there is no connection, or it is lost.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Answer> {
        self.send(async |connection| connection.send_packed_command(command).await).await
    }

    /// What is under this name. It may be asked for together with others.
    ///
    /// # Errors
    /// When there is no connection, or it is lost.
    pub(super) async fn read(&self, name: String) -> Result<Answer> {
        let under_way = self.reads.begin();
        if under_way.alone {
            return Box::pin(self.ask(&commands::get(&name))).await;
        }
        let answer = self.reads.put(name)?;
        let mut pending = Pending { link: self, answered: false };
        let answer = answer.await;
        pending.is_answered();
        let lost = |_| Error::new(Kind::Store, "the connection to redis was lost");
        answer.map_err(lost)?
    }

    /// As [`Link::ask`], of a node of a cluster that is about to take the key over.
    ///
    /// # Errors
    /// When there is no connection, or it is lost.
    pub(super) async fn ask_in_advance(&self, command: Cmd) -> Result<Answer> {
        let mut both = Pipeline::with_capacity(2);
        both.add_command(cmd("ASKING")).add_command(command);
        let answer = self.send(async |connection| {
            connection
                .send_packed_commands(&both, 1, 1)
                .await
                .map(|mut answers| answers.pop().unwrap_or(Value::Nil))
        });
        answer.await
    }

    async fn send(
        &self,
        send: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<Value, RedisError>,
    ) -> Result<Answer> {
        let (mut connection, lost) = self.connection().await?;
        let mut pending = Pending { link: self, answered: false };
        let answer = send(&mut connection).await;
        pending.is_answered();
        match answer {
            // What has a code was said by the server: the connection is fine.
            Err(error) if error.code().is_none() => {
                lost.notify_one();
                Err(failure(&error))
            }
            Ok(Value::ServerError(error)) => Ok(Err(error.into())),
            answer => Ok(answer),
        }
    }

    /// The server takes no writes: where another may have taken its place, the way is looked for again.
    pub(super) fn is_read_only(&self) {
        if self.way.leads_elsewhere() {
            self.distrust();
        }
    }

    /// What came back cannot be an answer to what was asked: the two sides have lost each other.
    pub(super) fn distrust(&self) {
        if let State::Up(_, lost) = &*self.state.borrow() {
            lost.notify_one();
        }
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, Arc<Notify>)> {
        let ready = |state: &State| match state {
            State::Connecting => None,
            State::Up(connection, lost) => Some(Ok((connection.clone(), Arc::clone(lost)))),
            State::Down(error) => Some(Err(error.clone())),
        };
        if let Some(connection) = ready(&self.state.borrow()) {
            return connection;
        }
        let mut states = self.state.subscribe();
        let state = states.wait_for(|state| ready(state).is_some()).await;
        let gone = |_| Error::new(Kind::Store, "the connection to the store is being closed");
        let state = state.map_err(gone)?.clone();
        ready(&state).expect("it was waited for")
    }

    /// Calls wait for the next connection, whatever has been.
    pub(super) fn forget(&self) {
        self.reads.open();
        self.state.send_replace(State::Connecting);
    }

    /// Connects, and connects again whenever the connection is lost. Ends only by being dropped.
    pub(super) async fn keep(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            let down = match self.connect().await {
                Ok((connection, lost)) => {
                    self.unanswered_since.store(0, Ordering::Relaxed);
                    self.reads.open();
                    self.state.send_replace(State::Up(connection.clone(), Arc::clone(&lost)));
                    tokio::select! {
                        () = lost.notified() => {}
                        () = self.carry(&connection, &lost) => {}
                    }
                    drop(connection);
                    if begun.elapsed() >= GOOD_LIFE {
                        pause = FIRST_PAUSE;
                        self.state.send_replace(State::Connecting);
                        continue;
                    }
                    Error::new(Kind::Store, "the connection to redis was lost as soon as it was made")
                }
                Err(error) => error,
            };
            self.reads.close(&down);
            self.state.send_replace(State::Down(down));
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Sends what has been gathered, as long as the connection lives. Ends only by being dropped.
    async fn carry(&self, connection: &MultiplexedConnection, lost: &Notify) {
        let by_one = AtomicBool::new(self.by_one);
        let carry = async |group: Group| {
            if group.travel(&mut connection.clone(), &by_one).await.is_err() {
                lost.notify_one();
            }
        };
        let mut groups = FuturesUnordered::new();
        loop {
            tokio::select! {
                gathered = self.reads.groups() => groups.extend(gathered.into_iter().map(&carry)),
                Some(()) = groups.next() => {}
            }
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, Arc<Notify>)> {
        let lost = Arc::new(Notify::new());
        let told = Arc::downgrade(&lost);
        let (share, changes) = (self.share, Arc::clone(&self.changes));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            // Every caller has a deadline of its own.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE)
            .set_push_sender(move |push: PushInfo| {
                changes.heed(&push, |key| share.has(key));
                if let (PushKind::Disconnection, Some(lost)) = (push.kind, Weak::upgrade(&told)) {
                    lost.notify_one();
                }
                Ok::<_, ::redis::aio::SendError>(())
            });
        let mut connection = self.way.connect(&config, self.connect_timeout).await?;
        // A server that does not know how, or may not, tells of nothing: values near live to the end of their time.
        if let Some(tracking) = self.changes.tracking() {
            let tracked = connection.send_packed_command(&tracking);
            match tokio::time::timeout(self.connect_timeout, tracked).await {
                Ok(Ok(Value::Okay)) => self.changes.unknown(),
                Ok(_) => {}
                Err(_) => return Err(Error::new(Kind::Store, "redis did not let us connect in time")),
            }
        }
        Ok((connection, lost))
    }
}

// === impl Share ===

impl Share {
    /// Whether the connection is used for the key.
    pub(super) fn has(self, key: &Key) -> bool {
        usize::from(key.as_bytes()[0]) % self.of == self.number
    }
}

// === impl Pending ===

impl Pending<'_> {
    fn is_answered(&mut self) {
        self.answered = true;
        if self.link.unanswered_since.load(Ordering::Relaxed) != 0 {
            self.link.unanswered_since.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let now = u64::try_from(self.link.begun.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let since = &self.link.unanswered_since;
        match since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
            Err(first) if u128::from(now - first.min(now)) >= SILENCE.as_millis() => self.link.distrust(),
            _ => {}
        }
    }
}
