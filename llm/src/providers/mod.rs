//! Who answers: a file a provider.
//!
//! A provider only translates. The HTTP exchange is [`HttpCall`], the same for all.

mod openai;
mod simulated;

use std::sync::Arc;

use bytes::Bytes;
pub use openai::{OpenAiConfig, openai};
pub(crate) use simulated::answer as simulate;
pub use simulated::simulated;
use throughline::Result;
use throughline::telemetry::Observed;

use crate::answer::Completion;
use crate::http_call::{HttpCall, HttpRequest};
use crate::openai::{ChatRequest, StreamWatch};
use crate::simulated::Simulator;

/// Who answers chat requests. Made by [`openai`] or [`simulated`].
pub enum Provider {
    /// A server, spoken to in its dialect.
    Http(Box<dyn Dialect>, Observed<HttpCall>),
    /// A simulation inside this process.
    Simulated(Simulator),
}

/// How to speak with a provider: translation only, no input or output.
pub trait Dialect: Send + Sync {
    /// The provider's name in the GenAI conventions, from configuration.
    fn name(&self) -> &str;

    /// The host and port that are called.
    fn server(&self) -> Option<(&str, u16)> {
        None
    }

    /// The request to send.
    fn request(&self, request: &ChatRequest, model: &str) -> HttpRequest;

    /// The answer in OpenAI's dialect. `tells` says that the call's span is recorded, so that what the answer says of
    /// itself is wanted as well.
    ///
    /// # Errors
    /// When `body` is not an answer.
    fn completion(&self, body: Bytes, model: Arc<str>, tells: bool) -> Result<Completion>;

    /// The request for the embeddings of `texts`. Default: it has none.
    fn embeddings(&self, model: &str, texts: &[String]) -> Option<HttpRequest> {
        let _ = (model, texts);
        None
    }

    /// What follows a streamed answer to `request`.
    fn watch(&self, request: &ChatRequest) -> StreamWatch;
}

// === impl Provider ===

impl Provider {
    /// The provider's name in the GenAI conventions.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Http(dialect, _) => dialect.name(),
            Self::Simulated(_) => "simulated",
        }
    }

    /// The host and port that are called; `None` where nothing is.
    #[must_use]
    pub fn server(&self) -> Option<(&str, u16)> {
        match self {
            Self::Http(dialect, _) => dialect.server(),
            Self::Simulated(_) => None,
        }
    }
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Provider({})", self.name())
    }
}
