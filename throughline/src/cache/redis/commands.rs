//! What is said to a server, and what its answers mean.

use std::time::{Duration, SystemTime};

use ::redis::{Cmd, RedisError, Value, cmd};

use super::envelope::{self, millis};
use super::failure::failure;
use crate::cache::health::Call;
use crate::cache::key::Key;
use crate::cache::store::{Lifetime, Lookup};
use crate::error::{Error, Kind};

/// How long the value lives that is written to see whether writing works.
const PROBE_KEPT: Duration = Duration::from_secs(1);

const GET: &str = "GET";
const GET_ALL: &str = "MGET";

/// Every byte as two hexadecimal digits.
static PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// What a server has answered: an answer that says that something is wrong is an `Err`.
pub(super) type Answer = Result<Value, RedisError>;

/// What is asked about a key.
pub(super) enum Question {
    /// What is under it.
    Get,
    /// To do this with it.
    Do(Cmd),
}

/// Why an answer is of no use.
pub(super) enum Useless {
    /// The server says that something is wrong.
    Failed(RedisError),
    /// It cannot be an answer to what was asked: the two sides have lost each other.
    Confused,
}

// === impl Question ===

impl Question {
    pub(super) fn call(&self) -> Call {
        match self {
            Self::Get => Call::Read,
            Self::Do(_) => Call::Write,
        }
    }
}

// === impl Useless ===

impl Useless {
    pub(super) fn error(&self) -> Error {
        match self {
            Self::Failed(error) => failure(error),
            Self::Confused => {
                Error::new(Kind::Store, "redis gave an answer that does not belong to what was asked")
            }
        }
    }

    pub(super) fn is_read_only(&self) -> bool {
        matches!(self, Self::Failed(error) if error.code() == Some("READONLY"))
    }
}

/// The name that a key has in the database.
pub(super) fn name(prefix: &str, key: &Key) -> String {
    let mut digits = [0; 64];
    for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(key.as_bytes()) {
        *pair = PAIRS[usize::from(*byte)];
    }
    let mut name = String::with_capacity(prefix.len() + digits.len());
    name.push_str(prefix);
    name.push_str(str::from_utf8(&digits).expect("digits are ascii"));
    name
}

pub(super) fn get(name: &str) -> Cmd {
    let mut command = Cmd::with_capacity(2, GET.len() + name.len());
    command.arg(GET).arg(name);
    command
}

/// Asks for several at once. What is no text under its name is said to be missing.
pub(super) fn get_all<'a>(names: impl ExactSizeIterator<Item = &'a str> + Clone) -> Cmd {
    let length: usize = names.clone().map(str::len).sum();
    let mut command = Cmd::with_capacity(1 + names.len(), GET_ALL.len() + length);
    command.arg(GET_ALL);
    for name in names {
        command.arg(name);
    }
    command
}

pub(super) fn set(name: &str, sealed: &[u8], kept: Duration) -> Cmd {
    let mut command = cmd("SET");
    command.arg(name).arg(sealed).arg("PX").arg(millis(kept));
    command
}

/// Writes a value that is gone after a moment, to see whether writing works.
pub(super) fn probe(key: &Key, name: &str) -> Cmd {
    let lifetime = Lifetime { fresh: PROBE_KEPT, kept: PROBE_KEPT, computed_in: Duration::ZERO };
    set(name, &envelope::seal(key, &[], lifetime, wall_clock(), usize::MAX), PROBE_KEPT)
}

pub(super) fn delete(name: &str) -> Cmd {
    let mut command = cmd("DEL");
    command.arg(name);
    command
}

pub(super) fn got(key: &Key, answer: Answer) -> Result<Lookup, Useless> {
    match answer {
        Ok(Value::Nil) => Ok(Lookup::Missing),
        Ok(Value::BulkString(sealed)) => Ok(match envelope::open(key, sealed.into(), wall_clock()) {
            Ok(found) if found.age >= found.lifetime.kept => Lookup::Missing,
            Ok(found) => Lookup::Found(found),
            Err(_) => Lookup::Corrupt,
        }),
        // Somebody keeps a list or the like under our name.
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(Lookup::Corrupt),
        Err(error) => Err(Useless::Failed(error)),
        Ok(_) => Err(Useless::Confused),
    }
}

pub(super) fn was_set(answer: Answer) -> Result<(), Useless> {
    match answer {
        Ok(Value::Okay) => Ok(()),
        Ok(_) => Err(Useless::Confused),
        Err(error) => Err(Useless::Failed(error)),
    }
}

pub(super) fn counted(answer: Answer) -> Result<i64, Useless> {
    match answer {
        Ok(Value::Int(count)) => Ok(count),
        Ok(_) => Err(Useless::Confused),
        Err(error) => Err(Useless::Failed(error)),
    }
}

/// The one clock that replicas share, in milliseconds.
#[expect(clippy::disallowed_methods, reason = "a monotonic clock means nothing to another replica")]
pub(super) fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
