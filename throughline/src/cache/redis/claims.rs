//! Claims on values that are being computed, kept on the server: a key beside the value's, with a token in it that is
//! the holder's alone, and a lease.
//!
//! A claim is the fence of what its holder stores: the server takes the value only while the claim is the holder's,
//! so that one that was stopped for longer than its lease cannot replace what was made after it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, Value, cmd};

use super::commands::{Answer, Useless};
use super::envelope::millis;
use crate::cache::key::Key;

/// Renewals of a claim in the time of its lease.
const RENEWALS: u32 = 3;

const PUT: &str = "if redis.call('get',KEYS[1])~=ARGV[1] then return 0 end \
    redis.call('set',KEYS[2],ARGV[2],'px',ARGV[3]) redis.call('del',KEYS[1]) return 1";
const RENEW: &str =
    "if redis.call('get',KEYS[1])~=ARGV[1] then return 0 end return redis.call('pexpire',KEYS[1],ARGV[2])";
const RELEASE: &str =
    "if redis.call('get',KEYS[1])~=ARGV[1] then return 0 end return redis.call('del',KEYS[1])";

/// The claims of this process.
pub(super) struct Claims {
    lease: Duration,
    held: Mutex<HashMap<Key, String>>,
}

// === impl Claims ===

impl Claims {
    pub(super) fn new(lease: Duration) -> Self {
        Self { lease, held: Mutex::default() }
    }

    /// How long to wait between two renewals.
    pub(super) fn pause(&self) -> Duration {
        self.lease / RENEWALS
    }

    /// Asks for the claim, under a token that is as good as held until [`Claims::forget`]; `None` when this process
    /// has it already.
    pub(super) fn claim(&self, key: &Key, name: &str) -> Option<Cmd> {
        let mut held = self.held();
        let Entry::Vacant(place) = held.entry(*key) else { return None };
        let token = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let mut command = cmd("SET");
        command.arg(lock(name)).arg(&token).arg("NX").arg("PX").arg(millis(self.lease));
        place.insert(token);
        Some(command)
    }

    /// Stores a value and gives the claim up; `None` when there is none.
    pub(super) fn put(&self, key: &Key, name: &str, sealed: &[u8], kept: Duration) -> Option<Cmd> {
        let token = self.forget(key)?;
        let mut command = script(PUT, &[&lock(name), name], &token);
        command.arg(sealed).arg(millis(kept));
        Some(command)
    }

    /// Gives the claim up; `None` when there is none.
    pub(super) fn release(&self, key: &Key, name: &str) -> Option<Cmd> {
        Some(script(RELEASE, &[&lock(name)], &self.forget(key)?))
    }

    /// Renews all claims, of keys with these names.
    pub(super) fn renewals(&self, name: impl Fn(&Key) -> String) -> Vec<(Key, Cmd)> {
        let renewal = |(key, token): (&Key, &String)| {
            let mut command = script(RENEW, &[&lock(&name(key))], token);
            command.arg(millis(self.lease));
            (*key, command)
        };
        self.held().iter().map(renewal).collect()
    }

    /// Takes no more care of the claim, and returns its token.
    pub(super) fn forget(&self, key: &Key) -> Option<String> {
        self.held().remove(key)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Key, String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the claim has been granted.
pub(super) fn granted(answer: Answer) -> Result<bool, Useless> {
    match answer {
        Ok(Value::Okay) => Ok(true),
        Ok(Value::Nil) => Ok(false),
        Ok(_) => Err(Useless::Confused),
        Err(error) => Err(Useless::Failed(error)),
    }
}

/// The name of the claim, on the server that has the value.
fn lock(name: &str) -> String {
    format!("{{{name}}}:lock")
}

fn script(text: &str, keys: &[&str], token: &str) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(text).arg(keys.len()).arg(keys).arg(token);
    command
}

#[cfg(test)]
mod tests {
    use super::super::slots::slot;
    use super::*;

    #[test]
    fn a_claim_is_kept_where_its_value_is() {
        for name in ["throughline:1:3f9c", "a"] {
            assert_eq!(slot(lock(name).as_bytes()), slot(name.as_bytes()), "{name}");
        }
    }
}
