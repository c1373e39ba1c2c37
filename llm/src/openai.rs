//! The OpenAI chat dialect: reads requests and answers, and writes them, without any I/O.
//!
//! **When.** Between the HTTP front and a provider that speaks `POST /v1/chat/completions`. A request is
//! checked and peeked at once ([`ChatRequest::parse`]); what goes upstream are the client's own bytes with
//! one value replaced ([`ChatRequest::for_upstream`]), so fields that nobody here knows arrive untouched.
//!
//! **Where.** First in a chain, before anything that needs the model, the size or a cache key. On the way
//! back, [`usage`] reads the tokens of a plain answer and [`StreamWatch`] those of a streamed one.
//!
//! ```
//! use bytes::Bytes;
//! use throughline_llm::openai::{ChatRequest, Limits};
//!
//! let body = Bytes::from_static(br#"{"model":"fast","messages":[{"role":"user","content":"Hi"}],"top_k":7}"#);
//! let request = ChatRequest::parse(body, &Limits::default())?;
//! assert_eq!((request.model(), request.prompt_chars()), ("fast", 2));
//!
//! let upstream = request.for_upstream("gpt-4o-mini", true);
//! assert_eq!(upstream, br#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hi"}],"top_k":7}"#[..]);
//! # Ok::<(), throughline_llm::openai::RequestError>(())
//! ```
//!
//! **When not.** Providers with another dialect translate for themselves; nothing here rewrites messages.

mod answer;
mod canonical;
mod joined;
mod kept;
mod peek;
mod request;
mod sampling;
mod split;
mod stream_watch;
mod usage;
mod whole;

pub use answer::{DONE, Delta, chunk, completion, error_body, usage_chunk};
pub(crate) use joined::joined;
pub(crate) use kept::{Tells, is_answer, retold, survey};
pub use request::{ChatRequest, Limits, RequestError};
pub use sampling::Sampling;
pub(crate) use split::{Pieces, split};
pub use stream_watch::{Chunk, StreamWatch};
pub use usage::{Usage, usage};
pub(crate) use whole::whole;
