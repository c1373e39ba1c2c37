//! Chat requests as workflow primitives: the OpenAI dialect, providers, one HTTP client, prices.
//!
//! [`chat()`] makes a [`Workflow`](throughline::Workflow) that asks one model of one
//! [provider](providers::Provider). What goes in is a [`ChatRequest`](openai::ChatRequest), what comes out
//! an [`Answer`], whole or streamed. [`ChatCaching`] and [`ChatPricing`] teach the library's cache and
//! router about them.

pub mod answer;
pub mod caching;
pub mod catalogue;
pub mod chat;
pub mod client;
pub mod genai;
pub mod http_call;
pub mod openai;
pub mod prices;
pub mod providers;
pub mod semantic;
pub mod simulated;
pub mod sse;

pub use answer::{Answer, ChatStream, Completion, Frame, StreamEnd};
pub use caching::{ChatCaching, ChatPricing, StoredAnswer, stored_answer};
pub use chat::{Attempts, Chat, ChatConfig, ChatNote, ChatSignals, Spent, chat};
pub use client::{ClientError, ClientErrorKind, HttpClient, MAX_ANSWER_BYTES, collect};
pub use http_call::{HttpAnswer, HttpCall, HttpRequest, Refusal};
pub use prices::{Price, PriceTable, Row, rows};
