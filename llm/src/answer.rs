//! What a provider answers: all at once, or as a stream.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use throughline::stream::{OnEnd, Part, StreamEnding, StreamLimit};
use throughline::{Context, Error, ItemStream, Kind, Result, Streaming};
use tokio::time::{Instant, sleep_until};

use crate::genai::{Pace, Response};
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
    /// Whether it was given to another question.
    pub(crate) borrowed: bool,
    /// What it says of itself, on its way to the span of the call.
    pub(crate) response: Option<Box<Response>>,
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
    frames: ItemStream<Frame>,
    model: Arc<str>,
    /// What the frames have told so far, read or not.
    told: Arc<Mutex<Told>>,
    /// Whether it was given to another question.
    borrowed: bool,
}

/// What is known of a stream before its end.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    usage: Option<Usage>,
    first_chunk: Option<Duration>,
}

/// Events that came together, and the tokens that they told of.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// Whole events, to be passed on as they are.
    pub events: Bytes,
    /// The tokens used so far, if these events said so.
    pub usage: Option<Usage>,
    /// Whether something of the answer has come, with these events or before: from then on it cannot be
    /// taken back.
    pub content: bool,
    /// Whether the answer is complete with these events, so that nobody has to wait for more.
    pub last: bool,
}

/// How a stream ended.
#[derive(Clone, Debug)]
pub struct StreamEnd {
    /// The tokens used, if the provider said so before the end.
    pub usage: Option<Usage>,
    /// How long after the call the first events came; only a stream that is measured knows.
    pub first_chunk: Option<Duration>,
    /// How it ended.
    pub how: StreamEnding,
}

// === impl Answer ===

impl Answer {
    /// Marks it as given to another question: it must not be stored as the answer to this one, or a mistake would last
    /// and its time would begin anew.
    #[must_use]
    pub(crate) fn borrowed(mut self) -> Self {
        match &mut self {
            Self::Full(answer) => answer.borrowed = true,
            Self::Stream(stream) => stream.borrowed = true,
        }
        self
    }
}

// === impl Completion ===

impl Completion {
    /// An answer of `model`.
    #[must_use]
    pub fn new(body: Bytes, model: Arc<str>, usage: Option<Usage>) -> Self {
        Self { body, model, usage, borrowed: false, response: None }
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
        Self::telling(frames, model, cx, None, |told, now| now.or(told))
    }

    /// As [`ChatStream::new`], with the times of its chunks taken down, and with frames that each tell all that is known: of
    /// a usage that is not told again nobody knows any more whether it is right.
    pub(crate) fn measured(
        frames: impl Stream<Item = Result<Frame>> + Send + 'static,
        model: Arc<str>,
        cx: &Context,
        pace: Option<Pace>,
    ) -> Self {
        Self::telling(frames, model, cx, pace, |_, now| now)
    }

    /// `known` makes the usage that is known from the one told before and what a frame says.
    fn telling(
        frames: impl Stream<Item = Result<Frame>> + Send + 'static,
        model: Arc<str>,
        cx: &Context,
        mut pace: Option<Pace>,
        known: fn(Option<Usage>, Option<Usage>) -> Option<Usage>,
    ) -> Self {
        let told = Arc::<Mutex<Told>>::default();
        let (tell, mut before) = (Arc::clone(&told), None);
        let frames = frames.inspect(move |frame| {
            let Ok(frame) = frame else {
                pace = None;
                return;
            };
            // What holds no whole event yet is no chunk.
            let first = pace.as_mut().filter(|_| !frame.events.is_empty()).and_then(Pace::chunk);
            if frame.last {
                pace = None;
            }
            if first.is_some() || frame.usage != before {
                let mut told = lock(&tell);
                told.first_chunk = first.or(told.first_chunk);
                told.usage = known(told.usage, frame.usage);
                before = frame.usage;
            }
        });
        let mut frames = ItemStream::new(frames).told_by(|frame| match frame {
            Frame { last: true, .. } => Part::Last,
            Frame { content: true, .. } => Part::Content,
            Frame { .. } => Part::Preamble,
        });
        if let Some(end) = cx.deadline() {
            let late = Error::new(Kind::Timeout, "the answer was not complete in time");
            frames.limit(StreamLimit::until(end, late));
        }
        Self { frames, model, told, borrowed: false }
    }

    /// A stream that is complete already: `events` as they were, all at once.
    #[must_use]
    pub fn replay(events: Bytes, model: Arc<str>, usage: Option<Usage>) -> Self {
        let frame = Frame { events, usage, content: true, last: true };
        let frames = ItemStream::new(stream::iter([Ok(frame)])).told_by(|_| Part::Last);
        let told = Arc::new(Mutex::new(Told { usage, first_chunk: None }));
        Self { frames, model, told, borrowed: false }
    }

    /// A stream that is complete already, one of `events` after the other with a `pause` between them: a shorter one
    /// where the time of `cx` would not do.
    #[must_use]
    pub fn paced(
        events: Vec<Bytes>,
        pause: Duration,
        model: Arc<str>,
        usage: Option<Usage>,
        cx: &Context,
    ) -> Self {
        let stream = Self::new(pauses(events, pause, cx), model, cx);
        lock(&stream.told).usage = usage;
        stream
    }

    /// The tokens used, as far as the stream has told.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        lock(&self.told).usage
    }

    /// Calls `tap` with all that is read from now on.
    pub(crate) fn on_frame(&mut self, tap: impl FnMut(&Frame) + Send + 'static) {
        self.frames.on_item(tap);
    }

    /// Calls `hear` when the first part of the answer itself is read.
    pub(crate) fn on_content(&mut self, hear: impl FnOnce() + Send + 'static) {
        let mut hear = Some(hear);
        self.frames.on_item_while(move |frame| {
            if let Some(hear) = hear.take_if(|_| frame.content) {
                hear();
            }
            hear.is_some()
        });
    }

    /// Calls `keep` with every event of the stream once it has been read to its proper end, or with `None` when
    /// they are more than `most` bytes.
    pub fn record(&mut self, most: usize, keep: impl FnOnce(Option<Bytes>, Option<Usage>) + Send + 'static) {
        let tape = Arc::new(Mutex::new(Some(Vec::new())));
        let (write, told) = (Arc::clone(&tape), Arc::clone(&self.told));
        self.frames.on_item(move |frame| {
            let mut tape = lock(&write);
            if let Some(events) = tape.as_mut().filter(|events| events.len() + frame.events.len() <= most) {
                events.extend_from_slice(&frame.events);
            } else {
                *tape = None;
            }
        });
        self.frames.on_end(Box::new(move |how| {
            if matches!(how, StreamEnding::Complete) {
                keep(lock(&tape).take().map(Bytes::from), lock(&told).usage);
            }
        }));
    }

    pub(crate) fn is_borrowed(&self) -> bool {
        self.borrowed
    }

    /// The model that answers.
    #[must_use]
    pub fn model(&self) -> &Arc<str> {
        &self.model
    }

    /// Calls `hear` once, when the stream has ended in whichever way.
    #[must_use]
    pub fn on_end(mut self, hear: impl FnOnce(&StreamEnd) + Send + 'static) -> Self {
        let told = Arc::clone(&self.told);
        let hear = move |how: &StreamEnding| {
            let Told { usage, first_chunk } = *lock(&told);
            hear(&StreamEnd { usage, first_chunk, how: how.clone() });
        };
        self.frames.on_end(Box::new(hear));
        self
    }
}

/// The share of a caller's time that a paced stream may take.
const MOST_OF_THE_TIME: f64 = 0.8;

/// One event after the other, the first at once and the last, which says nothing, with the one before it.
fn pauses(
    events: Vec<Bytes>,
    pause: Duration,
    cx: &Context,
) -> impl Stream<Item = Result<Frame>> + Send + 'static {
    let (count, cx) = (u32::try_from(events.len()).unwrap_or(u32::MAX).max(1), cx.clone());
    stream::unfold((0_u32, None, events.into_iter()), move |(at, begun, mut events)| {
        let cx = cx.clone();
        async move {
            let event = events.next()?;
            // It begins when it is read, which may be long after it was made.
            let (start, pause) = begun.unwrap_or_else(|| {
                let most = cx.time_left().map(|left| left.mul_f64(MOST_OF_THE_TIME) / count);
                (Instant::now(), most.map_or(pause, |most| most.min(pause)))
            });
            let is_last = events.len() == 0;
            if at > 0 && !is_last {
                // By the clock, not by the sum of the pauses: a timer is late by up to a millisecond. Nor is it work.
                cx.elsewhere(sleep_until(start + pause * at)).await;
            }
            let frame = Frame { events: event, usage: None, content: true, last: is_last };
            Some((Ok(frame), (at + 1, Some((start, pause)), events)))
        }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Streaming for ChatStream {
    fn poll_first(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<()>> {
        self.frames.poll_first(task)
    }

    fn poll_rest(&mut self, task: &mut TaskContext<'_>) -> Poll<()> {
        self.frames.poll_rest(task)
    }

    fn limit(&mut self, limit: StreamLimit) {
        self.frames.limit(limit);
    }

    fn on_end(&mut self, hear: OnEnd) {
        self.frames.on_end(hear);
    }
}

impl Stream for ChatStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.frames.poll_next_unpin(task)) {
                // Nothing in it for the client.
                Some(Ok(frame)) if frame.events.is_empty() => {}
                next => return Poll::Ready(next.map(|frame| frame.map(|frame| frame.events))),
            }
        }
    }
}

impl fmt::Debug for ChatStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChatStream({}, over: {})", self.model, self.frames.is_over())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use futures_util::{StreamExt, stream};

    use super::*;

    /// What was used and how it ended, for every end that was heard of.
    type Ends = Arc<Mutex<Vec<(Option<Usage>, String)>>>;

    fn ends() -> (Ends, impl FnOnce(&StreamEnd) + Send + 'static) {
        let seen = Ends::default();
        let log = Arc::clone(&seen);
        (seen, move |end: &StreamEnd| log.lock().unwrap().push((end.usage, format!("{:?}", end.how))))
    }

    fn frame(events: &'static str, usage: Option<Usage>) -> Result<Frame> {
        Ok(Frame { events: Bytes::from_static(events.as_bytes()), usage, content: true, last: false })
    }

    #[tokio::test]
    async fn tells_the_usage_at_its_end_and_hides_empty_frames() {
        let (seen, hear) = ends();
        let frames = stream::iter([frame("a", None), frame("", Some(Usage::new(3, 2))), frame("b", None)]);
        let stream = ChatStream::new(frames, "m".into(), &Context::new()).on_end(hear);
        let bytes: Vec<_> = stream.map(Result::unwrap).collect().await;
        assert_eq!(bytes, ["a", "b"]);
        let end = (Some(Usage::new(3, 2)), "Complete".to_owned());
        assert_eq!(*seen.lock().unwrap(), [end]);
    }

    #[tokio::test]
    async fn a_usage_that_a_provider_does_not_stand_by_is_unknown() {
        for (then, expected) in [(None, None), (Some(Usage::new(3, 4)), Some(Usage::new(3, 4)))] {
            let (seen, hear) = ends();
            let frames = stream::iter([frame("a", Some(Usage::new(3, 1))), frame("b", then)]);
            let mut stream = ChatStream::measured(frames, "m".into(), &Context::new(), None).on_end(hear);
            while stream.next().await.is_some() {}
            assert_eq!(*seen.lock().unwrap(), [(expected, "Complete".to_owned())]);
        }
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
        assert_eq!(seen.lock().unwrap()[0].1, "Failed(upstream: gone)");
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_is_told_apart() {
        let (seen, hear) = ends();
        let mut stream =
            ChatStream::new(stream::repeat_with(|| frame("a", None)), "m".into(), &Context::new())
                .on_end(hear);
        stream.next().await;
        drop(stream);
        assert_eq!(seen.lock().unwrap()[0].1, "Dropped");
    }

    #[tokio::test]
    async fn a_reader_that_leaves_after_the_last_events_has_had_it_all() {
        let (seen, hear) = ends();
        let last = Frame {
            events: Bytes::from_static(b"z"),
            usage: Some(Usage::new(3, 2)),
            content: true,
            last: true,
        };
        let frames = stream::iter([frame("a", None), Ok(last)]).chain(stream::pending());
        let mut stream = ChatStream::new(frames, "m".into(), &Context::new()).on_end(hear);
        stream.next().await;
        assert!(seen.lock().unwrap().is_empty());
        assert_eq!(stream.next().await.unwrap().unwrap(), "z");
        let end = (Some(Usage::new(3, 2)), "Complete".to_owned());
        assert_eq!(*seen.lock().unwrap(), [end]);
        assert!(stream.next().await.is_none(), "it does not wait for what nobody needs");
    }

    fn paced(words: &[&'static str], pause: u64, cx: &Context) -> ChatStream {
        let events = words.iter().map(|word| Bytes::from_static(word.as_bytes())).collect();
        ChatStream::paced(events, Duration::from_millis(pause), "m".into(), Some(Usage::new(3, 2)), cx)
    }

    /// What came when, in milliseconds.
    async fn times(mut stream: ChatStream) -> Vec<(Bytes, u128)> {
        let (start, mut times) = (tokio::time::Instant::now(), Vec::new());
        while let Some(event) = stream.next().await {
            times.push((event.unwrap(), start.elapsed().as_millis()));
        }
        times
    }

    #[tokio::test(start_paused = true)]
    async fn a_paced_stream_gives_one_event_after_the_other_and_knows_its_usage_before() {
        let (seen, hear) = ends();
        let stream = paced(&["a", "b", "c", "done"], 100, &Context::new());
        assert_eq!(stream.usage(), Some(Usage::new(3, 2)));
        let came = times(stream.on_end(hear)).await;
        let expected = [("a", 0), ("b", 100), ("c", 200), ("done", 200)];
        assert_eq!(came, expected.map(|(event, at)| (Bytes::from(event), at)));
        assert_eq!(*seen.lock().unwrap(), [(Some(Usage::new(3, 2)), "Complete".to_owned())]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_paced_stream_keeps_to_the_callers_time() {
        let cx = Context::new().with_time_limit(Duration::from_secs(3));
        let words: Vec<_> = std::iter::repeat_n("x", 101).collect();
        let came = times(paced(&words, 1_000, &cx)).await;
        assert_eq!(came.len(), 101);
        assert!(came.last().is_some_and(|(_, at)| (2_000..2_500).contains(at)), "{came:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pauses_are_none_of_this_programs_work_and_end_with_the_reader() {
        let (seen, hear) = ends();
        let cx = throughline::testing::Recorder::new().context();
        let mut stream = paced(&["a", "b", "c", "d", "done"], 1_000, &cx).on_end(hear);
        for _ in 0..3 {
            stream.next().await.unwrap().unwrap();
        }
        drop(stream);
        assert_eq!(seen.lock().unwrap()[0].1, "Dropped");
        assert_eq!(cx.upstream_time(), Duration::from_secs(2));
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
