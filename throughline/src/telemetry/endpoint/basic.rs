//! Basic authentication with bcrypt hashes, at a price that nobody else can drive up.
//!
//! A bcrypt check is meant to be slow. So a password that was right is remembered as a keyed digest, and a scrape
//! costs none; a check runs beside the telemetry thread, one at a time; after a failure nothing is checked for
//! a multiple of the time it took, so that guessing uses a fixed share of one processor however many guess;
//! and whoever would have to wait too long, or waits already, is sent away at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bcrypt::HashParts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::digest::Digest;
use crate::ConfigError;

/// The highest cost of a hash, about a second of a processor for a check.
const HIGHEST_COST: u32 = 14;
/// How many may wait for a check.
const WAITING: usize = 8;
/// How long they may.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many times as long as a failed check took nothing is checked.
const REST: u32 = 3;

/// The users and their hashes. One set lasts until the next reload.
#[derive(Default)]
pub(super) struct Users {
    hashes: BTreeMap<String, String>,
    /// Of the password that was right last, a user.
    right: Mutex<BTreeMap<String, Digest>>,
    /// What unknown users are compared with. It costs as much as the most expensive of the others.
    stranger: String,
}

/// What became of a name and a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    Right,
    Wrong,
    /// Too much is being checked: later.
    Busy,
}

/// The place where all checks of an endpoint queue.
pub(super) struct Checks {
    turn: Arc<Semaphore>,
    waiting: Arc<Mutex<BTreeSet<IpAddr>>>,
}

/// A place in the queue, given back when dropped.
struct Place {
    waiting: Arc<Mutex<BTreeSet<IpAddr>>>,
    peer: IpAddr,
}

// === impl Users ===

impl Users {
    /// Checks the hashes of `users`.
    ///
    /// # Errors
    /// When one is no bcrypt hash, or costs too much. The hash itself is not repeated.
    pub(super) fn new(users: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let hashes: BTreeMap<String, String> = users.into_iter().collect();
        let mut most = 0;
        for (user, hash) in &hashes {
            most = most.max(cost(user, hash)?);
        }
        // Fifty-three zeros in bcrypt's alphabet: a salt and a hash like any other.
        let stranger = format!("$2b${most:02}${}", ".".repeat(53));
        Ok(Self { hashes, right: Mutex::default(), stranger })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    fn remembers(&self, user: &str, digest: &Digest) -> bool {
        lock(&self.right).get(user).is_some_and(|known| known.is(digest).into())
    }

    fn verify(&self, user: &str, password: &[u8]) -> bool {
        let known = self.hashes.get(user);
        let matches = bcrypt::verify(password, known.unwrap_or(&self.stranger)).unwrap_or(false);
        matches && known.is_some()
    }
}

fn cost(user: &str, hash: &str) -> Result<u32, ConfigError> {
    let name = user.escape_debug();
    if user.contains(':') {
        return Err(ConfigError::new(format!(
            "the user `{name}` has a colon in its name: no client can send it"
        )));
    }
    let parts: HashParts = hash.parse().map_err(|_| {
        ConfigError::new(format!(
            "the password of the user `{name}` is not a bcrypt hash: make one with `htpasswd -nBC 10 USER`"
        ))
    })?;
    match parts.get_cost() {
        cost @ 4..=HIGHEST_COST => Ok(cost),
        cost => Err(ConfigError::new(format!(
            "the bcrypt hash of the user `{name}` has cost {cost}: it must be 4 to {HIGHEST_COST}"
        ))),
    }
}

// === impl Checks ===

impl Default for Checks {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), waiting: Arc::default() }
    }
}

impl Checks {
    /// Whether `password` is the one of `user`. Names that are not known cost the same.
    ///
    /// # Cancellation
    /// A check that has begun ends, and others wait for it.
    pub(super) async fn check(
        &self,
        users: &Arc<Users>,
        peer: IpAddr,
        user: &str,
        password: &[u8],
    ) -> Checked {
        let hash = users.hashes.get(user).map_or("", String::as_str);
        let digest = Digest::of(&[user.as_bytes(), hash.as_bytes(), password]);
        if users.remembers(user, &digest) {
            return Checked::Right;
        }
        let Some(place) = Place::take(&self.waiting, peer) else { return Checked::Busy };
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turn).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Checked::Busy };
        let (users, user, password) = (Arc::clone(users), user.to_owned(), password.to_owned());
        let (answer, answered) = tokio::sync::oneshot::channel();
        // A task of its own: whoever hangs up half-way gives up its answer and not the turn.
        tokio::spawn(async move {
            let began = Instant::now();
            let checking = Arc::clone(&users);
            let name = user.clone();
            let check = tokio::task::spawn_blocking(move || checking.verify(&name, &password));
            let right = check.await.unwrap_or(false);
            if right {
                lock(&users.right).insert(user, digest);
            }
            drop(place);
            // Nobody may be waiting for it any more.
            let _ = answer.send(right);
            rest(right, began, turn).await;
        });
        match answered.await {
            Ok(true) => Checked::Right,
            _ => Checked::Wrong,
        }
    }
}

/// Keeps the turn for a while after a failure.
async fn rest(right: bool, began: Instant, turn: OwnedSemaphorePermit) {
    if !right {
        tokio::time::sleep(began.elapsed() * REST).await;
    }
    drop(turn);
}

// === impl Place ===

impl Place {
    /// A place for `peer`, which may have one, if there is one.
    fn take(waiting: &Arc<Mutex<BTreeSet<IpAddr>>>, peer: IpAddr) -> Option<Self> {
        let peer = network(peer);
        let mut places = lock(waiting);
        if places.len() >= WAITING || !places.insert(peer) {
            return None;
        }
        Some(Self { waiting: Arc::clone(waiting), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.waiting).remove(&self.peer);
    }
}

/// What stands for a machine: of IPv6 it has a whole /64 to choose from.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        v4 => v4,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(users: &[(&str, &str, u32)]) -> Arc<Users> {
        let hashed = users.iter().map(|(user, password, cost)| {
            let hash = bcrypt::hash_with_salt(password, *cost, [7; 16]).unwrap();
            ((*user).to_owned(), hash.to_string())
        });
        Arc::new(Users::new(hashed).unwrap())
    }

    fn peer(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[tokio::test]
    async fn lets_in_whom_it_knows_with_the_right_password_only() {
        let users = users(&[("ada", "right", 4), ("bob", "other", 4)]);
        let checks = Checks::default();
        for (user, password, expected) in [
            ("ada", "right", Checked::Right),
            ("ada", "other", Checked::Wrong),
            ("bob", "other", Checked::Right),
            ("eve", "right", Checked::Wrong),
            ("", "", Checked::Wrong),
        ] {
            assert_eq!(
                checks.check(&users, peer(1), user, password.as_bytes()).await,
                expected,
                "{user} {password}"
            );
        }
    }

    #[tokio::test]
    async fn what_was_right_once_needs_no_turn_again() {
        let users = users(&[("ada", "right", 4)]);
        let checks = Checks::default();
        assert_eq!(checks.check(&users, peer(1), "ada", b"right").await, Checked::Right);
        // Nobody gets a turn any more.
        checks.turn.close();
        assert_eq!(checks.check(&users, peer(2), "ada", b"right").await, Checked::Right);
        assert_eq!(checks.check(&users, peer(2), "ada", b"wrong").await, Checked::Busy);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_already_and_whoever_finds_the_queue_full_is_sent_away() {
        let users = users(&[("ada", "right", 4)]);
        let checks = Arc::new(Checks::default());
        let turn = Arc::clone(&checks.turn).acquire_owned().await.unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        for last in 1..=8 {
            let (checks, users) = (Arc::clone(&checks), Arc::clone(&users));
            waiting.spawn(async move { checks.check(&users, peer(last), "ada", b"wrong").await });
        }
        tokio::task::yield_now().await;
        assert_eq!(checks.check(&users, peer(1), "ada", b"right").await, Checked::Busy);
        assert_eq!(checks.check(&users, peer(9), "ada", b"right").await, Checked::Busy);
        // And the others are, once they have waited long enough.
        assert_eq!(waiting.join_all().await, [Checked::Busy; 8]);
        drop(turn);
        assert_eq!(checks.check(&users, peer(9), "ada", b"right").await, Checked::Right);
    }

    #[tokio::test]
    async fn the_turn_is_kept_after_a_failure_and_by_whoever_hangs_up() {
        let users = users(&[("ada", "right", 6)]);
        let checks = Checks::default();
        {
            let mut check = std::pin::pin!(checks.check(&users, peer(1), "ada", b"wrong"));
            assert!(futures_util::poll!(&mut check).is_pending());
        }
        assert_eq!(checks.turn.available_permits(), 0, "hanging up does not free the turn");
        assert_eq!(checks.check(&users, peer(2), "ada", b"wrong").await, Checked::Wrong);
        assert_eq!(checks.turn.available_permits(), 0, "a failure is followed by a rest");
        assert_eq!(checks.check(&users, peer(3), "ada", b"right").await, Checked::Right);
    }

    #[test]
    fn strangers_cost_what_the_most_expensive_user_costs() {
        let users = users(&[("ada", "a", 4), ("bob", "b", 6)]);
        let stranger: HashParts = users.stranger.parse().unwrap();
        assert_eq!(stranger.get_cost(), 6);
        assert!(bcrypt::verify("x", &users.stranger).is_ok(), "it is checked in full");
    }

    #[test]
    fn refuses_what_is_no_hash_or_costs_too_much_and_does_not_show_it() {
        let refusal = |user: &str, hash: &str| {
            Users::new([(user.to_owned(), hash.to_owned())]).err().unwrap().to_string()
        };
        let shape = |cost: u32| format!("$2y${cost:02}${}", ".".repeat(53));
        assert_eq!(
            refusal("ada", "plain-password"),
            "the password of the user `ada` is not a bcrypt hash: make one with `htpasswd -nBC 10 USER`"
        );
        assert_eq!(
            refusal("ada", &shape(15)),
            "the bcrypt hash of the user `ada` has cost 15: it must be 4 to 14"
        );
        assert_eq!(
            refusal("ada", &shape(3)),
            "the bcrypt hash of the user `ada` has cost 3: it must be 4 to 14"
        );
        assert!(refusal("a:b", &shape(10)).contains("a colon in its name"));
        assert!(Users::new([("ada".to_owned(), shape(14))]).is_ok());
    }

    #[test]
    fn a_whole_network_of_ipv6_is_one_machine() {
        let network = |text: &str| super::network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
