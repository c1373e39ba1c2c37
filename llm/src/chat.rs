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

mod frames;
mod telling;

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::trace::SpanKind;
use opentelemetry::{KeyValue, Value};
use throughline::stream::StreamEnding;
use throughline::telemetry::{
    Amount, Counter, Deferred, End, Ended, Family, GenAiNames, NoEvents, Observed, Registry, Reported, Run,
    Semconv, Sink, Stage,
};
use throughline::{Context, Error, Kind, Primitive as _, Result, State, Streaming, Workflow};

use crate::answer::{Answer, ChatStream, Completion, StreamEnd};
use crate::genai::{
    ATTRIBUTES, CHAT, Call, Client, DETAILS, Details, Pace, Recording, Shared, describe, input_messages,
    output_messages, tell_usage,
};
use crate::http_call::HttpAnswer;
use crate::openai::{ChatRequest, Usage};
use crate::prices::PriceTable;
use crate::providers::Provider;
use telling::{Kept, Telling};

pub(crate) static COST: Family = Family::amount(
    "llm_cost_usd",
    "What model calls cost, in USD, by the tokens that the provider said were used",
    &["provider", "model"],
);
pub(crate) static UNPRICED: Family = Family::counter(
    "llm_unpriced_calls",
    "Answered model calls whose cost is unknown: no price for the model, or no usage in the answer",
    &["provider", "model"],
);

pub(crate) static FAMILIES: &[&Family] = &[&COST, &UNPRICED];

pub(crate) static REPORTED: Reported = Reported::new::<Ended, NoEvents>("chat", ATTRIBUTES)
    .spans_called("chat {gen_ai.request.model}")
    .spans_of_kind("CLIENT");

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
    client: Client,
}

/// How a call ended, and what it used and cost, once that is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatNote {
    account: Option<Account>,
    first_chunk: Option<Duration>,
    error: Option<Kind>,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    usage: Option<Usage>,
    cost: Option<f64>,
}

/// What is watched while an answer comes.
#[derive(Default)]
pub(crate) struct Watched {
    /// Whether there is a span to put on what it says of itself.
    pub(crate) records: bool,
    /// The times of a stream's chunks, unless telemetry is off.
    pub(crate) pace: Option<Pace>,
    /// What a stream says of itself, if it is recorded.
    pub(crate) response: Option<Shared>,
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
    async fn call(&self, request: &ChatRequest, cx: &Context, watched: Watched) -> Result<Answer> {
        let model = &self.config.model;
        match &*self.provider {
            Provider::Simulated(simulator) => {
                crate::providers::simulate(simulator, request, model, cx, watched).await
            }
            Provider::Http(dialect, call) => match call.execute(dialect.request(request, model), cx).await? {
                HttpAnswer::Full(body) if !request.stream() => {
                    Ok(Answer::Full(dialect.completion(body, Arc::clone(model), watched.records)?))
                }
                HttpAnswer::Stream(body) if request.stream() => {
                    let frames = frames::frames(body, dialect.watch(request).telling(watched.response));
                    Ok(Answer::Stream(ChatStream::measured(frames, Arc::clone(model), cx, watched.pace)))
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

    /// What an event says of every call.
    fn details(&self) -> Details {
        let mut details = Details::default();
        for KeyValue { key, value, .. } in self.span_attributes() {
            details.put(key.as_str().to_owned(), &value);
        }
        details
    }

    /// Tells what is asked, where somebody listens, and what is to be watched of the answer.
    fn asked(
        &self,
        request: &ChatRequest,
        cx: &Context,
        run: &mut Run<'_, Self>,
        details: &mut Option<Details>,
    ) -> Watched {
        let records = run.records();
        if records {
            let content = cx.sink().semconv().content;
            let mut telling = Telling { details, content, put: &mut |key, value| run.attribute(key, value) };
            describe(request, &mut |key, value| telling.say(key, value));
            if telling.wants_content() {
                telling.say_messages(
                    "gen_ai.input.messages",
                    input_messages(request.body(), &cx.sink().redactor()),
                );
            }
        }
        let pace = run.signals().filter(|_| request.stream());
        let pace = pace.map(|signals| signals.client.pace(cx.clock().now()));
        Watched { records, pace, response: (records && request.stream()).then(Shared::default) }
    }

    fn answered(
        &self,
        mut answer: Completion,
        mut details: Option<Details>,
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> Completion {
        let account = Account::of(answer.usage, &self.config.model, &self.prices);
        run.note.account = Some(account);
        if run.records() {
            let Semconv { gen_ai, content, .. } = cx.sink().semconv();
            let put = &mut |key, value| run.attribute(key, value);
            let mut telling = Telling { details: &mut details, content, put };
            if let Some(response) = answer.response.take() {
                response.tell(false, &mut |key, value| telling.say(key, value));
            }
            account.tell(gen_ai, &mut |key, value| telling.say(key, value));
            if telling.wants_content() {
                let messages = output_messages(&answer.body, &cx.sink().redactor());
                telling.say_messages("gen_ai.output.messages", messages);
            }
        }
        if let Some(details) = details {
            run.tell(DETAILS, details.into_attributes());
        }
        account.add_to(cx.state());
        answer
    }

    /// Leaves the run open until the stream has ended.
    fn streaming(
        &self,
        mut stream: ChatStream,
        (response, details): (Option<Shared>, Option<Details>),
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> ChatStream {
        let (prices, model) = (Arc::clone(&self.prices), Arc::clone(&self.config.model));
        let semconv = cx.sink().semconv();
        let recording = (run.records() && (semconv.content || details.is_some())).then(|| {
            let recording = Arc::<Mutex<Recording>>::default();
            let keep = Arc::clone(&recording);
            stream.on_frame(move |frame| lock(&keep).keep(frame));
            (recording, cx.sink().redactor())
        });
        let kept = Kept { semconv, response, recording, details };
        let (deferred, cx) = (run.defer(), cx.clone());
        stream.on_end(move |end| {
            let account = Account::of(end.usage, &model, &prices);
            account.add_to(cx.state());
            close(deferred, end, account, kept);
        })
    }
}

// === impl Account ===

impl Account {
    fn of(usage: Option<Usage>, model: &str, prices: &PriceTable) -> Self {
        Self { usage, cost: usage.and_then(|usage| prices.cost(model, &usage)) }
    }

    fn tell(&self, names: GenAiNames, put: &mut dyn FnMut(&'static str, Value)) {
        if let Some(usage) = &self.usage {
            tell_usage(usage, names, put);
        }
    }

    fn add_to(self, state: &State) {
        state.update::<Spent>(|spent| spent.0 = spent.0.zip(self.cost).map(|(sum, cost)| sum + cost));
    }
}

fn unasked(message: &'static str) -> Error {
    Error::new(Kind::Upstream, message).fatal()
}

fn close(mut run: Deferred<Chat>, end: &StreamEnd, account: Account, mut kept: Kept) {
    run.note.account = Some(account);
    run.note.first_chunk = end.first_chunk;
    if run.records() {
        let names = kept.semconv.gen_ai;
        kept.tell(end, &mut |key, value| run.attribute(key, value), |telling| {
            account.tell(names, &mut |key, value| telling.say(key, value));
        });
    }
    if let Some(details) = kept.details {
        run.tell(DETAILS, details.into_attributes());
    }
    match &end.how {
        StreamEnding::Complete => run.end(Ended::Success, None),
        StreamEnding::Failed(error) => {
            run.note.error = Some(error.kind());
            run.end(Ended::Error, Some(error.kind().as_str()));
        }
        _ => run.end(Ended::Cancelled, Some(Kind::Cancelled.as_str())),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn span_attributes(&self) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("gen_ai.operation.name", CHAT),
            KeyValue::new("gen_ai.provider.name", self.provider.name().to_owned()),
            KeyValue::new("gen_ai.request.model", self.config.model.to_string()),
        ];
        if let Some((host, port)) = self.provider.server() {
            attributes.push(KeyValue::new("server.address", host.to_owned()));
            attributes.push(KeyValue::new("server.port", i64::from(port)));
        }
        attributes
    }

    fn declare(&self, registry: &Registry) -> ChatSignals {
        let labels = [self.config.provider.as_str(), &*self.config.model];
        ChatSignals {
            cost: registry.amount(&COST, &labels),
            unpriced: registry.counter(&UNPRICED, &labels),
            client: Client::declare(registry, self.provider.name(), &self.config.model),
        }
    }

    async fn run(&self, request: ChatRequest, cx: &Context, run: &mut Run<'_, Self>) -> Result<Answer> {
        cx.state().update::<Attempts>(|attempts| _ = attempts.0.fetch_add(1, Ordering::Relaxed));
        let mut details = run.tells().then(|| self.details());
        let watched = self.asked(&request, cx, run, &mut details);
        let response = watched.response.clone();
        match self.call(&request, cx, watched).await {
            Ok(Answer::Full(answer)) => Ok(Answer::Full(self.answered(answer, details, cx, run))),
            Ok(Answer::Stream(stream)) => {
                Ok(Answer::Stream(self.streaming(stream, (response, details), cx, run)))
            }
            Err(error) => {
                run.note.error = Some(error.kind());
                if let Some(mut details) = details {
                    details.put("error.type", &error.kind().as_str().into());
                    run.tell(DETAILS, details.into_attributes());
                }
                Err(error)
            }
        }
    }

    fn ended(&self, end: &End<'_, Self>) {
        let Some(seen) = &end.seen else { return };
        let error = match end.outcome {
            Ended::Success => None,
            // Who says nothing has panicked.
            Ended::Error => Some(end.note.error.unwrap_or(Kind::Internal)),
            Ended::Cancelled => Some(Kind::Cancelled),
        };
        let usage = end.note.account.and_then(|account| account.usage);
        let (elapsed, first_chunk, trace) = (seen.elapsed, end.note.first_chunk, seen.trace);
        let call = Call { elapsed, error, usage, first_chunk, trace };
        seen.signals.client.ended(&call, seen.cx.sink().registry());
        match end.note.account {
            Some(Account { cost: Some(cost), .. }) => seen.signals.cost.add(cost),
            Some(_) => seen.signals.unpriced.inc(),
            None => {}
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
