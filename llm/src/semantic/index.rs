//! The questions whose answers are stored, found by how near they are.
//!
//! It is searched from end to end within a scope: exact, and bounded by the number of entries. What is used stays
//! longer than what is not (the CLOCK algorithm, Corbató 1968).

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use throughline::Key;
use throughline::telemetry::Tick;

use super::guard::Marks;
use super::vector::Vector;

/// A question whose answer is stored.
#[derive(Debug)]
pub(super) struct Entry {
    /// Under which key the answer is stored.
    pub(super) key: Key,
    /// Where it points.
    pub(super) vector: Vector,
    /// What must be the same.
    pub(super) marks: Marks,
    /// Since when it is known.
    pub(super) since: Tick,
}

/// What is near a question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Nearest {
    /// A question that is near enough, by all rules, and the key of its answer.
    Match(Key, f32),
    /// Questions are near enough, and none of them by the rules; the nearest of them.
    Guarded(f32),
    /// Nothing is near enough; the nearest that there is, by all rules.
    Nothing(Option<f32>),
}

/// The questions whose answers are stored, by scope: nothing is found from within another one.
pub(super) struct Index {
    known: RwLock<Known>,
    most_entries: usize,
    most_bytes: usize,
    ttl: Duration,
}

#[derive(Default)]
struct Known {
    scopes: HashMap<Key, Scope>,
    /// Every entry once, in the order in which they are looked at when there is no room.
    turns: VecDeque<(Key, Key)>,
    bytes: usize,
}

/// Entries in a row, to be searched through, and where each stands.
#[derive(Default)]
struct Scope {
    held: Vec<Held>,
    places: HashMap<Key, usize>,
}

struct Held {
    entry: Entry,
    used: AtomicBool,
}

// === impl Index ===

impl Index {
    /// Holds at most so many entries, of at most so many bytes together, each for `ttl`.
    pub(super) fn new(most_entries: usize, most_bytes: usize, ttl: Duration) -> Self {
        Self { known: RwLock::default(), most_entries, most_bytes, ttl }
    }

    /// The nearest question in `scope` to one that points to `vector` and whose own answer is under `own`: that is not
    /// looked for.
    pub(super) fn nearest(
        &self,
        scope: &Key,
        own: &Key,
        (vector, marks): (&Vector, &Marks),
        threshold: f32,
        now: Tick,
    ) -> Nearest {
        let known = self.read();
        let (mut best, mut guarded): (Option<(&Held, f32)>, Option<f32>) = (None, None);
        for held in known.scopes.get(scope).map_or(&[][..], |scope| &scope.held) {
            let Some(similarity) = held.entry.vector.similarity(vector) else { continue };
            let beaten = |by: Option<f32>| by.is_some_and(|by| by >= similarity);
            if beaten(best.map(|(_, best)| best)) || held.entry.key == *own || self.is_old(&held.entry, now) {
                continue;
            }
            // Asked last, for most are beaten.
            if held.entry.marks.allow(marks) {
                best = Some((held, similarity));
            } else if similarity >= threshold && !beaten(guarded) {
                guarded = Some(similarity);
            }
        }
        match (best, guarded) {
            (Some((held, similarity)), _) if similarity >= threshold => {
                held.used.store(true, Ordering::Relaxed);
                Nearest::Match(held.entry.key, similarity)
            }
            (_, Some(similarity)) => Nearest::Guarded(similarity),
            (best, None) => Nearest::Nothing(best.map(|(_, similarity)| similarity)),
        }
    }

    /// Takes a question in, in the place of the same one.
    pub(super) fn insert(&self, scope: Key, entry: Entry) {
        let bytes = entry.bytes();
        if bytes > self.most_bytes || self.most_entries == 0 {
            return;
        }
        let mut known = self.write();
        let (key, now) = (entry.key, entry.since);
        known.drop_from(&scope, |held| held.key == key || self.is_old(held, now));
        known.bytes += bytes;
        known.scopes.entry(scope).or_default().push(Held { entry, used: AtomicBool::new(false) });
        known.turns.push_back((scope, key));
        while known.turns.len() > self.most_entries || known.bytes > self.most_bytes {
            known.evict();
        }
    }

    /// Forgets a question, whose answer is gone.
    pub(super) fn remove(&self, scope: &Key, key: &Key) {
        self.write().drop_from(scope, |held| held.key == *key);
    }

    /// Whether the entry under `key` is younger than `age`: its answer may still be on its way into the store.
    pub(super) fn is_younger(&self, scope: &Key, key: &Key, age: Duration, now: Tick) -> bool {
        let known = self.read();
        let held = known.scopes.get(scope).and_then(|scope| scope.get(key));
        held.is_some_and(|held| now.since(held.entry.since) < age)
    }

    /// How many questions it holds.
    pub(super) fn len(&self) -> usize {
        self.read().turns.len()
    }

    /// About how many bytes they take.
    pub(super) fn bytes(&self) -> usize {
        self.read().bytes
    }

    fn is_old(&self, entry: &Entry, now: Tick) -> bool {
        now.since(entry.since) >= self.ttl
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.read();
        write!(f, "Index({} entries, {} bytes)", known.turns.len(), known.bytes)
    }
}

// === impl Entry ===

impl Entry {
    /// About how many bytes it takes, the keys by which it is found included.
    fn bytes(&self) -> usize {
        let found_by = 4 * size_of::<Key>() + size_of::<usize>();
        size_of::<Held>() + found_by + self.vector.dimensions() + self.marks.bytes()
    }
}

// === impl Known ===

impl Known {
    /// Drops of a scope what is `unwanted`.
    fn drop_from(&mut self, scope: &Key, unwanted: impl Fn(&Entry) -> bool) {
        let Some(held) = self.scopes.get_mut(scope) else { return };
        let entries = held.held.iter().map(|held| &held.entry);
        let gone: HashSet<Key> = entries.filter(|entry| unwanted(entry)).map(|entry| entry.key).collect();
        if gone.is_empty() {
            return;
        }
        self.bytes -=
            gone.iter().filter_map(|key| held.take(key)).map(|held| held.entry.bytes()).sum::<usize>();
        if held.held.is_empty() {
            self.scopes.remove(scope);
        }
        self.turns.retain(|(in_scope, key)| in_scope != scope || !gone.contains(key));
    }

    /// Takes out the first that was not used since it was looked at last.
    fn evict(&mut self) {
        while let Some((scope, key)) = self.turns.pop_front() {
            let Some(held) = self.scopes.get_mut(&scope) else { continue };
            if held.get(&key).is_some_and(|held| held.used.swap(false, Ordering::Relaxed)) {
                self.turns.push_back((scope, key));
                continue;
            }
            let Some(evicted) = held.take(&key) else { continue };
            self.bytes -= evicted.entry.bytes();
            if held.held.is_empty() {
                self.scopes.remove(&scope);
            }
            return;
        }
    }
}

// === impl Scope ===

impl Scope {
    fn get(&self, key: &Key) -> Option<&Held> {
        self.held.get(*self.places.get(key)?)
    }

    fn push(&mut self, held: Held) {
        self.places.insert(held.entry.key, self.held.len());
        self.held.push(held);
    }

    /// The last one takes the place of what is taken out.
    fn take(&mut self, key: &Key) -> Option<Held> {
        let at = self.places.remove(key)?;
        let taken = self.held.swap_remove(at);
        if let Some(moved) = self.held.get(at) {
            self.places.insert(moved.entry.key, at);
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use throughline::{Clock, KeyBuilder};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(n: u64) -> Key {
        KeyBuilder::new("test", 0).part(&n.to_le_bytes()).build()
    }

    /// Points to an angle in degrees.
    fn at(angle: f32) -> Vector {
        let angle = angle.to_radians();
        Vector::new(&[angle.cos(), angle.sin()]).unwrap()
    }

    fn entry(n: u64, angle: f32, prompt: &str, since: Tick) -> Entry {
        Entry { key: key(n), vector: at(angle), marks: Marks::of(prompt), since }
    }

    fn ask(index: &Index, scope: u64, angle: f32, now: Tick) -> Nearest {
        index.nearest(&key(scope), &key(999), (&at(angle), &Marks::of("hello")), 0.9, now)
    }

    #[test]
    fn finds_the_nearest_that_the_rules_allow_and_only_in_its_scope() {
        let (index, now) = (Index::new(10, 1 << 20, HOUR), Clock::Monotonic.now());
        index.insert(key(100), entry(1, 20.0, "hello there", now));
        index.insert(key(100), entry(2, 10.0, "hello there", now));
        index.insert(key(100), entry(3, 0.0, "hello 5", now));
        assert!(
            matches!(ask(&index, 100, 0.0, now), Nearest::Match(found, similarity) if found == key(2) && similarity > 0.98)
        );
        assert_eq!(ask(&index, 101, 0.0, now), Nearest::Nothing(None));
        assert!(
            matches!(ask(&index, 100, 90.0, now), Nearest::Nothing(Some(similarity)) if similarity < 0.5)
        );
        index.remove(&key(100), &key(1));
        index.remove(&key(100), &key(2));
        assert!(matches!(ask(&index, 100, 0.0, now), Nearest::Guarded(similarity) if similarity > 0.99));
    }

    #[test]
    fn its_own_question_and_an_old_one_are_not_found() {
        let (index, now) = (Index::new(10, 1 << 20, HOUR), Clock::Monotonic.now());
        index.insert(key(100), entry(999, 0.0, "hello", now));
        assert_eq!(ask(&index, 100, 0.0, now), Nearest::Nothing(None));
        index.insert(key(100), entry(1, 0.0, "hello", now));
        let just = now.after(HOUR - Duration::from_secs(1));
        assert!(matches!(ask(&index, 100, 0.0, just), Nearest::Match(..)));
        assert_eq!(ask(&index, 100, 0.0, now.after(HOUR + Duration::from_secs(1))), Nearest::Nothing(None));
    }

    #[test]
    fn what_is_used_stays_when_there_is_no_room() {
        let (index, now) = (Index::new(3, 1 << 20, HOUR), Clock::Monotonic.now());
        for n in 0..3_u8 {
            index.insert(key(100 + u64::from(n)), entry(n.into(), 0.0, "hello", now));
        }
        assert!(matches!(ask(&index, 100, 0.0, now), Nearest::Match(..)));
        index.insert(key(103), entry(3, 0.0, "hello", now));
        let found: Vec<_> =
            (100..104).filter(|n| matches!(ask(&index, *n, 0.0, now), Nearest::Match(..))).collect();
        assert_eq!(found, [100, 102, 103]);
    }

    /// With a search for each of them, this takes minutes.
    #[test]
    fn a_hundred_thousand_questions_go_at_once_when_their_time_is_over() {
        const MANY: u64 = 100_000;
        let (index, now) = (Index::new(200_000, 1 << 30, HOUR), Clock::Monotonic.now());
        let mut known = index.write();
        for n in 0..MANY {
            let held = Held { entry: entry(n, 0.0, "", now), used: AtomicBool::new(true) };
            known.bytes += held.entry.bytes();
            known.scopes.entry(key(0)).or_default().push(held);
            known.turns.push_back((key(0), key(n)));
        }
        known.evict();
        assert_eq!(known.turns.len(), 99_999, "all were used, and one goes");
        drop(known);
        index.insert(key(0), entry(MANY, 0.0, "", now.after(2 * HOUR)));
        assert_eq!(index.len(), 1);
        index.remove(&key(0), &key(MANY));
        assert_eq!((index.len(), index.bytes()), (0, 0));
    }

    proptest! {
        #[test]
        fn both_bounds_are_kept_whatever_comes(
            steps in proptest::collection::vec((0_u64..5, 0_u64..20, 0.0_f32..360.0, 0_u64..7200), 1..200),
            most_entries in 0_usize..12,
            most_bytes in 0_usize..4000,
        ) {
            let (index, start) = (Index::new(most_entries, most_bytes, HOUR), Clock::Monotonic.now());
            for (scope, n, angle, seconds) in steps {
                let now = start.after(Duration::from_secs(seconds));
                index.insert(key(scope), entry(n, angle, "hello 5 Paris on", now));
                let _ = ask(&index, scope, angle, now);
                prop_assert!(index.len() <= most_entries && index.bytes() <= most_bytes, "{index:?}");
                let known = index.read();
                let entries = || known.scopes.values().flat_map(|scope| &scope.held);
                for scope in known.scopes.values() {
                    let places = scope.held.iter().map(|held| scope.places.get(&held.entry.key).copied());
                    prop_assert!(places.eq((0..scope.places.len()).map(Some)));
                }
                prop_assert_eq!(entries().count(), known.turns.len());
                prop_assert_eq!(entries().map(|held| held.entry.bytes()).sum::<usize>(), known.bytes);
            }
        }
    }
}
