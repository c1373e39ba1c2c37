//! The events of a streamed answer, as they come from a provider.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{self, Stream};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use throughline::{Error, Kind, Result};

use crate::answer::Frame;
use crate::openai::{Chunk, StreamWatch};
use crate::sse::SseParser;

/// The events of `body` that the client is to see, those that came together in one piece.
pub(super) fn frames(body: Incoming, watch: StreamWatch) -> impl Stream<Item = Result<Frame>> + Send {
    stream::unfold(Some((body, SseParser::default(), watch)), async |reading| {
        let (mut body, mut parser, mut watch) = reading?;
        if watch.has_failed() {
            return Some((
                Err(Error::new(Kind::Upstream, "the provider reported a failure in its answer")),
                None,
            ));
        }
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    parser.push(data);
                }
                match gather(&mut parser, &mut watch) {
                    Ok(frame) if frame.last => {
                        let_go(body);
                        Some((Ok(frame), None))
                    }
                    Ok(frame) => Some((Ok(frame), Some((body, parser, watch)))),
                    Err(error) => Some((Err(error), None)),
                }
            }
            Some(Err(error)) => Some((
                Err(Error::new(Kind::Upstream, "the provider broke off its answer").because(error)),
                None,
            )),
            None => Some((last(&mut parser, &mut watch), None)),
        }
    })
}

/// What is left when the body has ended before its `[DONE]`: some servers leave out the last blank line.
fn last(parser: &mut SseParser, watch: &mut StreamWatch) -> Result<Frame> {
    let rest = parser.finish().filter(|event| {
        let chunk = watch.observe(event);
        !watch.hides(chunk)
    });
    if !watch.is_complete() {
        return Err(Error::new(Kind::Upstream, "the provider's answer ended before it was complete"));
    }
    let events = rest.map(|event| event.raw).unwrap_or_default();
    Ok(Frame { events, usage: watch.usage(), content: watch.has_content(), last: true })
}

/// Whole events up to `[DONE]`, which ends the answer, or up to an error. The provider's own words about its
/// failure stay here: they may hold anything.
fn gather(parser: &mut SseParser, watch: &mut StreamWatch) -> Result<Frame> {
    let mut pieces = Vec::new();
    let too_large = |error| Error::new(Kind::Upstream, "the provider's answer cannot be read").because(error);
    while !watch.is_complete()
        && !watch.has_failed()
        && let Some(event) = parser.next_event().map_err(too_large)?
    {
        let chunk = watch.observe(&event);
        if chunk != Chunk::Error && !watch.hides(chunk) {
            pieces.push(event.raw);
        }
    }
    let events = if pieces.len() == 1 { pieces.remove(0) } else { pieces.concat().into() };
    Ok(Frame { events, usage: watch.usage(), content: watch.has_content(), last: watch.is_complete() })
}

/// Takes in the end of a body that nobody waits for, for only then can its connection be used again. One
/// that does not end is closed.
fn let_go(mut body: Incoming) {
    const PATIENCE: Duration = Duration::from_secs(1);
    if body.is_end_stream() || matches!(body.frame().now_or_never(), Some(None)) {
        return;
    }
    let rest = async move { while let Some(Ok(_)) = body.frame().await {} };
    tokio::spawn(tokio::time::timeout(PATIENCE, rest));
}
