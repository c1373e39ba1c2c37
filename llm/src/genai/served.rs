//! What a served model is to its clients: how long it takes, and when its first token comes.
//!
//! Around the whole workflow of a model that is served under a name: what cache, retries and fallbacks add or spare is
//! in it. The provider in its labels is this program, for that is who serves.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::TraceId;
use throughline::graph::Node;
use throughline::stream::StreamEnding;
use throughline::telemetry::{Histogram, PerSink, Registry, Sink, Tick};
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
struct Serving<'a> {
    about: About<'a>,
    ended: bool,
}

/// As [`Serving`], of a request whose answer is a stream.
struct Streamed {
    series: Series,
    model: Arc<str>,
    cx: Context,
    started: Tick,
    ended: bool,
}

/// What is known of a request from its start.
#[derive(Clone, Copy)]
struct About<'a> {
    series: &'a Series,
    model: &'a Arc<str>,
    cx: &'a Context,
    started: Tick,
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
    fn begin<'a>(&'a self, cx: &'a Context) -> Option<Serving<'a>> {
        let registry = cx.sink().registry()?;
        let series = self.series.get_or_make(cx.sink().id(), &|| Series::declare(registry, &self.model));
        let about = About { series, model: &self.model, cx, started: cx.clock().now() };
        Some(Serving { about, ended: false })
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

impl Serving<'_> {
    /// Leaves the end to the stream's.
    fn follow(mut self, mut stream: ChatStream) -> ChatStream {
        self.ended = true;
        let About { series, model, cx, started } = self.about;
        let (series, model, cx) = (series.clone(), Arc::clone(model), cx.clone());
        let first = Arc::new(OnceLock::new());
        let (tell, clock) = (Arc::clone(&first), cx.clock());
        // The first and only one to tell.
        stream.on_content(move || _ = tell.set(clock.now()));
        let mut streamed = Streamed { series, model, cx, started, ended: false };
        stream.on_end(move |end| streamed.end(first.get().copied(), end))
    }

    fn end(&mut self, error: Option<Kind>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.about.end(error);
        }
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.end(Some(dropped()));
    }
}

// === impl Streamed ===

impl Streamed {
    fn about(&self) -> About<'_> {
        About { series: &self.series, model: &self.model, cx: &self.cx, started: self.started }
    }

    fn end(&mut self, first: Option<Tick>, end: &StreamEnd) {
        self.ended = true;
        let about = self.about();
        match &end.how {
            StreamEnding::Complete => {
                if let Some(first) = first {
                    let waited = first.since(self.started);
                    self.series.first_token.observe_time(waited, about.trace());
                    let rest = self.cx.clock().now().since(first);
                    if let Some(each) = end.usage.and_then(|usage| per_token(rest, &usage)) {
                        self.series.per_token.observe(each, about.trace());
                    }
                }
                about.end(None);
            }
            StreamEnding::Failed(error) => about.end(Some(error.kind())),
            _ => about.end(Some(Kind::Cancelled)),
        }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        if !self.ended {
            self.about().end(Some(dropped()));
        }
    }
}

// === impl About ===

impl About<'_> {
    fn end(self, error: Option<Kind>) {
        let took = self.cx.clock().now().since(self.started);
        match (error, self.cx.sink().registry()) {
            (Some(kind), Some(registry)) => {
                let labels = [CHAT, PROVIDER, self.model, kind.as_str()];
                registry.histogram(&SERVER_DURATION, &labels).observe_time(took, self.trace());
            }
            _ => self.series.succeeded.observe_time(took, self.trace()),
        }
    }

    fn trace(self) -> Option<TraceId> {
        let (span, sink) = (self.cx.span(), self.cx.sink());
        (span.is_sampled() && sink.exemplars()).then(|| span.trace_id())
    }
}

fn dropped() -> Kind {
    if std::thread::panicking() { Kind::Internal } else { Kind::Cancelled }
}

/// The time of each token after the first one; `None` where there is no other.
fn per_token(rest: Duration, usage: &Usage) -> Option<f64> {
    let others = usage.completion_tokens.checked_sub(1).filter(|others| *others > 0)?;
    #[expect(clippy::cast_precision_loss, reason = "an answer has no 2^53 tokens")]
    Some(rest.as_secs_f64() / others as f64)
}
