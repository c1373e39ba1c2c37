//! What the stages of one request share.

use std::any::{Any, TypeId};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

/// Values that the stages of one request share, one per type.
///
/// Along a pipe the state is one; each branch of a parallel stage works on a copy made when the branch
/// starts, so that branches cannot disturb each other. Where one branch of several is to count (a hedge, a
/// race), what that one wrote is taken over.
#[derive(Debug, Default)]
pub struct State(Mutex<Values>);

/// In no order: there are so few that looking at each is cheaper than a hash.
#[derive(Clone, Debug, Default)]
struct Values(SmallVec<[(TypeId, Value); 4]>);

type Value = Arc<dyn Any + Send + Sync>;

// === impl State ===

impl State {
    /// Keeps `value` in place of an earlier one of its type.
    pub fn insert<T: Send + Sync + 'static>(&self, value: T) {
        self.values().set(TypeId::of::<T>(), Arc::new(value));
    }

    /// The value of type `T`, if a stage has left one.
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.values().get(TypeId::of::<T>()).cloned().and_then(|value| value.downcast().ok())
    }

    /// Changes the value of type `T`, starting from its default. `change` must not use the state: it would wait
    /// for itself.
    pub fn update<T: Clone + Default + Send + Sync + 'static>(&self, change: impl FnOnce(&mut T)) {
        let mut values = self.values();
        let old = values.get(TypeId::of::<T>()).and_then(|value| value.downcast_ref::<T>());
        let mut value = old.cloned().unwrap_or_default();
        change(&mut value);
        values.set(TypeId::of::<T>(), Arc::new(value));
    }

    pub(crate) fn fork(&self) -> Self {
        Self(Mutex::new(self.values().clone()))
    }

    /// Takes over what `fork` has changed since it was a copy of `base`.
    pub(crate) fn adopt(&self, fork: &State, base: &State) {
        let changed: Vec<_> = {
            let (fork, base) = (fork.values(), base.values());
            let same = |id: TypeId, value: &_| base.get(id).is_some_and(|old| Arc::ptr_eq(old, value));
            fork.0.iter().filter(|(id, value)| !same(*id, value)).cloned().collect()
        };
        let mut values = self.values();
        changed.into_iter().for_each(|(id, value)| values.set(id, value));
    }

    fn values(&self) -> MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Values ===

impl Values {
    fn get(&self, id: TypeId) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == id).map(|(_, value)| value)
    }

    fn set(&mut self, id: TypeId, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == id) {
            Some((_, old)) => *old = value,
            None => self.0.push((id, value)),
        }
    }
}
