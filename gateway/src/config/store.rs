//! `[stores.NAME.redis]`: where answers can be kept that several gateways share.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde::Deserialize;
use throughline::cache::redis::RedisConfig;
use toml::{Spanned, Value};

use super::check::Check;
use super::{read, secret};

/// The longest file of certificates, in bytes.
const LONGEST: u64 = 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct StoreFile {
    redis: Option<RedisFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct RedisFile {
    url: Spanned<String>,
    username: Option<Spanned<String>>,
    password: Option<Spanned<Value>>,
    ca_file: Option<Spanned<String>>,
    key_prefix: Option<Spanned<String>>,
    deadline: Option<Spanned<Value>>,
    connections: Option<Spanned<i64>>,
}

// === impl StoreFile ===

impl StoreFile {
    /// Checks the one kind that there is.
    pub(super) fn check(self, check: &mut Check<'_>, name: &Spanned<String>) -> RedisConfig {
        let stand_in = || RedisConfig::new("redis://127.0.0.1").expect("it is an address");
        let Some(redis) = self.redis else {
            let problem = format!("store `{0}` has no kind: write [stores.{0}.redis]", name.get_ref());
            check.refuse(name.span(), problem);
            return stand_in();
        };
        redis.check(check, stand_in()).name(name.get_ref())
    }
}

// === impl RedisFile ===

impl RedisFile {
    fn check(self, check: &mut Check<'_>, stand_in: RedisConfig) -> RedisConfig {
        let address = self.url.get_ref();
        let mut config = RedisConfig::new(address).unwrap_or_else(|error| {
            let cure = if address.contains('@') { " in `username` and `password`" } else { "" };
            check.refuse(self.url.span(), format!("`url`: {error}{cure}"));
            stand_in
        });
        if let Some(username) = self.username {
            config = config.username(user(check, username));
        }
        if let Some(password) = self.password.and_then(|written| secret::read(check, "password", &written)) {
            config = config.password(password);
        }
        if let Some(prefix) = self.key_prefix {
            config = config.key_prefix(key_prefix(check, prefix));
        }
        if let Some(file) = &self.ca_file {
            match certificates(check, file)
                .and_then(|pem| config.clone().ca(pem).map_err(|error| error.to_string()))
            {
                Ok(with_ca) => config = with_ca,
                Err(problem) => check.refuse(file.span(), format!("`ca_file`: {problem}")),
            }
        }
        let deadline = check.timeout("deadline", self.deadline.as_ref(), Duration::from_millis(20));
        let connections = check.whole("connections", self.connections.as_ref(), 1..=4, 1);
        let bounded = config.deadline(deadline).and_then(|config| config.connections(connections));
        bounded.expect("both have been checked")
    }
}

/// A name as it is written, or what it refers to.
fn user(check: &mut Check<'_>, written: Spanned<String>) -> String {
    if !["env:", "file:"].iter().any(|scheme| written.get_ref().starts_with(scheme)) {
        return check.text("username", written);
    }
    let reference = Spanned::new(written.span(), Value::String(written.into_inner()));
    secret::read(check, "username", &reference)
        .map_or_else(String::new, |name| name.expose_secret().to_owned())
}

fn certificates(check: &mut Check<'_>, file: &Spanned<String>) -> Result<Vec<u8>, String> {
    let pem = read::at_most(LONGEST, &check.dir.join(file.get_ref()))
        .map_err(|why| format!("it cannot be read: {why}"))?;
    check.marks.read(&pem);
    Ok(pem)
}

/// It stands in the names of keys, and in the rules of an ACL.
fn key_prefix(check: &mut Check<'_>, written: Spanned<String>) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    if !written.get_ref().chars().all(allowed) || !(1..=64).contains(&written.get_ref().len()) {
        let problem = "`key_prefix` must be 1 to 64 letters, digits or characters of . _ : / -";
        check.refuse(written.span(), problem);
    }
    written.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{accepted, refused};

    fn store(text: &str) -> RedisConfig {
        accepted(&format!("[stores.shared.redis]\n{text}")).stores["shared"].clone()
    }

    /// The first line of what is said about a store.
    fn refusal(text: &str) -> String {
        refused(&format!("[stores.shared.redis]\n{text}")).lines().next().unwrap().to_owned()
    }

    #[test]
    fn only_the_address_is_needed() {
        let shown = format!("{:?}", store("url = \"redis://h\""));
        for part in ["name: \"shared\"", "redis://h:6379/0", "prefix: \"throughline\"", "deadline: 20ms"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert_eq!(refusal(""), "t.toml:1:1: missing key `url`");
    }

    #[test]
    fn all_keys_are_read_and_the_password_is_not_in_debug() {
        let shown = format!(
            "{:?}",
            store(
                "url = \"rediss://h:7000/2\"\nusername = \"cache\"\npassword = \"env:KEY\"\n\
                 key_prefix = \"app:prod\"\ndeadline = \"50ms\"\nconnections = 2"
            )
        );
        for part in ["rediss://h:7000/2", "cache", "app:prod", "50ms"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains("sk-live"), "{shown}");
    }

    #[test]
    fn a_store_without_a_kind_is_refused() {
        let said = refused("[stores.shared]\n");
        assert!(
            said.starts_with("t.toml:1:9: store `shared` has no kind: write [stores.shared.redis]\n"),
            "{said}"
        );
    }

    #[test]
    fn an_address_with_a_password_is_refused_and_not_shown() {
        let said = refused("[stores.shared.redis]\nurl = \"redis://me:hush@h\"\n");
        assert!(
            said.contains("give them apart in `username` and `password`") && !said.contains("hush"),
            "{said}"
        );
        let wanted = "write `redis://HOST:PORT/DATABASE`, or `rediss://…` for tls";
        assert_eq!(
            refusal("url = \"h:6379\""),
            format!("t.toml:2:7: `url`: the address is not one of a redis server: {wanted}")
        );
    }

    #[test]
    fn a_password_in_plain_text_is_refused_and_not_shown() {
        let said = refused("[stores.shared.redis]\nurl = \"redis://h\"\npassword = \"hush\"\n");
        assert!(
            said.starts_with("t.toml:3:12: `password` holds the password itself: put it in a variable"),
            "{said}"
        );
        assert!(!said.contains("hush"), "{said}");
    }

    #[test]
    fn certificates_that_are_not_there_or_of_no_use_are_refused() {
        assert_eq!(
            refusal("url = \"rediss://h\"\nca_file = \"./none.pem\""),
            "t.toml:3:11: `ca_file`: it cannot be read: there is no such file"
        );
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        assert_eq!(
            refusal("url = \"redis://h\"\nconnections = 5"),
            "t.toml:3:15: `connections` is 5: write 1 to 4"
        );
        assert_eq!(
            refusal("url = \"redis://h\"\ndeadline = \"0s\""),
            "t.toml:3:12: `deadline` is 0s: write 1ms to 24h"
        );
        assert_eq!(
            refusal("url = \"redis://h\"\nkey_prefix = \"a b\""),
            "t.toml:3:14: `key_prefix` must be 1 to 64 letters, digits or characters of . _ : / -"
        );
        assert_eq!(
            refusal("url = \"redis://h\"\nprefix = \"a\"").split(" (").next(),
            Some("t.toml:3:1: unknown key `prefix`")
        );
    }
}
