//! The names of OpenTelemetry's GenAI conventions, in one table.
//!
//! The conventions are in development and are renaming what they measure of a model call. Names of version 1.41
//! are the default; `OTEL_SEMCONV_STABILITY_OPT_IN` chooses the newer ones or both, per telemetry instance
//! ([`Semconv`](throughline::telemetry::Semconv)). Attributes of spans have the same names in both, but for the tokens that
//! a provider puts into its cache.
//!
//! A label comes from the configuration or from a closed set: the model is the one that a route is configured with,
//! never what a client asked for or an answer claims to be of.

mod attributes;
mod client;
mod content;
mod details;
mod provider;
mod request;
mod response;
mod served;

pub(crate) use attributes::ATTRIBUTES;
pub use client::Client;
pub(crate) use client::{Call, Pace};
pub(crate) use content::{Recording, input_messages, output_messages};
pub(crate) use details::{DETAILS, Details};
pub use provider::provider_name;
pub(crate) use request::describe;
pub(crate) use response::{Response, Shared, tell_usage};
pub use served::{Served, served};
use throughline::telemetry::Family;

/// What a chat request is called as an operation.
pub(crate) const CHAT: &str = "chat";

/// Seconds: 10 ms, doubled up to 82 s.
const SECONDS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// Tokens: 1, times four up to 67 million.
const TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Seconds to a first token, beyond the convention's 10 s: reasoning models think for longer.
const FIRST_TOKEN_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 30.0,
    60.0,
];

const TOKEN_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];

const LABELS: &[&str] = &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"];
const WITH_ERROR: &[&str] =
    &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"];
const WITH_TYPE: &[&str] =
    &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type"];
const WITH_MODALITY: &[&str] =
    &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_modality"];

// Of 1.41.

static TOKEN_USAGE: Family = Family::histogram(
    "gen_ai_client_token_usage",
    "Tokens of a model call, by what the provider said: input (cached ones included) and output",
    WITH_TYPE,
    TOKENS,
)
.in_development();
static OPERATION_DURATION: Family = Family::histogram(
    "gen_ai_client_operation_duration_seconds",
    "How long a model call took to its last chunk, in seconds",
    WITH_ERROR,
    SECONDS,
)
.in_development();
static OPERATION_FIRST_CHUNK: Family = Family::histogram(
    "gen_ai_client_operation_time_to_first_chunk_seconds",
    "From a streamed model call to its first chunk, in seconds",
    LABELS,
    SECONDS,
)
.in_development();
static OPERATION_PER_CHUNK: Family = Family::histogram(
    "gen_ai_client_operation_time_per_output_chunk_seconds",
    "Between two chunks of a streamed model call, in seconds; what arrives together is one chunk",
    LABELS,
    SECONDS,
)
.in_development();

// Of the conventions that are being written.

static INFERENCE_DURATION: Family = Family::histogram(
    "gen_ai_client_inference_duration_seconds",
    "How long a model call took to its last chunk, in seconds",
    WITH_ERROR,
    SECONDS,
)
.in_development();
static INFERENCE_FIRST_CHUNK: Family = Family::histogram(
    "gen_ai_client_inference_time_to_first_chunk_seconds",
    "From a streamed model call to its first chunk, in seconds",
    LABELS,
    SECONDS,
)
.in_development();
static INFERENCE_PER_CHUNK: Family = Family::histogram(
    "gen_ai_client_inference_time_per_output_chunk_seconds",
    "Between two chunks of a streamed model call, in seconds; what arrives together is one chunk",
    LABELS,
    SECONDS,
)
.in_development();
static INPUT_TOKENS: Family = Family::counter(
    "gen_ai_client_inference_usage_input_tokens",
    "Tokens that models have read, cached ones included",
    WITH_MODALITY,
)
.in_development();
static OUTPUT_TOKENS: Family = Family::counter(
    "gen_ai_client_inference_usage_output_tokens",
    "Tokens that models have written, those of the reasoning included",
    WITH_MODALITY,
)
.in_development();
static CACHE_READ_TOKENS: Family = Family::counter(
    "gen_ai_client_inference_usage_cache_read_input_tokens",
    "Tokens that providers had in their caches, of those that were read",
    WITH_MODALITY,
)
.in_development();
static CACHE_WRITE_TOKENS: Family = Family::counter(
    "gen_ai_client_inference_usage_cache_write_input_tokens",
    "Tokens that providers have put into their caches, of those that were read",
    WITH_MODALITY,
)
.in_development();
static REASONING_TOKENS: Family = Family::counter(
    "gen_ai_client_inference_usage_reasoning_output_tokens",
    "Tokens that were thought and not said, of those that were written",
    WITH_MODALITY,
)
.in_development();

// Of a server of models, which have one name in both.

static SERVER_DURATION: Family = Family::histogram(
    "gen_ai_server_request_duration_seconds",
    "How long a served model took to its last chunk, cache, retries and all, in seconds",
    WITH_ERROR,
    SECONDS,
)
.in_development();
static SERVER_FIRST_TOKEN: Family = Family::histogram(
    "gen_ai_server_time_to_first_token_seconds",
    "From a streamed request to the first content of its answer, in seconds",
    LABELS,
    FIRST_TOKEN_SECONDS,
)
.in_development();
static SERVER_PER_TOKEN: Family = Family::histogram(
    "gen_ai_server_time_per_output_token_seconds",
    "Time per token after the first one of a complete stream, in seconds",
    LABELS,
    TOKEN_SECONDS,
)
.in_development();

pub(crate) static FAMILIES: &[&Family] = &[
    &TOKEN_USAGE,
    &OPERATION_DURATION,
    &OPERATION_FIRST_CHUNK,
    &OPERATION_PER_CHUNK,
    &INFERENCE_DURATION,
    &INFERENCE_FIRST_CHUNK,
    &INFERENCE_PER_CHUNK,
    &INPUT_TOKENS,
    &OUTPUT_TOKENS,
    &CACHE_READ_TOKENS,
    &CACHE_WRITE_TOKENS,
    &REASONING_TOKENS,
    &SERVER_DURATION,
    &SERVER_FIRST_TOKEN,
    &SERVER_PER_TOKEN,
];
