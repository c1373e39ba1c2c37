//! Reads that are made at the same time and travel together.
//!
//! The driver writes each command as soon as it has it: a system call for each, a packet, and a waking of the server. Under
//! load that is most of what an answer costs. So a read that finds others under way is put with those that come until the
//! scheduler has run everybody who can run, and they go out in one command. A read that is alone is not held up.
//!
//! A server on the same machine would sleep meanwhile, and the client after it: there they go out as soon as a part of them
//! has come, and what comes behind them is gathered by the kernel.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisResult, Value};
use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;

use super::commands::{self, Answer, Useless};
use super::failure::failure;
use crate::error::{Error, Result};

/// The most that travel together: the answers of a group are given when the last of them is there.
pub(super) const GROUP: usize = 16;
/// How many more times than once everybody is let run who can, while fewer have come than the last time: those who had an answer
/// together mostly ask together, and a thread that has taken some of them over may not be done with them.
const PATIENCE: usize = 2;
/// To a server on the same machine this part of those under way goes out as soon as it has come.
const PART: usize = 4;

/// What a server says where one command may not ask for several keys: the user has no right to, the command is unknown, or the
/// server has but some of the keys.
const NOT_BY_ONE: [&str; 5] = ["NOPERM", "ERR", "CROSSSLOT", "MOVED", "ASK"];

/// The reads of a connection.
pub(super) struct Gathering {
    is_near: bool,
    under_way: AtomicUsize,
    waiting: Mutex<Waiting>,
    /// How many travelled together the last time.
    last: AtomicUsize,
    /// Who sends them.
    carrier: AtomicWaker,
}

#[derive(Default)]
struct Waiting {
    reads: Vec<Read>,
    /// Why none is taken.
    down: Option<Error>,
}

struct Read {
    name: String,
    answer: oneshot::Sender<Result<Answer>>,
}

/// Reads that travel together.
pub(super) struct Group(Vec<Read>);

/// A read that is under way, until it is dropped.
pub(super) struct UnderWay<'a> {
    gathering: &'a Gathering,
    /// Whether there was no other.
    pub(super) alone: bool,
}

// === impl Gathering ===

impl Gathering {
    /// `is_near`: whether the server is on the same machine.
    pub(super) fn new(is_near: bool) -> Self {
        Self {
            is_near,
            under_way: AtomicUsize::default(),
            waiting: Mutex::default(),
            last: AtomicUsize::default(),
            carrier: AtomicWaker::default(),
        }
    }

    pub(super) fn begin(&self) -> UnderWay<'_> {
        UnderWay { gathering: self, alone: self.under_way.fetch_add(1, Ordering::Relaxed) == 0 }
    }

    /// Puts a read with the others. What is received fails when the connection is lost.
    ///
    /// # Errors
    /// When there is no connection.
    pub(super) fn put(&self, name: String) -> Result<oneshot::Receiver<Result<Answer>>> {
        let (answer, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        if let Some(down) = &waiting.down {
            return Err(down.clone());
        }
        waiting.reads.push(Read { name, answer });
        let come = waiting.reads.len();
        drop(waiting);
        if come == 1 || (self.is_near && come == self.part()) {
            self.carrier.wake();
        }
        Ok(receiver)
    }

    /// The reads that have come together, once there are any.
    ///
    /// # Cancellation
    /// Dropped, it has taken none.
    pub(super) async fn groups(&self) -> Vec<Group> {
        poll_fn(|cx| {
            self.carrier.register(cx.waker());
            if self.waiting().reads.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        // Whoever can run now may have something to ask as well. It is over as soon as the carrier is woken.
        tokio::task::yield_now().await;
        for _ in 0..PATIENCE {
            let come = self.waiting().reads.len();
            if come >= self.last.load(Ordering::Relaxed) || (self.is_near && come >= self.part()) {
                break;
            }
            tokio::task::yield_now().await;
        }
        let mut reads = std::mem::replace(&mut self.waiting().reads, Vec::with_capacity(GROUP));
        self.last.store(reads.len().min(GROUP), Ordering::Relaxed);
        reads.retain(|read| !read.answer.is_closed());
        let mut groups = Vec::with_capacity(reads.len().div_ceil(GROUP));
        while reads.len() > GROUP {
            let rest = reads.split_off(GROUP);
            groups.push(Group(std::mem::replace(&mut reads, rest)));
        }
        if !reads.is_empty() {
            groups.push(Group(reads));
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

    fn part(&self) -> usize {
        (self.under_way.load(Ordering::Relaxed) / PART).clamp(2, GROUP)
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
    /// Asks the server, and gives everybody what is theirs. `by_one`: whether one command may ask for all of them, until
    /// the server says that it may not.
    ///
    /// # Errors
    /// When the connection is lost, or the two sides have lost each other. Everybody has been told.
    pub(super) async fn travel(
        self,
        connection: &mut MultiplexedConnection,
        by_one: &AtomicBool,
    ) -> Result<()> {
        let asked = match by_one.load(Ordering::Relaxed) {
            true => self.ask_by_one(connection, by_one).await,
            false => self.ask_by_many(connection).await,
        };
        let values = asked.map_err(|error| failure(&error));
        let values = values.and_then(|values| match values.len() == self.0.len() {
            true => Ok(values),
            false => Err(Useless::Confused.error()),
        });
        let end = values.as_ref().map(|_| ()).map_err(Error::clone);
        self.give(values);
        end
    }

    async fn ask_by_one(
        &self,
        connection: &mut MultiplexedConnection,
        by_one: &AtomicBool,
    ) -> RedisResult<Vec<Value>> {
        let all = commands::get_all(self.0.iter().map(|read| read.name.as_str()));
        match connection.send_packed_command(&all).await? {
            Value::Array(values) => Ok(values),
            // It is asked for each by itself from now on.
            Value::ServerError(error) if NOT_BY_ONE.contains(&error.code()) => {
                by_one.store(false, Ordering::Relaxed);
                self.ask_by_many(connection).await
            }
            Value::ServerError(error) => Ok(vec![Value::ServerError(error); self.0.len()]),
            _ => Ok(Vec::new()),
        }
    }

    async fn ask_by_many(&self, connection: &mut MultiplexedConnection) -> RedisResult<Vec<Value>> {
        let mut all = Pipeline::with_capacity(self.0.len());
        for read in &self.0 {
            all.add_command(commands::get(&read.name));
        }
        connection.send_packed_commands(&all, 0, self.0.len()).await
    }

    fn give(self, answers: Result<Vec<Value>>) {
        match answers {
            Ok(values) => {
                for (read, value) in self.0.into_iter().zip(values) {
                    let value = match value {
                        Value::ServerError(error) => Err(error.into()),
                        value => Ok(value),
                    };
                    // Who has given up hears nothing.
                    let _ = read.answer.send(Ok(value));
                }
            }
            Err(error) => {
                for read in self.0 {
                    let _ = read.answer.send(Err(error.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::{join, join_all};
    use tokio::task::yield_now;

    use super::*;

    /// The sizes of the groups that go out while `callers` ask one after the other, each with a turn of the scheduler before it.
    async fn sizes(gathering: &Gathering, callers: usize, turns: usize) -> Vec<usize> {
        let asked = Cell::new(0);
        let ask = async |n: usize| {
            let _under_way = gathering.begin();
            for _ in 0..n * turns {
                yield_now().await;
            }
            let answer = gathering.put(n.to_string()).unwrap();
            asked.set(asked.get() + 1);
            answer.await.is_err()
        };
        let carry = async {
            let (mut sizes, mut gone) = (Vec::new(), 0);
            while gone < callers {
                for group in gathering.groups().await {
                    sizes.push(group.0.len());
                    gone += group.0.len();
                }
            }
            sizes
        };
        let (sizes, unanswered) = join(carry, join_all((0..callers).map(ask))).await;
        assert!(unanswered.into_iter().all(|unanswered| unanswered), "nobody gives an answer here");
        assert_eq!(asked.get(), callers);
        sizes
    }

    #[tokio::test]
    async fn all_who_ask_at_once_travel_together_in_groups() {
        assert_eq!(sizes(&Gathering::new(false), 5, 0).await, [5]);
        assert_eq!(sizes(&Gathering::new(false), GROUP + 3, 0).await, [GROUP, 3]);
    }

    #[tokio::test]
    async fn to_a_server_elsewhere_they_wait_for_as_many_as_the_last_time_and_not_for_long() {
        let gathering = Gathering::new(false);
        gathering.last.store(3, Ordering::Relaxed);
        assert_eq!(sizes(&gathering, 3, 1).await, [3], "the others come a turn and two later");
        gathering.last.store(3, Ordering::Relaxed);
        let sizes = sizes(&gathering, 3, 3).await;
        assert!(sizes.len() > 1, "three turns are too many: {sizes:?}");
    }

    #[tokio::test]
    async fn to_a_server_on_this_machine_a_part_goes_out_as_soon_as_it_has_come() {
        let gathering = Gathering::new(true);
        gathering.last.store(GROUP, Ordering::Relaxed);
        let near = sizes(&gathering, 3 * PART, 1).await;
        assert!(near.iter().all(|size| *size <= 4) && near.contains(&3), "{near:?}");
    }

    #[tokio::test]
    async fn who_has_given_up_is_not_asked_for() {
        let gathering = Gathering::new(false);
        drop(gathering.put("a".to_owned()).unwrap());
        let _waits = gathering.put("b".to_owned()).unwrap();
        let groups = gathering.groups().await;
        assert_eq!(groups.iter().map(|group| group.0.len()).collect::<Vec<_>>(), [1]);
    }
}
