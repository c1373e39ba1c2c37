//! A chat request to one model of one provider, as a stage.
//!
//! It sends the request, reads the answer, and accounts for tokens and cost. A streamed answer is
//! accounted for when it ends, in whichever way.
//!
//! ```
//! use bytes::Bytes;
//! use throughline::Context;
//! use throughline_llm::openai::{ChatRequest, Limits};
//! use throughline_llm::simulated::SimulatedConfig;
//! use throughline_llm::{Answer, ChatConfig, PriceTable, chat, providers};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let provider = providers::simulated(SimulatedConfig::default());
//! let ask = chat(ChatConfig::new("sim", "gpt-4o-mini"), provider.into(), PriceTable::builtin().into());
//!
//! let body = Bytes::from_static(br#"{"model":"any","messages":[{"role":"user","content":"Hi"}]}"#);
//! let request = ChatRequest::parse(body, &Limits::default())?;
//! let Answer::Full(answer) = ask.run(request, &Context::new()).await? else { panic!("no stream was asked for") };
//! assert!(answer.usage.is_some_and(|usage| usage.completion_tokens > 0));
//! # Ok(()) }
//! ```

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{self, Stream};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use opentelemetry::trace::SpanKind;
use throughline::stream::StreamEnding;
use throughline::telemetry::{
    Amount, Counter, Deferred, End, Ended, Family, NoEvents, Observed, Registry, Run, Sink, Stage,
};
use throughline::{Context, Error, Kind, Primitive as _, Result, State, Streaming, Workflow};

use crate::answer::{Answer, ChatStream, Completion, Frame, StreamEnd};
use crate::http_call::HttpAnswer;
use crate::openai::{ChatRequest, Chunk, StreamWatch, Usage};
use crate::prices::PriceTable;
use crate::providers::Provider;
use crate::sse::SseParser;

static COST: Family = Family::amount(
    "llm_cost_usd",
    "What model calls cost, in USD, by the tokens that the provider said were used",
    &["provider", "model"],
);
static UNPRICED: Family = Family::counter(
    "llm_unpriced_calls",
    "Answered model calls whose cost is unknown: no price for the model, or no usage in the answer",
    &["provider", "model"],
);

/// Which model of which provider.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChatConfig {
    provider: String,
    model: Arc<str>,
    operation: String,
}

/// Sends chat requests to a model. Made by [`chat`].
pub struct Chat {
    config: ChatConfig,
    provider: Arc<Provider>,
    prices: Arc<PriceTable>,
}

/// How many calls to providers a request has made, left in [`Context::state`]. Clones count together: put one
/// there before the request runs, and the calls of attempts that do not count in the end are in it as well.
#[derive(Clone, Debug, Default)]
pub struct Attempts(Arc<AtomicU32>);

/// What the answers to a request have cost so far, in USD, left in [`Context::state`]; a stream's cost comes
/// with its end. A call that failed and the loser of a hedge are not in it. `None`: at least one answer's cost
/// is unknown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent(pub Option<f64>);

/// Handles to the families of [`Chat`].
#[derive(Debug)]
pub struct ChatSignals {
    cost: Amount,
    unpriced: Counter,
}

/// What a call used and cost, once it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatNote(Option<Account>);

#[derive(Clone, Copy, Debug)]
struct Account {
    cost: Option<f64>,
}

/// Makes a workflow that asks a model.
pub fn chat(
    config: ChatConfig,
    provider: Arc<Provider>,
    prices: Arc<PriceTable>,
) -> Workflow<Observed<Chat>> {
    Workflow::from_stage(Chat { config, provider, prices })
}

// === impl ChatConfig ===

impl ChatConfig {
    /// `model` as the provider knows it, of the provider called `provider` in the configuration.
    #[must_use]
    pub fn new(provider: impl Into<String>, model: impl Into<Arc<str>>) -> Self {
        let (provider, model) = (provider.into(), model.into());
        let operation = format!("{provider}/{model}");
        Self { provider, model, operation }
    }
}

// === impl Attempts ===

impl Attempts {
    /// The calls so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Spent ===

impl Default for Spent {
    fn default() -> Self {
        Self(Some(0.0))
    }
}

// === impl Chat ===

impl Chat {
    async fn call(&self, request: &ChatRequest, cx: &Context) -> Result<Answer> {
        let model = &self.config.model;
        match &*self.provider {
            Provider::Simulated(simulator) => crate::providers::simulate(simulator, request, model, cx).await,
            Provider::Http(dialect, call) => match call.execute(dialect.request(request, model), cx).await? {
                HttpAnswer::Full(body) if !request.stream() => {
                    Ok(Answer::Full(dialect.completion(body, Arc::clone(model))?))
                }
                HttpAnswer::Stream(body) if request.stream() => {
                    let frames = frames(body, dialect.watch(request));
                    Ok(Answer::Stream(ChatStream::new(frames, Arc::clone(model), cx)))
                }
                // Whoever asked for the one finds nothing in the other.
                HttpAnswer::Full(_) => {
                    Err(unasked("the provider gave a whole answer, a stream was asked for"))
                }
                HttpAnswer::Stream(_) => {
                    Err(unasked("the provider gave a stream, a whole answer was asked for"))
                }
            },
        }
    }

    fn answered(&self, answer: Completion, cx: &Context, run: &mut Run<'_, Self>) -> Completion {
        let account = Account::of(answer.usage, &self.config.model, &self.prices);
        run.note = ChatNote(Some(account));
        for (key, tokens) in answer.usage.iter().flat_map(told) {
            run.attribute(key, tokens);
        }
        account.add_to(cx.state());
        answer
    }

    /// Leaves the run open until the stream has ended.
    fn streaming(&self, stream: ChatStream, cx: &Context, run: &mut Run<'_, Self>) -> ChatStream {
        let (prices, model) = (Arc::clone(&self.prices), Arc::clone(&self.config.model));
        let (deferred, state) = (run.defer(), cx.state().clone());
        stream.on_end(move |end| {
            let account = Account::of(end.usage, &model, &prices);
            account.add_to(&state);
            close(deferred, end, account);
        })
    }
}

// === impl Account ===

impl Account {
    fn of(usage: Option<Usage>, model: &str, prices: &PriceTable) -> Self {
        Self { cost: usage.and_then(|usage| prices.cost(model, &usage)) }
    }

    fn add_to(self, state: &State) {
        state.update::<Spent>(|spent| spent.0 = spent.0.zip(self.cost).map(|(sum, cost)| sum + cost));
    }
}

fn unasked(message: &'static str) -> Error {
    Error::new(Kind::Upstream, message).fatal()
}

fn close(mut run: Deferred<Chat>, end: &StreamEnd, account: Account) {
    run.note = ChatNote(Some(account));
    for (key, tokens) in end.usage.iter().flat_map(told) {
        run.attribute(key, tokens);
    }
    match &end.how {
        StreamEnding::Complete => run.end(Ended::Success, None),
        StreamEnding::Failed(error) => run.end(Ended::Error, Some(error.kind().as_str())),
        _ => run.end(Ended::Cancelled, Some(Kind::Cancelled.as_str())),
    }
}

/// Token counts as span attributes.
fn told(usage: &Usage) -> impl Iterator<Item = (&'static str, i64)> + use<> {
    let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    [
        ("gen_ai.usage.input_tokens", count(usage.prompt_tokens)),
        ("gen_ai.usage.output_tokens", count(usage.completion_tokens)),
    ]
    .into_iter()
}

impl Stage for Chat {
    type In = ChatRequest;
    type Out = Answer;
    type Outcome = Ended;
    type Event = NoEvents;
    type Signals = ChatSignals;
    type Note = ChatNote;

    const PRIMITIVE: &'static str = "chat";
    const SPAN_KIND: SpanKind = SpanKind::Client;
    const UPSTREAM: bool = true;

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn span_name(&self) -> Cow<'static, str> {
        format!("chat {}", self.config.model).into()
    }

    fn declare(&self, registry: &Registry) -> ChatSignals {
        let labels = [self.config.provider.as_str(), &*self.config.model];
        ChatSignals { cost: registry.amount(&COST, &labels), unpriced: registry.counter(&UNPRICED, &labels) }
    }

    async fn run(&self, request: ChatRequest, cx: &Context, run: &mut Run<'_, Self>) -> Result<Answer> {
        run.attribute("gen_ai.operation.name", "chat");
        run.attribute("gen_ai.provider.name", self.provider.name());
        run.attribute("gen_ai.request.model", self.config.model.to_string());
        if request.stream() {
            run.attribute("gen_ai.request.stream", true);
        }
        cx.state().update::<Attempts>(|attempts| _ = attempts.0.fetch_add(1, Ordering::Relaxed));
        Ok(match self.call(&request, cx).await? {
            Answer::Full(answer) => Answer::Full(self.answered(answer, cx, run)),
            Answer::Stream(stream) => Answer::Stream(self.streaming(stream, cx, run)),
        })
    }

    fn ended(&self, end: &End<'_, Self>) {
        let (Some(account), Some(seen)) = (end.note.0, &end.seen) else { return };
        match account.cost {
            Some(cost) => seen.signals.cost.add(cost),
            None => seen.signals.unpriced.inc(),
        }
    }

    fn stream<'a>(&self, answer: &'a mut Answer) -> Option<&'a mut dyn Streaming> {
        match answer {
            Answer::Stream(stream) => Some(stream),
            Answer::Full(_) => None,
        }
    }

    fn bind(&self, sink: &Sink) {
        if let Provider::Http(_, call) = &*self.provider {
            call.bind(sink);
        }
    }
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chat({})", self.config.operation)
    }
}

/// The events of `body` that the client is to see, those that came together in one piece.
fn frames(body: Incoming, watch: StreamWatch) -> impl Stream<Item = Result<Frame>> + Send {
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
