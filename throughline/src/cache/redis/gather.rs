//! Reads that are made at the same time and travel together.
//!
//! The driver writes each command as soon as it has it: a system call for each, a packet, and a waking of the server. Under
//! load that is most of what an answer costs. So a read that finds others under way is put with those that come until the
//! scheduler has run everybody who can run, and they go out in one write. A read that is alone is not held up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::redis::{Cmd, Pipeline, Value};
use tokio::sync::{Notify, oneshot};

use super::commands::Answer;
use crate::error::{Error, Result};

/// The most that travel together: the answers of a group are given when the last of them is there.
pub(super) const GROUP: usize = 16;

/// The reads of a connection.
#[derive(Default)]
pub(super) struct Gathering {
    under_way: AtomicUsize,
    waiting: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Default)]
struct Waiting {
    reads: Vec<Read>,
    /// Why none is taken.
    down: Option<Error>,
}

struct Read {
    command: Cmd,
    answer: oneshot::Sender<Result<Answer>>,
}

/// Reads that travel together.
pub(super) struct Group {
    pub(super) commands: Pipeline,
    answers: Vec<oneshot::Sender<Result<Answer>>>,
}

/// A read that is under way, until it is dropped.
pub(super) struct UnderWay<'a> {
    gathering: &'a Gathering,
    /// Whether there was no other.
    pub(super) alone: bool,
}

// === impl Gathering ===

impl Gathering {
    pub(super) fn begin(&self) -> UnderWay<'_> {
        UnderWay { gathering: self, alone: self.under_way.fetch_add(1, Ordering::Relaxed) == 0 }
    }

    /// Puts a read with the others. What is received fails when the connection is lost.
    ///
    /// # Errors
    /// When there is no connection.
    pub(super) fn put(&self, command: Cmd) -> Result<oneshot::Receiver<Result<Answer>>> {
        let (answer, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        if let Some(down) = &waiting.down {
            return Err(down.clone());
        }
        waiting.reads.push(Read { command, answer });
        let is_first = waiting.reads.len() == 1;
        drop(waiting);
        if is_first {
            self.bell.notify_one();
        }
        Ok(receiver)
    }

    /// The reads that have come together, once there are any.
    ///
    /// # Cancellation
    /// Dropped, it has taken none.
    pub(super) async fn groups(&self) -> Vec<Group> {
        while self.waiting().reads.is_empty() {
            self.bell.notified().await;
        }
        // Whoever can run now may have something to ask as well.
        tokio::task::yield_now().await;
        let mut reads = std::mem::take(&mut self.waiting().reads);
        reads.retain(|read| !read.answer.is_closed());
        let mut groups = Vec::with_capacity(reads.len().div_ceil(GROUP));
        let mut reads = reads.into_iter().peekable();
        while reads.peek().is_some() {
            groups.push(Group::of(reads.by_ref().take(GROUP)));
        }
        groups
    }

    /// No read is taken from now on, and those that wait fail.
    pub(super) fn close(&self, error: &Error) {
        let mut waiting = self.waiting();
        waiting.down = Some(error.clone());
        let reads = std::mem::take(&mut waiting.reads);
        drop(waiting);
        for read in reads {
            // Who has given up hears nothing.
            let _ = read.answer.send(Err(error.clone()));
        }
    }

    /// Reads are taken from now on.
    pub(super) fn open(&self) {
        self.waiting().down = None;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.gathering.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Group ===

impl Group {
    fn of(reads: impl Iterator<Item = Read>) -> Self {
        let (mut commands, mut answers) = (Pipeline::with_capacity(GROUP), Vec::with_capacity(GROUP));
        for Read { command, answer } in reads {
            commands.add_command(command);
            answers.push(answer);
        }
        Self { commands, answers }
    }

    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    /// Gives everybody what is theirs.
    pub(super) fn give(self, answers: Result<Vec<Value>>) {
        match answers {
            Ok(values) => {
                for (answer, value) in self.answers.into_iter().zip(values) {
                    let value = match value {
                        Value::ServerError(error) => Err(error.into()),
                        value => Ok(value),
                    };
                    let _ = answer.send(Ok(value));
                }
            }
            Err(error) => {
                for answer in self.answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}
