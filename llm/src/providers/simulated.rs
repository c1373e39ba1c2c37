//! A provider inside this process: realistic times, tokens and faults, and no key.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{HeaderMap, StatusCode};
use throughline::{Context, Result};

use super::Provider;
use crate::answer::{Answer, ChatStream, Completion, Frame};
use crate::chat::Watched;
use crate::genai::{Response, Shared};
use crate::http_call::refused;
use crate::openai::{ChatRequest, DONE, Delta, Usage, chunk, completion, usage_chunk};
use crate::simulated::{Outcome, SimulatedConfig, Simulator};

/// A provider that behaves as `config` says.
#[must_use]
pub fn simulated(config: SimulatedConfig) -> Provider {
    Provider::Simulated(Simulator::new(config))
}

/// Answers as drawn: after the drawn time, with the drawn text or fault.
pub(crate) async fn answer(
    simulator: &Simulator,
    request: &ChatRequest,
    model: &Arc<str>,
    cx: &Context,
    watched: Watched,
) -> Result<Answer> {
    let draw = simulator.draw(request);
    tokio::time::sleep(draw.delay).await;
    match draw.outcome {
        Outcome::Answer { content, usage } if request.stream() => {
            let id = id();
            if let Some(response) = &watched.response {
                tell(response, |response| {
                    response.head(Some(&id), Some(model));
                    response.choice(0, None);
                });
            }
            let events = events(&id, model, &content, &usage, request.wants_stream_usage());
            let frames = paced(events, draw.token_gap, usage, watched.response);
            Ok(Answer::Stream(ChatStream::measured(frames, Arc::clone(model), cx, watched.pace)))
        }
        Outcome::Answer { content, usage } => {
            let id = id();
            let body = completion(&id, model, created(), &content, &usage);
            let response = watched.records.then(|| {
                let mut response = Box::<Response>::default();
                response.head(Some(&id), Some(model));
                response.choice(0, Some("stop"));
                response
            });
            Ok(Answer::Full(Completion { response, ..Completion::new(body, Arc::clone(model), Some(usage)) }))
        }
        Outcome::Error { status } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err(refused(status, &HeaderMap::new(), b""))
        }
        Outcome::Hang => std::future::pending().await,
    }
}

fn events(id: &str, model: &str, content: &str, usage: &Usage, tell_usage: bool) -> Vec<Bytes> {
    let created = created();
    let mut events = vec![chunk(id, model, created, Delta::Role)];
    events.extend(content.split_inclusive(' ').map(|word| chunk(id, model, created, Delta::Content(word))));
    events.push(chunk(id, model, created, Delta::Stop));
    if tell_usage {
        events.push(usage_chunk(id, model, created, usage));
    }
    events.push(Bytes::from_static(DONE));
    events
}

/// One event after the other, a `gap` apart; the first at once.
fn paced(
    events: Vec<Bytes>,
    gap: Duration,
    usage: Usage,
    response: Option<Shared>,
) -> impl Stream<Item = Result<Frame>> + Send {
    let last = events.len() - 1;
    stream::unfold((events.into_iter().enumerate(), response), move |(mut events, response)| async move {
        let (at, event) = events.next()?;
        if at > 0 && at < last {
            tokio::time::sleep(gap).await;
        }
        if let (true, Some(response)) = (at == last, &response) {
            tell(response, |response| response.choice(0, Some("stop")));
        }
        let usage = (at == last).then_some(usage);
        let frame = Frame { events: event, usage, content: at > 0, last: at == last };
        Some((Ok(frame), (events, response)))
    })
}

fn tell(response: &Shared, what: impl FnOnce(&mut Response)) {
    what(&mut response.lock().unwrap_or_else(PoisonError::into_inner));
}

fn id() -> String {
    format!("chatcmpl-sim-{:016x}", fastrand::u64(..))
}

#[expect(clippy::disallowed_methods, reason = "the answer carries a date, which is not used to measure")]
fn created() -> u64 {
    std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
