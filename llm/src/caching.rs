//! How chat answers are cached and what routes are charged: the chat side of the library's
//! [`Caching`] and [`Pricing`].

mod replay;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use replay::{Kept, Replay};
use serde::{Deserialize, Serialize};
use throughline::cache::Keep;
use throughline::{Bill, Caching, ConfigError, Context, Error, Key, KeyBuilder, Kind, Pricing, Result};

use crate::answer::Answer;
use crate::openai::{ChatRequest, Sampling, Tells, Usage, is_answer, survey};
use crate::prices::PriceTable;

/// Caches answers under everything in the request that can change them, each tenant's for itself. A stream that has
/// been read to its end is kept as it was. Who asks for a stream is given one whichever was kept, and who asks for a plain
/// answer that.
///
/// An answer is not kept that has no choices or an error in it, or that a content filter has cut off.
///
/// The tenant is the tag [`TENANT`] of the context. A request is not cached that says `store: false`; nor, unless it has
/// a `seed`, one that asks for several choices, or for a temperature above [`ChatCaching::max_temperature`].
#[derive(Clone, Debug)]
pub struct ChatCaching {
    prices: Arc<PriceTable>,
    tags: Vec<String>,
    metadata: Vec<String>,
    max_temperature: f64,
    shared: bool,
    replay: Replay,
}

/// The tag of a context that says whose request it is.
pub const TENANT: &str = "tenant";

/// What providers take for the temperature of a request that says none.
const USUAL_TEMPERATURE: f64 = 1.0;

/// Charges answers by their usage, at the price of the model that gave them and of the route to compare with.
/// Where a fallback inside the route has answered, that is not the route's own model.
#[derive(Clone, Debug)]
pub struct ChatPricing {
    prices: Arc<PriceTable>,
    /// The model behind each route, for the one to compare with.
    models: Vec<(String, Arc<str>)>,
}

/// A stored value is a checksum, this as a line of JSON, and the body. Everything after the checksum is
/// covered by it: a store may cut a value short or give back another's, and half an answer is no answer.
#[derive(Deserialize, Serialize)]
struct Head<'a> {
    model: Cow<'a, str>,
    usage: Option<Usage>,
    #[serde(default)]
    stream: bool,
    /// What the events of a stream tell of its usage.
    #[serde(default)]
    tells: Tells,
}

const CHECKSUM_BYTES: usize = 16;

/// A longer stream is not kept: it would be held in memory until its end.
const MAX_STREAM_BYTES: usize = 4 << 20;

// === impl ChatCaching ===

impl ChatCaching {
    /// Values what is saved by `prices`.
    #[must_use]
    pub fn new(prices: Arc<PriceTable>) -> Self {
        let (tags, metadata) = (Vec::new(), Vec::new());
        let replay = Replay::default();
        Self { prices, tags, metadata, max_temperature: USUAL_TEMPERATURE, shared: false, replay }
    }

    /// Caches no request that asks for a higher temperature: who raises it wants another answer each time. A
    /// request that says nothing counts as 1, which is what providers take. Default: 1.
    #[must_use]
    pub fn max_temperature(mut self, most: f64) -> Self {
        self.max_temperature = most;
        self
    }

    /// Gives all tenants the same answers. Default: each has its own.
    #[must_use]
    pub fn shared_by_all(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Gives kept answers to who asks for a stream at this many chunks a second, or faster where the caller's time would
    /// not do. A chunk is what the provider has sent as one, mostly a token, and of a plain answer a word.
    /// Default: at once.
    ///
    /// # Errors
    /// When it is not from 1 to 10,000.
    pub fn chunks_per_second(mut self, rate: f64) -> Result<Self, ConfigError> {
        self.replay = Replay::paced(rate)?;
        Ok(self)
    }

    /// Whether a request may have the answer that another one like it has got.
    fn may_repeat(&self, sampling: Sampling) -> bool {
        let drawn = sampling.choices.is_some_and(|choices| choices > 1.0)
            || sampling.temperature.unwrap_or(USUAL_TEMPERATURE) > self.max_temperature;
        !sampling.is_not_to_be_kept && (sampling.is_seeded || !drawn)
    }

    /// What an answer depends on beside `text`, the request in one spelling.
    fn key_with(&self, request: &ChatRequest, cx: &Context, key: KeyBuilder, text: &[u8]) -> Key {
        let tenant = if self.shared { None } else { cx.tag(TENANT) };
        let key = key.part(&[u8::from(tenant.is_some())]).tenant(tenant.unwrap_or_default());
        let key = key.part(text);
        let key = self.tags.iter().fold(key, |key, tag| maybe(key, cx.tag(tag)));
        self.metadata.iter().fold(key, |key, name| maybe(key, request.metadata(name))).build()
    }

    /// What an answer depends on beside the prose of the last message, and that prose. `None` where nothing is cached.
    pub(crate) fn around_prompt(
        &self,
        request: &ChatRequest,
        cx: &Context,
        key: KeyBuilder,
    ) -> Option<(Key, String)> {
        if !self.may_repeat(request.sampling()) {
            return None;
        }
        let (around, prose) = request.around_prompt()?;
        Some((self.key_with(request, cx, key, &around), prose))
    }

    /// Keeps answers apart by these tags of the context and entries of the request's metadata: what a
    /// router inside the cache looks at, besides the request itself.
    #[must_use]
    pub fn varying_by(mut self, tags: Vec<String>, metadata: Vec<String>) -> Self {
        (self.tags, self.metadata) = (tags, metadata);
        self
    }
}

/// A part of a key that may be absent, which is not the same as empty.
fn maybe(key: KeyBuilder, value: Option<&str>) -> KeyBuilder {
    key.part(&[u8::from(value.is_some())]).text(value.unwrap_or_default())
}

impl Caching<ChatRequest, Answer> for ChatCaching {
    fn key(&self, request: &ChatRequest, cx: &Context, key: KeyBuilder) -> Option<Key> {
        if !self.may_repeat(request.sampling()) {
            return None;
        }
        Some(self.key_with(request, cx, key, &request.canonical()?))
    }

    fn encode(&self, answer: &Answer) -> Option<Bytes> {
        let Answer::Full(answer) = answer else { return None };
        if answer.borrowed {
            return None;
        }
        let head = Head::new(&answer.model, answer.usage, None);
        if is_answer(&answer.body) { head.with(&answer.body) } else { None }
    }

    fn record(&self, answer: &mut Answer, keep: Keep) -> bool {
        let Answer::Stream(stream) = answer else { return false };
        if stream.is_borrowed() {
            return false;
        }
        let model = Arc::clone(stream.model());
        stream.record(MAX_STREAM_BYTES.min(keep.most()), move |events, usage| {
            let Some(events) = events else { return keep.too_large() };
            let Some(tells) = survey(&events) else { return keep.refuse() };
            if let Some(value) = Head::new(&model, usage, Some(tells)).with(&events) {
                keep.value(value);
            }
        });
        true
    }

    fn decode(&self, value: Bytes, request: &ChatRequest, cx: &Context) -> Result<Option<Answer>> {
        let (Head { model, usage, stream, tells }, content) = parts(value)?;
        let kept = Kept { model: model.into(), usage, stream: stream.then_some(tells), content };
        Ok(kept.answer(request, self.replay, cx))
    }

    fn saved_usd(&self, answer: &Answer) -> Option<f64> {
        match answer {
            Answer::Full(answer) => self.prices.cost(&answer.model, &answer.usage?),
            Answer::Stream(stream) => self.prices.cost(stream.model(), &stream.usage()?),
        }
    }
}

/// An answer as a store has it, for people to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredAnswer {
    /// The model that has answered.
    pub model: String,
    /// Whether it is the events of a stream.
    pub stream: bool,
    /// The body, or the events.
    pub content: Bytes,
}

/// What [`ChatCaching`] has stored as `value`.
///
/// # Errors
/// When it is not whole, or no answer.
pub fn stored_answer(value: Bytes) -> Result<StoredAnswer> {
    let (head, content) = parts(value)?;
    Ok(StoredAnswer { model: head.model.into_owned(), stream: head.stream, content })
}

fn parts(mut value: Bytes) -> Result<(Head<'static>, Bytes)> {
    let corrupt = |message| Error::new(Kind::Store, message);
    let sum = value.split_to(CHECKSUM_BYTES.min(value.len()));
    if *sum != checksum(&value) {
        return Err(corrupt("the stored answer is damaged"));
    }
    let end = memchr::memchr(b'\n', &value).ok_or_else(|| corrupt("the stored answer has no head"))?;
    let head: Head<'static> = serde_json::from_slice(&value[..end])
        .map_err(|error| corrupt("the stored answer has another version's head").because(error))?;
    Ok((head, value.slice(end + 1..)))
}

// === impl Head ===

impl<'a> Head<'a> {
    fn new(model: &'a str, usage: Option<Usage>, stream: Option<Tells>) -> Self {
        let (is_stream, tells) = (stream.is_some(), stream.unwrap_or_default());
        Self { model: Cow::Borrowed(model), usage, stream: is_stream, tells }
    }

    fn with(&self, content: &[u8]) -> Option<Bytes> {
        let head = serde_json::to_vec(self).ok()?;
        let mut value = [&[0; CHECKSUM_BYTES], head.as_slice(), b"\n", content].concat();
        let sum = checksum(&value[CHECKSUM_BYTES..]);
        value[..CHECKSUM_BYTES].copy_from_slice(&sum);
        Some(value.into())
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("the hash has 32 bytes")
}

// === impl ChatPricing ===

impl ChatPricing {
    /// Charges by `prices`; `models` says which model stands behind each route.
    #[must_use]
    pub fn new(prices: Arc<PriceTable>, models: Vec<(String, Arc<str>)>) -> Self {
        Self { prices, models }
    }

    /// Charges an answer that `model` gave.
    fn charge(&self, bill: Bill, model: &str, usage: Option<Usage>) {
        let cost = |model: &str| self.prices.cost(model, &usage?);
        let compared = self.models.iter().find(|(route, _)| Some(route.as_str()) == bill.baseline());
        let (spent, baseline) = (cost(model), compared.and_then(|(_, model)| cost(model)));
        bill.settle(spent, baseline);
    }
}

impl Pricing<Answer> for ChatPricing {
    fn settle(&self, answer: Answer, bill: Bill) -> Answer {
        match answer {
            Answer::Full(answer) => {
                self.charge(bill, &answer.model, answer.usage);
                Answer::Full(answer)
            }
            Answer::Stream(stream) => {
                let (pricing, model) = (self.clone(), Arc::clone(stream.model()));
                Answer::Stream(stream.on_end(move |end| pricing.charge(bill, &model, end.usage)))
            }
        }
    }
}
