//! Answers a question with the answer to another one that asks the same in other words.
//!
//! **When.** Around the choice of a route and inside the exact cache, for questions that many people ask: it is asked
//! only where the exact cache has nothing. It holds no answers: for each question whose answer has been stored it keeps
//! a vector and the exact cache's key, so that what is purged or past its time in the store is not given here either.
//!
//! **How.** Of a request, everything but the prose of its last message must be the same, the tenant included
//! ([`ChatRequest::around_prompt`](crate::openai::ChatRequest::around_prompt)). Of the prose, numbers, names, quotes
//! and negations must be the same, and nothing may be swapped for its opposite ([`Marks`]). What is left is compared by
//! an [`Embedder`], and the nearest question counts if it is at least as near as a threshold, which is to be
//! [learned](learn) from labelled pairs.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use throughline::{CacheConfig, Context, Memory};
//! use throughline_llm::openai::{ChatRequest, Limits};
//! use throughline_llm::semantic::{Embedder, SemanticConfig, Similarity, semantic};
//! use throughline_llm::simulated::SimulatedConfig;
//! use throughline_llm::{ChatCaching, ChatConfig, PriceTable, chat, providers};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let prices = Arc::new(PriceTable::builtin());
//! let provider = providers::simulated(SimulatedConfig::default());
//! let ask = chat(ChatConfig::new("sim", "gpt-4o-mini"), provider.into(), Arc::clone(&prices));
//!
//! let (cache, caching) = (CacheConfig::new("faq", Duration::from_secs(3600))?, ChatCaching::new(prices));
//! let store = Arc::new(Memory::new(1 << 20)?);
//! let exact = (cache.clone(), caching.clone(), Arc::clone(&store));
//! let near = semantic(ask, SemanticConfig::new(0.8)?.answering(), exact, Embedder::ngrams());
//! let flow = near.cache(cache, caching, store);
//!
//! for (question, is_near) in [
//!     ("How do I reset my password?", false),
//!     ("how can i reset my passwords", true),
//!     ("how can i reset my 2 passwords", false),
//! ] {
//!     let body = format!(r#"{{"model":"faq","messages":[{{"role":"user","content":"{question}"}}]}}"#);
//!     let (request, cx) = (ChatRequest::parse(Bytes::from(body), &Limits::default())?, Context::new());
//!     flow.run(request, &cx).await?;
//!     assert_eq!(cx.state().get::<Similarity>().is_some(), is_near, "{question}");
//! }
//! # Ok(()) }
//! ```
//!
//! **When not.** It cannot know that two questions have one answer; it is wrong at some rate, which the threshold only
//! bounds. It begins in [`Mode::Shadow`], where it answers nobody and counts how often it would have been wrong. In
//! [`Mode::Answer`] a share of its answers is audited: the provider is asked all the same, behind the request.

mod audit;
mod compare;
mod config;
mod embedder;
mod embeddings;
mod guard;
mod health;
mod index;
pub mod learn;
mod lookup;
mod memo;
mod ngrams;
mod said;
mod shadow;
mod signals;
mod signs;
mod stage;
mod tally;
mod tokens;
mod vector;
mod words;

pub use compare::Verdict;
pub use config::{Mode, SemanticConfig};
pub use embedder::{Embedded, Embedder};
pub use embeddings::{Embeddings, EmbeddingsConfig, EmbeddingsSignals, embeddings};
pub use guard::Marks;
pub use health::{EmbedderDown, EmbedderHealth, is_of_the_text};
pub(crate) use signals::FAMILIES;
pub use signals::{SemanticOutcome, SemanticSignals};
pub use stage::{Semantic, SemanticEvent, SemanticStats, Similarity, semantic};
pub use vector::Vector;
pub(crate) use {
    audit::REPORTED as AUDIT, embeddings::REPORTED as EMBEDDINGS, shadow::REPORTED as SHADOW, stage::REPORTED,
};
