//! How chat answers are cached and what routes are charged: the chat side of the library's
//! [`Caching`] and [`Pricing`].

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use throughline::{Bill, Caching, Context, Error, Key, KeyBuilder, Kind, Pricing, Result};

use crate::answer::{Answer, Completion};
use crate::openai::{ChatRequest, Usage, usage};
use crate::prices::PriceTable;

/// Caches whole answers under everything in the request that can change them. Streams pass by.
#[derive(Clone, Debug)]
pub struct ChatCaching {
    prices: Arc<PriceTable>,
}

/// Charges answers by their usage, on the route that gave them and on the route to compare with.
#[derive(Clone, Debug)]
pub struct ChatPricing {
    prices: Arc<PriceTable>,
    /// The model behind each route.
    models: Vec<(String, Arc<str>)>,
}

/// What stands before the body in a stored value.
#[derive(Deserialize, Serialize)]
struct Head<'a> {
    model: Cow<'a, str>,
}

// === impl ChatCaching ===

impl ChatCaching {
    /// Values what is saved by `prices`.
    #[must_use]
    pub fn new(prices: Arc<PriceTable>) -> Self {
        Self { prices }
    }
}

impl Caching<ChatRequest, Answer> for ChatCaching {
    fn key(&self, request: &ChatRequest, cx: &Context, key: KeyBuilder) -> Option<Key> {
        if request.stream() {
            return None;
        }
        let tenant = cx.tag("tenant").unwrap_or_default();
        Some(key.text(tenant).part(&request.canonical()?).build())
    }

    fn encode(&self, answer: &Answer) -> Option<Bytes> {
        let Answer::Full(answer) = answer else { return None };
        let mut value = serde_json::to_vec(&Head { model: Cow::Borrowed(&answer.model) }).ok()?;
        value.push(b'\n');
        value.extend_from_slice(&answer.body);
        Some(value.into())
    }

    fn decode(&self, value: Bytes) -> Result<Answer> {
        let corrupt = || Error::new(Kind::Store, "the stored answer has no head");
        let end = value.iter().position(|byte| *byte == b'\n').ok_or_else(corrupt)?;
        let head: Head<'_> = serde_json::from_slice(&value[..end]).map_err(|error| corrupt().because(error))?;
        let body = value.slice(end + 1..);
        let usage = usage(&body);
        Ok(Answer::Full(Completion::new(body, head.model.into(), usage)))
    }

    fn saved_usd(&self, answer: &Answer) -> Option<f64> {
        let Answer::Full(answer) = answer else { return None };
        self.prices.cost(&answer.model, &answer.usage?)
    }
}

// === impl ChatPricing ===

impl ChatPricing {
    /// Charges by `prices`; `models` says which model stands behind each route.
    #[must_use]
    pub fn new(prices: Arc<PriceTable>, models: Vec<(String, Arc<str>)>) -> Self {
        Self { prices, models }
    }

    fn charge(&self, bill: Bill, usage: Option<Usage>) {
        let cost = |route: Option<&str>| {
            let (_, model) = self.models.iter().find(|(name, _)| Some(name.as_str()) == route)?;
            self.prices.cost(model, &usage?)
        };
        let (spent, baseline) = (cost(Some(bill.route())), cost(bill.baseline()));
        bill.settle(spent, baseline);
    }
}

impl Pricing<Answer> for ChatPricing {
    fn settle(&self, answer: Answer, bill: Bill) -> Answer {
        match answer {
            Answer::Full(answer) => {
                self.charge(bill, answer.usage);
                Answer::Full(answer)
            }
            Answer::Stream(stream) => {
                let pricing = self.clone();
                Answer::Stream(stream.on_end(move |end| pricing.charge(bill, end.usage)))
            }
        }
    }
}
