//! What a provider answers: all at once, or as a stream.

use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use futures_util::Stream;
use throughline::{Context, Error, Kind, Result};
use tokio::time::Sleep;

use crate::openai::Usage;

/// A provider's answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// The whole answer.
    Full(Completion),
    /// The answer as it comes.
    Stream(ChatStream),
}

/// A whole answer.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completion {
    /// The answer's body, as the provider sent it.
    pub body: Bytes,
    /// The model that was asked, as the price table knows it.
    pub model: Arc<str>,
    /// The tokens used, if the provider said so.
    pub usage: Option<Usage>,
}

/// An answer as it comes: whole server-sent events, byte for byte.
///
/// # Errors
/// The last item is an error when the provider failed, the deadline passed, or the stream ended before its
/// `[DONE]`.
///
/// # Cancellation
/// Dropping it ends the call; who wanted to know learns that the stream was dropped.
pub struct ChatStream {
    frames: Pin<Box<dyn Stream<Item = Result<Frame>> + Send>>,
    deadline: Option<Pin<Box<Sleep>>>,
    model: Arc<str>,
    usage: Option<Usage>,
    on_end: Vec<OnEnd>,
    over: bool,
}

/// Events that came together, and the tokens that they told of.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// Whole events, to be passed on as they are.
    pub events: Bytes,
    /// The tokens used so far, if these events said so.
    pub usage: Option<Usage>,
    /// Whether the answer is complete with these events, so that nobody has to wait for more.
    pub last: bool,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// The tokens used, if the provider said so before the end.
    pub usage: Option<Usage>,
    /// How it ended.
    pub how: StreamEnding,
}

/// Whether a stream came to its proper end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamEnding {
    /// It is complete.
    Complete,
    /// It failed.
    Failed(Kind),
    /// Its reader went away.
    Dropped,
}

type OnEnd = Box<dyn FnOnce(&StreamEnd) + Send>;

// === impl Completion ===

impl Completion {
    /// An answer of `model`.
    #[must_use]
    pub fn new(body: Bytes, model: Arc<str>, usage: Option<Usage>) -> Self {
        Self { body, model, usage }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Completion({}, {} bytes, {:?})", self.model, self.body.len(), self.usage)
    }
}

// === impl Frame ===

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes, {:?})", self.events.len(), self.usage)
    }
}

// === impl ChatStream ===

impl ChatStream {
    /// A stream of `model` that fails when the deadline of `cx` passes.
    pub fn new(
        frames: impl Stream<Item = Result<Frame>> + Send + 'static,
        model: Arc<str>,
        cx: &Context,
    ) -> Self {
        Self {
            frames: Box::pin(frames),
            deadline: cx.deadline().map(|end| Box::pin(tokio::time::sleep_until(end))),
            model,
            usage: None,
            on_end: Vec::new(),
            over: false,
        }
    }

    /// The model that answers.
    #[must_use]
    pub fn model(&self) -> &Arc<str> {
        &self.model
    }

    /// Calls `hear` once, when the stream has ended in whichever way.
    #[must_use]
    pub fn on_end(mut self, hear: impl FnOnce(&StreamEnd) + Send + 'static) -> Self {
        self.on_end.push(Box::new(hear));
        self
    }

    fn end(&mut self, how: StreamEnding) {
        self.over = true;
        let end = StreamEnd { usage: self.usage, how };
        for hear in self.on_end.drain(..) {
            hear(&end);
        }
    }

    fn poll_frame(&mut self, task: &mut TaskContext<'_>) -> Poll<Option<Result<Frame>>> {
        let late = self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(task).is_ready());
        if late {
            return Poll::Ready(Some(Err(Error::new(Kind::Timeout, "the answer was not complete in time"))));
        }
        self.frames.as_mut().poll_next(task)
    }
}

impl Stream for ChatStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.over {
                return Poll::Ready(None);
            }
            match std::task::ready!(self.poll_frame(task)) {
                Some(Ok(frame)) => {
                    self.usage = frame.usage.or(self.usage);
                    if frame.last {
                        self.end(StreamEnding::Complete);
                    }
                    if !frame.events.is_empty() {
                        return Poll::Ready(Some(Ok(frame.events)));
                    }
                }
                Some(Err(error)) => {
                    self.end(StreamEnding::Failed(error.kind()));
                    return Poll::Ready(Some(Err(error)));
                }
                None => self.end(StreamEnding::Complete),
            }
        }
    }
}

impl Drop for ChatStream {
    fn drop(&mut self) {
        if !self.over {
            self.end(StreamEnding::Dropped);
        }
    }
}

impl fmt::Debug for ChatStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChatStream({}, over: {})", self.model, self.over)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use futures_util::{StreamExt, stream};

    use super::*;

    fn ends() -> (Arc<Mutex<Vec<StreamEnd>>>, impl FnOnce(&StreamEnd) + Send + 'static) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        (seen, move |end: &StreamEnd| log.lock().unwrap().push(*end))
    }

    fn frame(events: &'static str, usage: Option<Usage>) -> Result<Frame> {
        Ok(Frame { events: Bytes::from_static(events.as_bytes()), usage, last: false })
    }

    #[tokio::test]
    async fn tells_the_usage_at_its_end_and_hides_empty_frames() {
        let (seen, hear) = ends();
        let frames = stream::iter([frame("a", None), frame("", Some(Usage::new(3, 2))), frame("b", None)]);
        let stream = ChatStream::new(frames, "m".into(), &Context::new()).on_end(hear);
        let bytes: Vec<_> = stream.map(Result::unwrap).collect().await;
        assert_eq!(bytes, ["a", "b"]);
        let end = StreamEnd { usage: Some(Usage::new(3, 2)), how: StreamEnding::Complete };
        assert_eq!(*seen.lock().unwrap(), [end]);
    }

    #[tokio::test]
    async fn a_failure_is_the_last_item() {
        let (seen, hear) = ends();
        let frames =
            stream::iter([frame("a", None), Err(Error::new(Kind::Upstream, "gone")), frame("b", None)]);
        let mut stream = ChatStream::new(frames, "m".into(), &Context::new()).on_end(hear);
        assert_eq!(stream.next().await.unwrap().unwrap(), "a");
        assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), Kind::Upstream);
        assert!(stream.next().await.is_none());
        assert_eq!(seen.lock().unwrap()[0].how, StreamEnding::Failed(Kind::Upstream));
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_is_told_apart() {
        let (seen, hear) = ends();
        let mut stream =
            ChatStream::new(stream::repeat_with(|| frame("a", None)), "m".into(), &Context::new())
                .on_end(hear);
        stream.next().await;
        drop(stream);
        assert_eq!(seen.lock().unwrap()[0].how, StreamEnding::Dropped);
    }

    #[tokio::test]
    async fn a_reader_that_leaves_after_the_last_events_has_had_it_all() {
        let (seen, hear) = ends();
        let last = Frame { events: Bytes::from_static(b"z"), usage: Some(Usage::new(3, 2)), last: true };
        let frames = stream::iter([frame("a", None), Ok(last)]).chain(stream::pending());
        let mut stream = ChatStream::new(frames, "m".into(), &Context::new()).on_end(hear);
        stream.next().await;
        assert!(seen.lock().unwrap().is_empty());
        assert_eq!(stream.next().await.unwrap().unwrap(), "z");
        let end = StreamEnd { usage: Some(Usage::new(3, 2)), how: StreamEnding::Complete };
        assert_eq!(*seen.lock().unwrap(), [end]);
        assert!(stream.next().await.is_none(), "it does not wait for what nobody needs");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_hangs_fails_at_the_deadline() {
        let cx = Context::new().with_time_limit(Duration::from_secs(3));
        let mut stream = ChatStream::new(stream::pending(), "m".into(), &cx);
        let start = tokio::time::Instant::now();
        assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), Kind::Timeout);
        assert_eq!(start.elapsed(), Duration::from_secs(3));
    }
}
