//! What a failure of the server or the way to it is called. Nothing that the server said is repeated, but for
//! the code that its errors begin with: it is from Redis's own list.

use std::io;
use std::sync::Arc;

use ::redis::{ErrorKind, RedisError};

use crate::error::{Error, Kind};

/// The failure as this crate's error. Its text holds no address, no key and no password.
pub(super) fn failure(error: &RedisError) -> Error {
    Error::new(Kind::Store, text(error))
}

fn text(error: &RedisError) -> String {
    if let Some(code) = error.code().filter(|code| is_code(code)) {
        return match code {
            "WRONGPASS" | "NOAUTH" => format!("redis refused user or password ({code})"),
            "NOPERM" => "redis does not allow the user this command or key (NOPERM)".to_owned(),
            "OOM" => "redis has no memory left (OOM)".to_owned(),
            "READONLY" => "redis takes no writes (READONLY)".to_owned(),
            "LOADING" => "redis is still loading its data (LOADING)".to_owned(),
            _ => format!("redis answered with the error {code}"),
        };
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => "redis refused user or password".to_owned(),
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => "what answered is not redis".to_owned(),
        ErrorKind::Io => of_the_way(error),
        _ => format!("the call to redis failed ({})", error.category()),
    }
}

fn of_the_way(error: &RedisError) -> String {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>());
    match source.and_then(|source| source.downcast_ref()).map(io::Error::kind) {
        _ if error.is_timeout() => "redis did not let us connect in time".to_owned(),
        _ if error.is_connection_refusal() => "redis refused the connection".to_owned(),
        Some(io::ErrorKind::InvalidData) => {
            "the tls connection to redis failed: its certificate is not trusted, or it \
             speaks no tls"
                .to_owned()
        }
        _ => "the connection to redis was lost".to_owned(),
    }
}

/// Redis's codes are short words in capitals. Anything else was made by somebody who is not Redis.
fn is_code(code: &str) -> bool {
    (1..=16).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_uppercase())
}
