//! Caching for values that serde can turn into JSON.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Caching;
use super::key::{Key, KeyBuilder};
use crate::context::Context;
use crate::error::{Error, Kind, Result};

type KeyOf<In> = Box<dyn Fn(&In, &Context, KeyBuilder) -> Option<KeyBuilder> + Send + Sync>;
type Saves<Out> = Box<dyn Fn(&Out) -> Option<f64> + Send + Sync>;
type Keep<Out> = Box<dyn Fn(&Out) -> bool + Send + Sync>;

/// Stores outputs as JSON under keys that a function makes.
pub struct JsonCaching<In, Out> {
    key: KeyOf<In>,
    saves: Option<Saves<Out>>,
    keep: Option<Keep<Out>>,
}

// === impl JsonCaching ===

impl<In, Out> JsonCaching<In, Out> {
    /// Keys made by `key`: `None` leaves an input uncached.
    pub fn keyed(
        key: impl Fn(&In, &Context, KeyBuilder) -> Option<KeyBuilder> + Send + Sync + 'static,
    ) -> Self {
        Self { key: Box::new(key), saves: None, keep: None }
    }

    /// What serving an output saves, in USD. Default: unknown.
    #[must_use]
    pub fn saves(mut self, usd: impl Fn(&Out) -> Option<f64> + Send + Sync + 'static) -> Self {
        self.saves = Some(Box::new(usd));
        self
    }

    /// Which outputs are to be cached. Default: all.
    #[must_use]
    pub fn should_cache(mut self, keep: impl Fn(&Out) -> bool + Send + Sync + 'static) -> Self {
        self.keep = Some(Box::new(keep));
        self
    }
}

impl<In, Out: Serialize + DeserializeOwned> Caching<In, Out> for JsonCaching<In, Out> {
    fn key(&self, input: &In, cx: &Context, key: KeyBuilder) -> Option<Key> {
        (self.key)(input, cx, key).map(KeyBuilder::build)
    }

    fn encode(&self, output: &Out) -> Option<Bytes> {
        let keep = self.keep.as_ref().is_none_or(|keep| keep(output));
        keep.then(|| serde_json::to_vec(output).ok().map(exact)).flatten()
    }

    fn decode(&self, value: Bytes, _: &In, _: &Context) -> Result<Option<Out>> {
        let unfit = |error| Error::new(Kind::Store, "the stored value does not fit its type").because(error);
        serde_json::from_slice(&value).map(Some).map_err(unfit)
    }

    fn saved_usd(&self, output: &Out) -> Option<f64> {
        self.saves.as_ref()?(output)
    }
}

/// Without spare capacity: the store counts the bytes that it was given.
fn exact(value: Vec<u8>) -> Bytes {
    value.into_boxed_slice().into()
}
