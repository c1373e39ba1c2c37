//! Values that others have changed, as the server tells it: RESP3 client tracking of all keys of the store's prefix.
//!
//! Every connection tracks, and each heeds only the keys that it is used for: what this process writes over a connection is not
//! told to that one (`NOLOOP`). What was changed while there was no connection is unknown, so every new one says that anything
//! may have been.

use std::sync::{PoisonError, RwLock};

use ::redis::{Cmd, PushInfo, PushKind, Value, cmd};

use crate::cache::key::Key;
use crate::cache::store::OnChange;

/// Who is to be told.
pub(super) struct Changes {
    prefix: String,
    listeners: RwLock<Vec<OnChange>>,
}

// === impl Changes ===

impl Changes {
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix, listeners: RwLock::default() }
    }

    pub(super) fn tell(&self, listener: OnChange) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// What has a connection tell us; `None` when nobody wants to know.
    pub(super) fn tracking(&self) -> Option<Cmd> {
        if self.listeners.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return None;
        }
        let mut command = cmd("CLIENT");
        command.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(&self.prefix).arg("NOLOOP");
        Some(command)
    }

    /// Anything may have changed.
    pub(super) fn unknown(&self) {
        self.told(None);
    }

    /// Takes note of what a server says on a connection that is used for the keys that `are_its`.
    pub(super) fn heed(&self, push: &PushInfo, are_its: impl Fn(&Key) -> bool) {
        if push.kind != PushKind::Invalidate {
            return;
        }
        match push.data.first() {
            Some(Value::Array(names)) => {
                let keys = names.iter().filter_map(|name| self.key(name));
                keys.filter(are_its).for_each(|key| self.told(Some(&key)));
            }
            // The database was emptied.
            _ => self.unknown(),
        }
    }

    fn key(&self, name: &Value) -> Option<Key> {
        let Value::BulkString(name) = name else { return None };
        let digits = name.strip_prefix(self.prefix.as_bytes())?;
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let bytes: Option<Vec<u8>> =
            digits.chunks(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect();
        Some(Key::from_bytes(bytes?.try_into().ok()?))
    }

    fn told(&self, key: Option<&Key>) {
        self.listeners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .for_each(|listener| listener(key));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::commands;
    use super::*;
    use crate::cache::key::KeyBuilder;

    fn push(data: Value) -> PushInfo {
        PushInfo { kind: PushKind::Invalidate, data: vec![data] }
    }

    #[test]
    fn only_keys_of_the_store_and_the_connection_are_told_of() {
        let changes = Changes::new("app:1:".to_owned());
        assert!(changes.tracking().is_none());
        let told: Arc<Mutex<Vec<Option<Key>>>> = Arc::default();
        let telling = Arc::clone(&told);
        changes.tell(Arc::new(move |key| telling.lock().unwrap().push(key.copied())));
        assert!(changes.tracking().is_some());

        let key = |n: u8| KeyBuilder::new("test", 0).part(&[n]).build();
        let name = |name: String| Value::BulkString(name.into_bytes());
        let names =
            [commands::name("app:1:", &key(1)), commands::name("app:1:", &key(2)), "app:1:3f".to_owned()];
        changes.heed(&push(Value::Array(names.map(name).into())), |one| *one == key(1));
        changes.heed(&push(Value::Nil), |_| false);
        assert_eq!(*told.lock().unwrap(), [Some(key(1)), None]);
    }
}
