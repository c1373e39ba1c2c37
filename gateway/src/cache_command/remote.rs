//! A running gateway that does what a command is asked to.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use indicatif::ProgressBar;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use throughline_llm::{HttpClient, collect};

use super::Ended;
use super::args::{Flush, Get, Purge, Stats};
use super::get::Shelf;
use super::purge::Removal;
use super::stats::Report;
use crate::admin::wire::{self, FAILURES, Task, VERSION};
use crate::causes::chain;
use crate::config::{self, is_loopback, resolve_secret};
use crate::logs::{complain, visible};

/// How long it may take to connect. How long the work takes is up to the stores.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest answer, in bytes.
const MOST: usize = 64 << 20;
/// The variable with the token, where nothing else says it.
pub(super) const TOKEN: &str = "THROUGHLINE_ADMIN_TOKEN";
/// After this long without an answer something is said.
const LONG: Duration = Duration::from_secs(10);
/// How often the spinner moves.
const TURN: Duration = Duration::from_millis(100);

/// A gateway's port for operators.
pub(super) struct Remote {
    client: HttpClient,
    /// Without a slash at its end.
    url: String,
    token: SecretString,
}

/// What was answered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Deserialize)]
struct Refusal {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    message: String,
    code: Option<String>,
}

// === impl Remote ===

impl Remote {
    /// The one at this address. The token is the one that `reference` names, else the one of the environment, else the
    /// first of the configuration.
    ///
    /// # Errors
    /// When the address is none that a token may be sent to, or there is no token.
    pub(super) fn new(
        url: &str,
        reference: Option<&str>,
        admin: Option<&config::Admin>,
    ) -> Result<Self, String> {
        let url = url.trim_end_matches('/').to_owned();
        check(&url)?;
        let env = |name: &str| std::env::var(name).ok();
        let token = match (reference, admin.and_then(|admin| admin.tokens.first())) {
            (Some(reference), _) => resolve_secret("--token", reference, Path::new(""), &env)?,
            (None, _) if env(TOKEN).is_some() => {
                resolve_secret("--token", &format!("env:{TOKEN}"), Path::new(""), &env)?
            }
            (None, Some(token)) => token.clone(),
            (None, None) => {
                return Err(format!(
                    "the gateway at {url} wants a token: set {TOKEN}, or write --token env:NAME, --token file:PATH or, with its \
                     [admin] table in it, --config FILE"
                ));
            }
        };
        Ok(Self { client: HttpClient::new(CONNECT), url, token })
    }

    /// Where it is.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) async fn stats(&self, args: &Stats) -> Result<Report, Ended> {
        let wanted = wire::Stats { stores: args.stores.store.clone(), tenants: args.tenant.clone() };
        self.ask(Task::Stats, &wanted).await
    }

    pub(super) async fn purge(&self, args: &Purge) -> Result<Removal, Ended> {
        let which = &args.which;
        let wanted = wire::Purge {
            stores: args.stores.store.clone(),
            keys: which.key.iter().map(ToString::to_string).collect(),
            prefix: which.prefix.clone(),
            tenant: which.tenant.clone(),
            model: which.model.clone(),
            dry_run: args.dry_run,
        };
        self.ask(Task::Purge, &wanted).await
    }

    pub(super) async fn flush(&self, args: &Flush) -> Result<Removal, Ended> {
        let wanted = wire::Flush { stores: args.stores.store.clone(), dry_run: args.dry_run };
        self.ask(Task::Flush, &wanted).await
    }

    pub(super) async fn get(&self, args: &Get) -> Result<Shelf, Ended> {
        self.ask(Task::Get, &wanted(args)).await
    }

    /// The answer itself, and what other stores said that failed.
    pub(super) async fn value(&self, args: &Get) -> Result<(Bytes, Vec<String>), Ended> {
        let answer = self.send(Task::Get, &wanted(args)).await?;
        let failures = answer.headers.get(FAILURES).map_or(Some(Vec::new()), |said| read(said.as_bytes()));
        Ok((answer.body, failures.ok_or_else(|| self.unreadable())?))
    }

    async fn ask<T: DeserializeOwned>(&self, task: Task, wanted: &impl Serialize) -> Result<T, Ended> {
        read(&self.send(task, wanted).await?.body).ok_or_else(|| self.unreadable())
    }

    /// What it answers, also where a store did not do it.
    async fn send(&self, task: Task, wanted: &impl Serialize) -> Result<Answer, Ended> {
        let spinner = ProgressBar::new_spinner().with_message(format!("the gateway at {} works", self.url));
        spinner.enable_steady_tick(TURN);
        let sent = tokio::select! {
            sent = self.exchange(task, wanted) => sent,
            never = self.wonder() => match never {},
        };
        spinner.finish_and_clear();
        let answer = sent.map_err(Ended::Failed)?;
        if matches!(answer.status, StatusCode::OK | StatusCode::BAD_GATEWAY) && answer.version().is_some() {
            return Ok(answer);
        }
        Err(self.refused(&answer))
    }

    /// Says once that it takes long: a large store may, and so does a gateway that hangs.
    async fn wonder(&self) -> Infallible {
        tokio::time::sleep(LONG).await;
        complain(&format!(
            "no answer from the gateway at {} for {LONG:?}: a large store takes its time, and Ctrl-C gives up",
            self.url
        ));
        std::future::pending().await
    }

    async fn exchange(&self, task: Task, wanted: &impl Serialize) -> Result<Answer, String> {
        let failed = |error: throughline_llm::ClientError| {
            format!("cannot ask the gateway at {}: {}", self.url, chain(&error))
        };
        let uri: Uri = format!("{}{}", self.url, task.path()).parse().map_err(|_| wrong(&self.url))?;
        let mut token = HeaderValue::try_from(format!("Bearer {}", self.token.expose_secret()))
            .expect("a secret that was read fits into a header");
        token.set_sensitive(true);
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(AUTHORIZATION, token), (CONTENT_TYPE, json)]);
        let body = serde_json::to_vec(wanted).expect("texts serialise");
        let answer = self.client.post(&uri, headers, body.into()).await.map_err(failed)?;
        let (head, body) = answer.into_parts();
        let body = collect(body, MOST).await.map_err(failed)?;
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    fn refused(&self, answer: &Answer) -> Ended {
        let status = answer.status;
        let (Some(version), Some(Refusal { error })) = (answer.version(), read(&answer.body)) else {
            let answered = format!("{} and nothing that an [admin] port says", status.as_u16());
            return self.strange(&answered);
        };
        let mut message = match error.code.as_deref() {
            Some("not_stored") => return Ended::Failed(error.message),
            Some("ambiguous") => return Ended::Refused(error.message),
            _ => format!("the gateway at {} says: {}", self.url, error.message),
        };
        if version != env!("CARGO_PKG_VERSION") {
            message += &format!("; it is {version}, this is {}", env!("CARGO_PKG_VERSION"));
        }
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Ended::Failed(message),
            status if status.is_client_error() => Ended::Refused(message),
            _ => Ended::Failed(message),
        }
    }

    fn unreadable(&self) -> Ended {
        self.strange("an answer that this command cannot read")
    }

    fn strange(&self, answered: &str) -> Ended {
        Ended::Failed(format!(
            "{} gives {answered}: is it `listen` of the gateway's [admin] table, and not the port of its API or metrics, and is \
             the gateway of this version ({})?",
            self.url,
            env!("CARGO_PKG_VERSION")
        ))
    }
}

// === impl Answer ===

impl Answer {
    /// The version of the gateway, which every answer of its port says.
    fn version(&self) -> Option<&str> {
        self.headers.get(VERSION)?.to_str().ok()
    }
}

fn wanted(args: &Get) -> wire::Get {
    wire::Get { stores: args.stores.store.clone(), key: args.key.clone(), value: args.value }
}

fn wrong(url: &str) -> String {
    format!("`{url}` is not the address of a gateway: write http://127.0.0.1:PORT")
}

/// Whether a token may be sent there.
fn check(url: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|_| wrong(url))?;
    let host =
        uri.host().filter(|host| !host.is_empty() && uri.query().is_none()).ok_or_else(|| wrong(url))?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("the address of a gateway holds no user and no password: write --token".to_owned());
    }
    let here = is_loopback(host);
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if here => Ok(()),
        Some("http") => Err(format!(
            "the token would travel unencrypted to {host}: use https, or forward the port to this machine, by ssh -L or kubectl \
             port-forward"
        )),
        _ => Err(wrong(url)),
    }
}

/// The texts in `answer` with whatever would act on a terminal written as an escape: who answers may be somebody else.
fn tame(answer: Value) -> Value {
    match answer {
        Value::String(text) => Value::String(visible(&text)),
        Value::Array(parts) => Value::Array(parts.into_iter().map(tame).collect()),
        Value::Object(parts) => {
            Value::Object(parts.into_iter().map(|(name, part)| (visible(&name), tame(part))).collect())
        }
        other => other,
    }
}

/// Reads what was answered, as far as it is that.
fn read<T: DeserializeOwned>(answer: &[u8]) -> Option<T> {
    serde_json::from_value(tame(serde_json::from_slice(answer).ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_this_machine_or_encrypted() {
        for fine in
            ["http://127.0.0.1:9465", "http://LOCALHOST:1", "http://[::1]:9465", "https://gateway.example"]
        {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
        for open in ["http://10.0.0.1:9465", "http://localhost.evil.example", "http://gateway:9465"] {
            assert!(check(open).unwrap_err().contains("would travel unencrypted"), "{open}");
        }
        for none in ["127.0.0.1:9465", "ftp://127.0.0.1", "http://", "", "http://127.0.0.1/?a=b"] {
            assert!(check(none).unwrap_err().contains("is not the address of a gateway"), "{none}");
        }
        let shown = check(&["http://ada:", "secret", "@127.0.0.1:1"].concat()).unwrap_err();
        assert!(shown.contains("no user and no password") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn what_a_peer_says_takes_no_orders() {
        let text = serde_json::json!({
            "failures": ["\u{1b}[2Jgone\n\u{9b}1m"],
            "tenants": { "\u{202e}red": { "entries": 3 } },
        });
        let tamed: Value = read(text.to_string().as_bytes()).unwrap();
        let expected = serde_json::json!({
            "failures": ["\\u{1b}[2Jgone\\n\\u{9b}1m"],
            "tenants": { "\\u{202e}red": { "entries": 3 } },
        });
        assert_eq!(tamed, expected);
        assert!(read::<Value>(b"{").is_none());
    }

    #[test]
    fn without_a_token_nothing_is_asked() {
        let refusal = Remote::new("http://127.0.0.1:1", None, None).err().unwrap();
        assert!(refusal.contains("set THROUGHLINE_ADMIN_TOKEN, or write --token env:NAME"), "{refusal}");
        let refusal = Remote::new("http://127.0.0.1:1", Some("a-token-itself"), None).err().unwrap();
        assert!(refusal.contains("write \"env:NAME\"") && !refusal.contains("a-token-itself"), "{refusal}");
    }
}
