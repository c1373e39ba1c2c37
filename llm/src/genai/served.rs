//! What a served model is to its clients: how long it takes, and when its first token comes.
//!
//! Around the whole workflow of a model that is served under a name: what cache, retries and fallbacks add or spare is
//! in it. The provider in its labels is this program, for that is who serves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::TraceId;
use throughline::graph::Node;
use throughline::stream::StreamEnding;
use throughline::telemetry::{Clock, Histogram, PerSink, Registry, Sink, Tick};
use throughline::{Context, Kind, Primitive, Result, Streaming, Workflow};

use super::{CHAT, SERVER_DURATION, SERVER_FIRST_TOKEN, SERVER_PER_TOKEN};
use crate::answer::{Answer, ChatStream, StreamEnd};
use crate::openai::{ChatRequest, Usage};

/// `gen_ai.provider.name` of a model that is served here.
const PROVIDER: &str = "throughline";

/// A workflow of chat requests that is served under a name. Made by [`served`].
#[derive(Debug)]
pub struct Served<P> {
    model: Arc<str>,
    series: PerSink<Series>,
    inner: P,
}

/// Handles to the series of one served model.
#[derive(Clone, Debug)]
struct Series {
    succeeded: Histogram,
    first_token: Histogram,
    per_token: Histogram,
}

/// One request that is being served; dropped before its end, it was cancelled.
struct Serving {
    series: Series,
    model: Arc<str>,
    sink: Sink,
    clock: Clock,
    started: Tick,
    trace: Option<TraceId>,
    ended: bool,
}

/// Measures `workflow` as a model that is served as `model`, a name from the configuration.
pub fn served<P>(model: impl Into<Arc<str>>, workflow: Workflow<P>) -> Workflow<Served<P>>
where
    P: Primitive<In = ChatRequest, Out = Answer>,
{
    let (model, inner) = (model.into(), workflow.into_inner());
    Workflow::from_primitive(Served { model, series: PerSink::new(), inner })
}

// === impl Served ===

impl<P: Primitive<In = ChatRequest, Out = Answer>> Served<P> {
    fn begin(&self, cx: &Context) -> Option<Serving> {
        let registry = cx.sink().registry()?;
        let series = self.series.get_or_make(cx.sink().id(), &|| Series::declare(registry, &self.model));
        Some(Serving {
            series: series.clone(),
            model: Arc::clone(&self.model),
            sink: cx.sink().clone(),
            clock: cx.clock(),
            started: cx.clock().now(),
            trace: (cx.span().is_sampled() && cx.sink().exemplars()).then(|| cx.span().trace_id()),
            ended: false,
        })
    }
}

impl<P: Primitive<In = ChatRequest, Out = Answer>> Primitive for Served<P> {
    type In = ChatRequest;
    type Out = Answer;

    async fn execute(&self, request: ChatRequest, cx: &Context) -> Result<Answer> {
        let serving = self.begin(cx);
        let answer = self.inner.execute(request, cx).await;
        let Some(mut serving) = serving else { return answer };
        match answer {
            Ok(Answer::Stream(stream)) => Ok(Answer::Stream(serving.follow(stream))),
            Ok(answer) => {
                serving.end(None);
                Ok(answer)
            }
            Err(error) => {
                serving.end(Some(error.kind()));
                Err(error)
            }
        }
    }

    fn stream<'a>(&self, answer: &'a mut Answer) -> Option<&'a mut dyn Streaming> {
        self.inner.stream(answer)
    }

    fn describe(&self) -> Node {
        self.inner.describe()
    }

    fn bind(&self, sink: &Sink) {
        if let Some(registry) = sink.registry() {
            self.series.get_or_make(sink.id(), &|| Series::declare(registry, &self.model));
        }
        self.inner.bind(sink);
    }
}

// === impl Series ===

impl Series {
    fn declare(registry: &Registry, model: &str) -> Self {
        let labels = [CHAT, PROVIDER, model];
        Self {
            succeeded: registry.histogram(&SERVER_DURATION, &[CHAT, PROVIDER, model, ""]),
            first_token: registry.histogram(&SERVER_FIRST_TOKEN, &labels),
            per_token: registry.histogram(&SERVER_PER_TOKEN, &labels),
        }
    }
}

// === impl Serving ===

impl Serving {
    /// Leaves the end to the stream's.
    fn follow(mut self, mut stream: ChatStream) -> ChatStream {
        let first = Arc::new(Mutex::new(None));
        let (seen, clock) = (Arc::clone(&first), self.clock);
        stream.on_frame(move |frame| {
            if frame.content {
                seen.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| clock.now());
            }
        });
        stream.on_end(move |end| {
            let first = *first.lock().unwrap_or_else(PoisonError::into_inner);
            self.streamed(first, end);
        })
    }

    fn streamed(&mut self, first: Option<Tick>, end: &StreamEnd) {
        match &end.how {
            StreamEnding::Complete => {
                if let Some(first) = first {
                    self.series.first_token.observe(first.since(self.started).as_secs_f64(), self.trace);
                    let rest = self.clock.now().since(first);
                    if let Some(each) = end.usage.and_then(|usage| per_token(rest, &usage)) {
                        self.series.per_token.observe(each, self.trace);
                    }
                }
                self.end(None);
            }
            StreamEnding::Failed(error) => self.end(Some(error.kind())),
            _ => self.end(Some(Kind::Cancelled)),
        }
    }

    fn end(&mut self, error: Option<Kind>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let seconds = self.clock.now().since(self.started).as_secs_f64();
        match (error, self.sink.registry()) {
            (Some(kind), Some(registry)) => {
                let labels = [CHAT, PROVIDER, &self.model, kind.as_str()];
                registry.histogram(&SERVER_DURATION, &labels).observe(seconds, self.trace);
            }
            _ => self.series.succeeded.observe(seconds, self.trace),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end(Some(if std::thread::panicking() { Kind::Internal } else { Kind::Cancelled }));
    }
}

/// The time of each token after the first one; `None` where there is no other.
fn per_token(rest: Duration, usage: &Usage) -> Option<f64> {
    let others = usage.completion_tokens.checked_sub(1).filter(|others| *others > 0)?;
    #[expect(clippy::cast_precision_loss, reason = "an answer has no 2^53 tokens")]
    Some(rest.as_secs_f64() / others as f64)
}
