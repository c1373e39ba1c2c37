//! A Redis Cluster: which server has a key, and each server with connections and a breaker of its own.
//!
//! One server that hangs is left alone like a whole store would be, and the keys of the others go on. Which server has
//! which keys is learned from any of them: at the start, when one says that a key has moved, while anything is amiss,
//! and every half minute.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, cmd};
use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::address::{Host, Login};
use super::commands::{self, Answer, Question, Useless};
use super::failure::failure;
use super::link::Link;
use super::node::{Keeper, Node, Settings, Tries, late};
use super::slots::{self, SLOTS, Shares};
use super::way::Way;
use crate::Clock;
use crate::cache::health::{Call, StoreHealth};
use crate::cache::key::{Key, KeyBuilder};
use crate::error::{Error, Kind, Result};

/// Servers that a call may be sent to one after the other.
const REDIRECTIONS: u32 = 4;
/// How often the servers are looked for: when all is well, while something is not, and at the most.
const RARELY: Duration = Duration::from_secs(30);
const OFTEN: Duration = Duration::from_millis(400);
const AT_MOST: Duration = Duration::from_millis(50);
/// How long a server that is connected may take to say who has which keys.
const PATIENCE: Duration = Duration::from_millis(300);
/// No server.
const NOBODY: u16 = u16::MAX;

/// The servers of a cluster.
pub(super) struct Cluster {
    settings: Settings,
    login: Login,
    prefix: String,
    health: Arc<StoreHealth>,
    seeds: Vec<Host>,
    map: ArcSwap<Map>,
    /// Servers that have been named, but are in no map yet.
    named: Mutex<Vec<Arc<Member>>>,
    found: watch::Sender<Finding>,
    amiss: Notify,
}

/// Who has which keys.
struct Map {
    members: Vec<Arc<Member>>,
    /// For every slot the number of its server.
    owners: Box<[u16]>,
}

struct Member {
    host: Host,
    node: Arc<Node>,
    /// A key that it has, with its name, as far as that is known.
    probe: Arc<Mutex<(Key, String)>>,
    keeper: Keeper,
}

/// Tries a server with the key that it has.
struct Trier<'a> {
    node: &'a Node,
    probe: &'a Mutex<(Key, String)>,
}

/// Whether the servers are known.
#[derive(Clone)]
enum Finding {
    /// They are looked for for the first time.
    UnderWay,
    Found,
    Failed(Error),
}

/// A wait for the servers to be found that has failed when it is dropped before it has ended.
struct Search<'a> {
    health: &'a StoreHealth,
    deadline: Duration,
    ended: bool,
}

/// A call that has failed when it is dropped before it is answered.
struct Trial<'a>(&'a Node, Call, Duration, bool);

// === impl Cluster ===

impl Cluster {
    pub(super) fn new(settings: Settings, login: Login, prefix: &str, name: &str, seeds: Vec<Host>) -> Self {
        Self {
            settings,
            login,
            prefix: prefix.to_owned(),
            health: Arc::new(StoreHealth::of_parts(name)),
            seeds,
            map: ArcSwap::from_pointee(Map::unknown()),
            named: Mutex::default(),
            found: watch::Sender::new(Finding::UnderWay),
            amiss: Notify::new(),
        }
    }

    pub(super) fn health(&self) -> &Arc<StoreHealth> {
        &self.health
    }

    /// What `judge` makes of the answer of the server that has the key.
    ///
    /// # Errors
    /// When there is none or it is of no use; of [`Kind::CircuitOpen`] when that server is left alone.
    pub(super) async fn ask<T>(
        &self,
        key: &Key,
        name: &str,
        question: Question,
        judge: impl FnOnce(Answer) -> Result<T, Useless>,
    ) -> Result<T> {
        self.are_found().await?;
        let call = question.call();
        let mut member = self.map.load().owner(slots::slot(name.as_bytes()));
        let mut in_advance = false;
        for _ in 0..REDIRECTIONS {
            let Some(asked) = member.take() else { break };
            asked.node.health().admit(call, Clock::Tokio.now())?;
            let trial = Trial::of(&asked.node, call, self.settings.deadline);
            let link = asked.node.link(key);
            let answer = match &question {
                Question::Get if in_advance => link.ask_in_advance(commands::get(name)).await,
                Question::Do(command) if in_advance => link.ask_in_advance(command.clone()).await,
                Question::Get => link.read(name.to_owned()).await,
                Question::Do(command) => link.ask(command).await,
            };
            match answer {
                Ok(Err(error)) if error.redirect_node().is_some() => {
                    trial.ends(None);
                    let (address, _) = error.redirect_node().expect("it was looked at");
                    in_advance = error.code() == Some("ASK");
                    if !in_advance {
                        self.amiss.notify_one();
                    }
                    member = Host::read(address, &asked.host).map(|host| self.member(&host));
                }
                Ok(answer) => {
                    let judged = judge(answer).map_err(|useless| self.useless(link, &useless));
                    trial.ends(judged.as_ref().err());
                    return judged;
                }
                Err(error) => {
                    trial.ends(Some(&error));
                    self.amiss.notify_one();
                    return Err(error);
                }
            }
        }
        self.amiss.notify_one();
        Err(Error::new(Kind::Store, "no server of the redis cluster has the key"))
    }

    fn useless(&self, link: &Link, useless: &Useless) -> Error {
        match useless {
            Useless::Confused => link.distrust(),
            Useless::Failed(_) => self.amiss.notify_one(),
        }
        useless.error()
    }

    /// Waits while the servers are looked for for the first time.
    async fn are_found(&self) -> Result<()> {
        if !self.map.load().members.is_empty() {
            return Ok(());
        }
        self.health.admit_itself(Call::Read, Clock::Tokio.now())?;
        let search = Search { health: &self.health, deadline: self.settings.deadline, ended: false };
        let mut finding = self.found.subscribe();
        // The caller has a deadline.
        let found = match finding.wait_for(|finding| !matches!(finding, Finding::UnderWay)).await {
            Ok(finding) => match &*finding {
                Finding::Failed(error) => Err(error.clone()),
                _ => Ok(()),
            },
            Err(_) => Err(Error::new(Kind::Store, "the connection to the store is being closed")),
        };
        search.ends(found)
    }

    /// The server at `host`, connected to if it is new.
    fn member(&self, host: &Host) -> Arc<Member> {
        let map = self.map.load();
        let mut named = self.named();
        let known = map.members.iter().chain(named.iter()).find(|member| member.host == *host);
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let member = Arc::new(self.new_member(host));
        named.push(Arc::clone(&member));
        member
    }

    /// Begins anew: connections of a runtime that has ended are of no use.
    pub(super) fn forget(&self) {
        self.map.store(Arc::new(Map::unknown()));
        self.named().clear();
        self.found.send_replace(Finding::UnderWay);
    }

    fn new_member(&self, host: &Host) -> Member {
        let health = StoreHealth::part(&self.health, host);
        let way = Way::At(self.login.client(host).expect("the certificates have been read before"));
        let member = Member {
            host: host.clone(),
            node: Arc::new(Node::new(way, &self.settings, health)),
            probe: Arc::new(Mutex::new(probe(0, &self.prefix))),
            keeper: Keeper::default(),
        };
        member.keep();
        member
    }

    /// Learns who the servers are, again and again, and has them kept. Ends only by being dropped.
    pub(super) async fn keep(&self) {
        loop {
            let found = self.look().await;
            match found {
                Ok(shares) => self.install(&shares),
                Err(error) => {
                    self.found.send_replace(Finding::Failed(error));
                }
            }
            tokio::time::sleep(AT_MOST).await;
            let pause = if self.is_well() { RARELY } else { OFTEN };
            let _ = tokio::time::timeout(pause, self.amiss.notified()).await;
        }
    }

    fn is_well(&self) -> bool {
        let map = self.map.load();
        map.is_whole() && map.members.iter().all(|member| member.node.is_up())
    }

    fn install(&self, shares: &Shares) {
        let mut map = Map::unknown();
        for (host, slots) in shares {
            let at = map.members.iter().position(|member| member.host == *host);
            let at = at.unwrap_or_else(|| {
                map.members.push(self.member(host));
                map.members.len() - 1
            });
            for slot in slots.clone() {
                map.owners[usize::from(slot)] = u16::try_from(at).unwrap_or(NOBODY);
            }
        }
        for member in &map.members {
            *lock(&member.probe) = map.key_of(member, &self.prefix);
        }
        self.map.store(Arc::new(map));
        self.named().clear();
        self.found.send_replace(Finding::Found);
        self.health.learn_itself(Call::Read, Clock::Tokio.now(), None);
        self.health.show();
    }

    /// Asks one server after the other who has which keys: first those that are connected.
    async fn look(&self) -> Result<Shares> {
        let mut question = cmd("CLUSTER");
        question.arg("SLOTS");
        let members: Vec<_> = self.map.load().members.clone();
        let first = fastrand::usize(..members.len().max(1));
        let (before, after) = members.split_at(first.min(members.len()));
        for member in after.iter().chain(before).filter(|member| member.node.is_up()) {
            let asked = tokio::time::timeout(PATIENCE, member.node.any().ask(&question)).await;
            if let Ok(Ok(Ok(answer))) = asked
                && let Some(shares) = slots::read(&answer, &member.host).filter(|shares| !shares.is_empty())
            {
                return Ok(shares);
            }
        }
        let mut problem = Error::new(Kind::Store, "no server of the redis cluster has answered");
        for seed in &self.seeds {
            match tokio::time::timeout(self.settings.connect_timeout, self.ask_seed(seed, &question)).await {
                Ok(Ok(shares)) => return Ok(shares),
                Ok(Err(error)) => problem = error,
                Err(_) => problem = Error::new(Kind::Store, "redis did not let us connect in time"),
            }
        }
        Err(problem)
    }

    async fn ask_seed(&self, seed: &Host, question: &Cmd) -> Result<Shares> {
        let client = self.login.client(seed);
        let client = client.map_err(|error| Error::new(Kind::Store, error.to_string()))?;
        let connected = client.get_multiplexed_async_connection().await;
        let answer = connected.map_err(|error| failure(&error))?.send_packed_command(question).await;
        let answer = answer.and_then(::redis::Value::extract_error).map_err(|error| match error.code() {
            Some("ERR") => Error::new(Kind::Store, "the redis server is none of a cluster"),
            _ => failure(&error),
        })?;
        let shares = slots::read(&answer, seed).filter(|shares| !shares.is_empty());
        shares.ok_or_else(|| Error::new(Kind::Store, "the redis cluster has no servers that take keys"))
    }

    fn named(&self) -> MutexGuard<'_, Vec<Arc<Member>>> {
        lock(&self.named)
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Member ===

impl Member {
    /// Has its connections kept, and has it tried.
    fn keep(&self) {
        let (node, probe) = (Arc::clone(&self.node), Arc::clone(&self.probe));
        self.keeper.start(|| async move { node.keep(&Trier { node: &node, probe: &probe }).await });
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.node.health().leaves();
    }
}

impl Tries for Trier<'_> {
    async fn try_server(&self, call: Call) -> Result<()> {
        let (key, name) = lock(self.probe).clone();
        let command = match call {
            Call::Read => commands::get(&name),
            Call::Write => commands::probe(&key, &name),
        };
        alive(self.node.link(&key).ask(&command).await?)
    }
}

/// A server works that takes the key, and one that knows who has it now.
fn alive(answer: Answer) -> Result<()> {
    match answer {
        Err(error) if error.redirect_node().is_none() => Err(failure(&error)),
        _ => Ok(()),
    }
}

/// The `n`th key that can be asked for without having been stored, and its name.
fn probe(n: usize, prefix: &str) -> (Key, String) {
    let key = KeyBuilder::new("", 0).text("probe").part(&n.to_le_bytes()).build();
    (key, commands::name(prefix, &key))
}

// === impl Map ===

impl Map {
    fn unknown() -> Self {
        Self { members: Vec::new(), owners: vec![NOBODY; usize::from(SLOTS)].into() }
    }

    fn is_whole(&self) -> bool {
        !self.owners.contains(&NOBODY)
    }

    fn owner(&self, slot: u16) -> Option<Arc<Member>> {
        self.members.get(usize::from(self.owners[usize::from(slot)])).cloned()
    }

    /// A key that the server has, with its name.
    fn key_of(&self, member: &Arc<Member>, prefix: &str) -> (Key, String) {
        let is_its = |(_, name): &(Key, String)| {
            self.owner(slots::slot(name.as_bytes())).is_some_and(|owner| Arc::ptr_eq(&owner, member))
        };
        (0..usize::from(SLOTS)).map(|n| probe(n, prefix)).find(is_its).unwrap_or_else(|| probe(0, prefix))
    }
}

// === impl Search ===

impl Search<'_> {
    fn ends(mut self, found: Result<()>) -> Result<()> {
        self.ended = true;
        found.inspect_err(|error| self.fails(error))
    }

    fn fails(&self, error: &Error) {
        self.health.learn_itself(Call::Read, Clock::Tokio.now(), Some(error));
    }
}

impl Drop for Search<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.fails(&late(self.deadline));
        }
    }
}

// === impl Trial ===

impl<'a> Trial<'a> {
    fn of(node: &'a Node, call: Call, deadline: Duration) -> Self {
        Self(node, call, deadline, false)
    }

    fn ends(mut self, failure: Option<&Error>) {
        self.3 = true;
        self.0.health().learn(self.1, Clock::Tokio.now(), failure);
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.3 {
            self.0.health().learn(self.1, Clock::Tokio.now(), Some(&late(self.2)));
        }
    }
}
