//! What is answered to a request that was let in.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::Inventory;
use super::guard::admitted;
use super::refusal::Refusal;
use super::wire::{self, Task, VERSION};
use crate::cache_command::Ended;
use crate::cache_command::args::{Which, digits};
use crate::cache_command::get::Hits;
use crate::cache_command::purge::{Removal, Selection};
use crate::cache_command::stats::{Names, Report};
use crate::gateway::Gateway;

/// The longest body, in bytes.
const MOST: usize = 64 << 10;
/// How long a body may take to come.
const BODY: Duration = Duration::from_secs(10);

type Answer = Result<Response<Full<Bytes>>, Refusal>;

/// Answers. One request at a time has `turn`.
pub(super) async fn answer<B>(
    gateway: &Gateway,
    turn: &Mutex<()>,
    request: Request<B>,
) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let answered = respond(gateway, turn, request).await;
    let mut response = answered.unwrap_or_else(|refusal| {
        if refusal.status == StatusCode::UNAUTHORIZED {
            tracing::warn!("a request to the admin port was refused: it showed no token, or a wrong one");
        }
        refusal.into_response()
    });
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert(VERSION, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    response
}

async fn respond<B>(gateway: &Gateway, turn: &Mutex<()>, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let served = gateway.served();
    let inventory = &served.inventory;
    let (head, body) = request.into_parts();
    let task = admitted(&head, |token| inventory.admits(token))?;
    let body = received(body).await?;
    let _turn = turn.try_lock().map_err(|_| Refusal::busy())?;
    match task {
        Task::Stats => stats(inventory, read(&body)?).await,
        Task::Get => get(inventory, read(&body)?).await,
        Task::Purge => purge(inventory, read(&body)?).await,
        Task::Flush => flush(inventory, read(&body)?).await,
    }
}

async fn received<B>(body: B) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Said at once where it is known: nobody has to send it first.
    if body.size_hint().lower() > MOST as u64 {
        return Err(Refusal::too_large(MOST));
    }
    let body = tokio::time::timeout(BODY, Limited::new(body, MOST).collect()).await;
    match body.map_err(|_| Refusal::body_not_received())? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::too_large(MOST)),
        Err(_) => Err(Refusal::body_not_received()),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    // A list would be read as the fields in their order, and an empty one as a request for everything.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Refusal::invalid(
            "the body cannot be read: it is no JSON object, such as {\"stores\": []}",
        ));
    }
    serde_json::from_slice(body)
        .map_err(|error| Refusal::invalid(format!("the body cannot be read: {error}")))
}

async fn stats(inventory: &Inventory, wanted: wire::Stats) -> Answer {
    let names = Names::new(inventory.models(), &wanted.tenants);
    let targets = inventory.chosen(&wanted.stores).map_err(Refusal::invalid)?;
    let report = Report::of(&targets, &names).await;
    Ok(json(&report, report.failures.is_empty()))
}

async fn get(inventory: &Inventory, wanted: wire::Get) -> Answer {
    let key = digits(&wanted.key).map_err(|why| Refusal::invalid(format!("`key`: {why}")))?;
    let targets = inventory.chosen(&wanted.stores).map_err(Refusal::invalid)?;
    let hits = Hits::of(&targets, &key).await.map_err(|ended| match ended {
        Ended::Refused(message) => Refusal::ambiguous(message),
        Ended::Failed(message) => Refusal::not_stored(message),
    })?;
    let shelf = hits.shelf(&Names::new(inventory.models(), &[]));
    if !wanted.value {
        return Ok(json(&shelf, shelf.failures.is_empty()));
    }
    match hits.value().map_err(Refusal::failed)? {
        Some(value) => Ok(with_failures(value, &shelf.failures)),
        None => Err(Refusal::failed(shelf.failures.join("; "))),
    }
}

async fn purge(inventory: &Inventory, wanted: wire::Purge) -> Answer {
    let which = which(&wanted)?;
    let targets = inventory.chosen(&wanted.stores).map_err(Refusal::invalid)?;
    begins("purge", wanted.dry_run);
    let removal = Removal::from(&targets, &Selection::of(&which), wanted.dry_run).await;
    let removal = removal.of_known(&which, inventory.models()).map_err(Refusal::unknown_model)?;
    Ok(removed("purge", &removal, wanted.dry_run))
}

async fn flush(inventory: &Inventory, wanted: wire::Flush) -> Answer {
    let targets = inventory.chosen(&wanted.stores).map_err(Refusal::invalid)?;
    begins("flush", wanted.dry_run);
    let removal = Removal::from(&targets, &Selection::All, wanted.dry_run).await;
    Ok(removed("flush", &removal, wanted.dry_run))
}

/// Checks a choice as the command line does.
fn which(wanted: &wire::Purge) -> Result<Which, Refusal> {
    if wanted.keys.is_empty()
        && [&wanted.prefix, &wanted.tenant, &wanted.model].iter().all(|part| part.is_none())
    {
        return Err(Refusal::invalid(
            "say what is to be purged, by keys, prefix, tenant or model; flush removes all",
        ));
    }
    let key = wanted.keys.iter().map(|key| {
        key.parse().map_err(|_| {
            Refusal::invalid("`keys`: a key is 64 hexadecimal digits; the beginning of one is a `prefix`")
        })
    });
    let prefix = wanted.prefix.as_deref().map(digits).transpose();
    Ok(Which {
        key: key.collect::<Result<_, _>>()?,
        prefix: prefix.map_err(|why| Refusal::invalid(format!("`prefix`: {why}")))?,
        tenant: wanted.tenant.clone(),
        model: wanted.model.clone(),
    })
}

/// Whoever hangs up before the end has removed something too.
fn begins(command: &'static str, dry_run: bool) {
    if !dry_run {
        tracing::info!(command, "an operator begins to have answers removed from the cache");
    }
}

/// Says what was removed, in the log as well.
fn removed(command: &'static str, removal: &Removal, dry_run: bool) -> Response<Full<Bytes>> {
    if !dry_run {
        let (entries, failures) = (removal.entries(), removal.failures.len());
        tracing::info!(command, entries, failures, "an operator has had answers removed from the cache");
    }
    json(removal, removal.failures.is_empty())
}

fn json(answer: &impl Serialize, done: bool) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(answer).expect("texts and numbers serialise");
    let status = if done { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
    response(status, "application/json", body.into())
}

/// The answer of one store, and in a header what others said that failed.
fn with_failures(value: Bytes, failures: &[String]) -> Response<Full<Bytes>> {
    let kind = "application/octet-stream";
    let Some(failures) = wire::failures(failures) else { return response(StatusCode::OK, kind, value) };
    let mut response = response(StatusCode::BAD_GATEWAY, kind, value);
    response.headers_mut().insert(wire::FAILURES, failures);
    response
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
