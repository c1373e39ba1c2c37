//! A request for embeddings to one model of one provider, as a stage.
//!
//! It is to stand inside a timeout and a circuit breaker: whoever needs embeddings has something to do without them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use opentelemetry::trace::SpanKind;
use serde::Deserialize;
use serde_json::Value;
use throughline::telemetry::{
    Amount, Attribute, Counter, Ended, NoEvents, Observed, Registry, Reported, Run, Sink, Stage,
};
use throughline::{ConfigError, Context, Error, Kind, Primitive as _, Result, Workflow};

use super::embedder::Embedded;
use super::vector::Vector;
use crate::chat::{COST, UNPRICED};
use crate::http_call::HttpAnswer;
use crate::openai::Usage;
use crate::prices::PriceTable;
use crate::providers::Provider;

pub(crate) static REPORTED: Reported = Reported::new::<Ended, NoEvents>(
    "embeddings",
    &[
        Attribute::string("gen_ai.operation.name", "`embeddings`"),
        Attribute::string("gen_ai.provider.name", "The provider, by the conventions' name"),
        Attribute::string("gen_ai.request.model", "The model that is asked"),
        Attribute::int("gen_ai.usage.input_tokens", "Tokens of the texts, if the provider says so"),
        Attribute::double("throughline.cost.usd", "What it has cost, where that is known"),
    ],
)
.spans_called("embeddings {gen_ai.request.model}")
.spans_of_kind("CLIENT");

/// Which model of which provider.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbeddingsConfig {
    provider: String,
    model: String,
    operation: String,
}

/// Asks for embeddings. Made by [`embeddings`].
pub struct Embeddings {
    config: EmbeddingsConfig,
    provider: Arc<Provider>,
    prices: Arc<PriceTable>,
}

/// Handles to the families of [`Embeddings`].
#[derive(Debug)]
pub struct EmbeddingsSignals {
    cost: Amount,
    unpriced: Counter,
}

/// Makes a workflow that turns texts into directions.
///
/// # Errors
/// When the provider has no embeddings.
pub fn embeddings(
    config: EmbeddingsConfig,
    provider: Arc<Provider>,
    prices: Arc<PriceTable>,
) -> Result<Workflow<Observed<Embeddings>>, ConfigError> {
    let asks = match &*provider {
        Provider::Http(dialect, _) => dialect.embeddings(&config.model, &[]).is_some(),
        Provider::Simulated(_) => false,
    };
    if !asks {
        let problem = format!("the provider `{}` has no embeddings", config.provider);
        return Err(ConfigError::new(problem));
    }
    Ok(Workflow::from_stage(Embeddings { config, provider, prices }))
}

// === impl EmbeddingsConfig ===

impl EmbeddingsConfig {
    /// `model` as the provider knows it, of the provider called `provider` in the configuration.
    #[must_use]
    pub fn new(provider: impl Into<String>, model: impl Into<String>) -> Self {
        let (provider, model) = (provider.into(), model.into());
        let operation = format!("{provider}/{model}");
        Self { provider, model, operation }
    }
}

// === impl Embeddings ===

impl Embeddings {
    async fn ask(&self, texts: &[String], cx: &Context) -> Result<(Vec<Vector>, Option<Usage>)> {
        let none = || Error::new(Kind::Internal, "the provider has no embeddings");
        let Provider::Http(dialect, call) = &*self.provider else { return Err(none()) };
        let request = dialect.embeddings(&self.config.model, texts).ok_or_else(none)?;
        match call.execute(request, cx).await? {
            HttpAnswer::Full(body) => read(&body, texts.len()),
            HttpAnswer::Stream(_) => Err(unusable("the provider answered with a stream")),
        }
    }
}

impl Stage for Embeddings {
    type In = Vec<String>;
    type Out = Embedded;
    type Outcome = Ended;
    type Event = NoEvents;
    type Signals = EmbeddingsSignals;
    type Note = ();

    const PRIMITIVE: &'static str = "embeddings";
    const SPAN_KIND: SpanKind = SpanKind::Client;
    const STREAMS: bool = false;
    const UPSTREAM: bool = true;

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn span_name(&self) -> Cow<'static, str> {
        format!("embeddings {}", self.config.model).into()
    }

    fn declare(&self, registry: &Registry) -> EmbeddingsSignals {
        let labels = [self.config.provider.as_str(), self.config.model.as_str()];
        EmbeddingsSignals {
            cost: registry.amount(&COST, &labels),
            unpriced: registry.counter(&UNPRICED, &labels),
        }
    }

    async fn run(&self, texts: Vec<String>, cx: &Context, run: &mut Run<'_, Self>) -> Result<Embedded> {
        if run.records() {
            run.attribute("gen_ai.operation.name", "embeddings");
            run.attribute("gen_ai.provider.name", self.provider.name().to_owned());
            run.attribute("gen_ai.request.model", self.config.model.clone());
        }
        let (vectors, usage) = run.outside(self.ask(&texts, cx)).await?;
        let cost_usd = usage.and_then(|usage| self.prices.cost(&self.config.model, &usage));
        if let Some(usage) = usage {
            run.attribute(
                "gen_ai.usage.input_tokens",
                i64::try_from(usage.prompt_tokens).unwrap_or(i64::MAX),
            );
        }
        if let Some(usd) = cost_usd {
            run.attribute("throughline.cost.usd", usd);
        }
        if let Some(signals) = run.signals() {
            match cost_usd {
                Some(usd) => signals.cost.add(usd),
                None => signals.unpriced.inc(),
            }
        }
        Ok(Embedded::new(vectors, cost_usd))
    }

    fn bind(&self, sink: &Sink) {
        if let Provider::Http(_, call) = &*self.provider {
            call.bind(sink);
        }
    }
}

/// What a provider answers. Everything else in it is nobody's business here.
#[derive(Deserialize)]
struct Body {
    data: Vec<Item>,
    #[serde(default)]
    usage: Value,
}

#[derive(Deserialize)]
struct Item {
    index: Option<usize>,
    embedding: Vec<f32>,
}

/// The directions in an answer, in the order of the `wanted` texts.
fn read(body: &Bytes, wanted: usize) -> Result<(Vec<Vector>, Option<Usage>)> {
    let body: Body = serde_json::from_slice(body)
        .map_err(|error| unusable("the provider's answer holds no embeddings").because(error))?;
    let mut vectors = vec![None; wanted];
    for (at, item) in body.data.into_iter().enumerate() {
        let place = vectors.get_mut(item.index.unwrap_or(at));
        let place = place.filter(|place| place.is_none());
        let place =
            place.ok_or_else(|| unusable("the provider gave an embedding of a text that was not sent"))?;
        let vector = Vector::new(&item.embedding);
        *place = Some(vector.ok_or_else(|| unusable("the provider gave an embedding that points nowhere"))?);
    }
    let vectors: Option<Vec<_>> = vectors.into_iter().collect();
    let vectors = vectors.ok_or_else(|| unusable("the provider gave too few embeddings"))?;
    Ok((vectors, used(&body.usage)))
}

/// What cannot be read costs no embeddings: then nobody knows what they have cost.
fn used(usage: &Value) -> Option<Usage> {
    // Nothing is written, so all tokens are those of the texts.
    let tokens = ["prompt_tokens", "total_tokens"].iter().find_map(|name| usage.get(name)?.as_u64())?;
    Usage::new(tokens, 0).if_plausible()
}

fn unusable(message: &'static str) -> Error {
    Error::new(Kind::Upstream, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str, wanted: usize) -> Result<usize, String> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        read(&body, wanted).map(|(vectors, _)| vectors.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn embeddings_come_back_in_the_order_of_the_texts() {
        let body = r#"{"object":"list","data":[{"index":1,"embedding":[0,1]},{"index":0,"embedding":[1,0.0]}],
                       "model":"m","usage":{"prompt_tokens":7,"total_tokens":7}}"#;
        let (vectors, usage) = read(&Bytes::from_static(body.as_bytes()), 2).unwrap();
        assert_eq!(vectors, [Vector::new(&[1.0, 0.0]).unwrap(), Vector::new(&[0.0, 1.0]).unwrap()]);
        assert_eq!(usage, Some(Usage::new(7, 0)));
    }

    #[test]
    fn embeddings_are_used_whatever_is_said_of_their_tokens() {
        for (usage, tokens) in [
            (r#"{"prompt_tokens":7,"total_tokens":9}"#, Some(7)),
            (r#"{"total_tokens":9}"#, Some(9)),
            (r#"{"prompt_tokens":null,"total_tokens":9}"#, Some(9)),
            (r#"{"prompt_tokens":3.0,"total_tokens":3}"#, Some(3)),
            (r#"{"prompt_tokens":3.0}"#, None),
            (r#"{"prompt_tokens":-1}"#, None),
            ("{}", None),
            ("null", None),
            (r#""free""#, None),
        ] {
            let body = format!(r#"{{"data":[{{"embedding":[1]}}],"usage":{usage}}}"#);
            let (vectors, used) = read(&Bytes::from(body), 1).unwrap();
            assert_eq!((vectors.len(), used), (1, tokens.map(|tokens| Usage::new(tokens, 0))), "{usage}");
        }
        assert_eq!(said(r#"{"data":[{"embedding":[1]}]}"#, 1), Ok(1));
    }

    #[test]
    fn an_answer_of_no_use_is_refused() {
        let holds_none = "the provider's answer holds no embeddings";
        let nowhere = "the provider gave an embedding that points nowhere";
        for (body, why) in [
            ("", holds_none),
            ("{}", holds_none),
            (r#"{"data":[{"embedding":"AAAA"}]}"#, holds_none),
            (r#"{"data":[{"embedding":[NaN]}]}"#, holds_none),
            (r#"{"data":[{"embedding":[1,null]}]}"#, holds_none),
            (r#"{"data":[{"embedding":[]}]}"#, nowhere),
            (r#"{"data":[{"embedding":[0,0]}]}"#, nowhere),
            (r#"{"data":[{"embedding":[1e39]}]}"#, holds_none),
            (r#"{"data":[]}"#, "the provider gave too few embeddings"),
            (
                r#"{"data":[{"index":1,"embedding":[1]}]}"#,
                "the provider gave an embedding of a text that was not sent",
            ),
            (
                r#"{"data":[{"embedding":[1]},{"embedding":[1]}]}"#,
                "the provider gave an embedding of a text that was not sent",
            ),
        ] {
            assert_eq!(said(body, 1), Err(why.to_owned()), "{body}");
        }
    }
}
