//! OpenAI, and every server that speaks its chat dialect.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Uri};
use secrecy::{ExposeSecret, SecretString};
use throughline::telemetry::Observed;
use throughline::{ConfigError, Error, Kind, Result};

use super::{Dialect, Provider};
use crate::answer::Completion;
use crate::client::{HttpClient, authority, port};
use crate::genai::provider_name;
use crate::http_call::{HttpCall, HttpRequest};
use crate::openai::{ChatRequest, StreamWatch, whole};

/// Where a server is and how to speak with it.
#[derive(Clone, Debug)]
pub struct OpenAiConfig {
    /// The provider's name in the configuration.
    pub name: String,
    /// The address up to and without `/chat/completions`.
    pub base_url: String,
    /// The key, sent as a bearer token. Default: none.
    pub api_key: Option<SecretString>,
    /// Asks for usage in streams on the client's behalf. Default: true.
    pub stream_usage: bool,
    /// Sends a `traceparent` with every call. Nothing else of a trace is sent. Default: false.
    pub forwards_trace: bool,
    /// What it is called in telemetry (`gen_ai.provider.name`). Default: by its address, else `openai`.
    pub provider_name: Option<String>,
}

struct OpenAi {
    name: String,
    uri: Uri,
    embeddings: Uri,
    headers: HeaderMap,
    stream_usage: bool,
}

/// A provider that speaks OpenAI's dialect, called through `client`.
///
/// # Errors
/// When the address is not one, or the key holds characters that no header may.
pub fn openai(config: OpenAiConfig, client: HttpClient) -> Result<Provider, ConfigError> {
    let at = |path| {
        endpoint(&config.base_url, path).ok_or_else(|| {
            ConfigError::new(format!(
                "the address of provider `{}` is not a URL such as https://host/v1",
                config.name
            ))
        })
    };
    let (uri, embeddings) = (at("chat/completions")?, at("embeddings")?);
    let headers = headers(config.api_key.as_ref()).ok_or_else(|| {
        ConfigError::new(format!(
            "the key of provider `{}` holds characters that a header may not",
            config.name
        ))
    })?;
    let by_address = || uri.host().and_then(provider_name).unwrap_or("openai").to_owned();
    let name = config.provider_name.unwrap_or_else(by_address);
    let dialect = OpenAi { name, uri, embeddings, headers, stream_usage: config.stream_usage };
    let mut call = HttpCall::new(config.name, client);
    if config.forwards_trace {
        call = call.forwarding_trace();
    }
    Ok(Provider::Http(Box::new(dialect), Observed::new(call)))
}

/// `None` for an address that cannot be called, or that holds more than origin and path: a password would
/// end up in logs, and a query or a fragment would swallow the path.
fn endpoint(base_url: &str, path: &str) -> Option<Uri> {
    let uri: Uri = format!("{}/{path}", base_url.trim_end_matches('/')).parse().ok()?;
    let is_plain = !base_url.contains(['?', '#', '@']);
    (is_plain && authority(&uri).is_some()).then_some(uri)
}

/// Built from nothing: no header of a client reaches a provider.
fn headers(key: Option<&SecretString>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("throughline/", env!("CARGO_PKG_VERSION"))));
    if let Some(key) = key {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret())).ok()?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Some(headers)
}

// === impl OpenAi ===

impl Dialect for OpenAi {
    fn name(&self) -> &str {
        &self.name
    }

    fn server(&self) -> Option<(&str, u16)> {
        Some((self.uri.host()?, port(&self.uri)?))
    }

    fn request(&self, request: &ChatRequest, model: &str) -> HttpRequest {
        let mut headers = self.headers.clone();
        let accept = if request.stream() { "text/event-stream" } else { "application/json" };
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        HttpRequest { uri: self.uri.clone(), headers, body: request.for_upstream(model, self.stream_usage) }
    }

    fn embeddings(&self, model: &str, texts: &[String]) -> Option<HttpRequest> {
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let body = serde_json::json!({ "model": model, "input": texts, "encoding_format": "float" });
        Some(HttpRequest { uri: self.embeddings.clone(), headers, body: body.to_string().into() })
    }

    fn completion(&self, body: Bytes, model: Arc<str>, tells: bool) -> Result<Completion> {
        let not_json = "the provider's answer is not JSON";
        // Skipped strings are not looked at by the JSON reader, but clients will look at them.
        let text = std::str::from_utf8(&body)
            .map_err(|error| Error::new(Kind::Upstream, not_json).because(error))?;
        let said = whole(text, tells).map_err(|error| Error::new(Kind::Upstream, not_json).because(error))?;
        if said.has_error {
            return Err(Error::new(Kind::Upstream, "the provider reported a failure as its answer"));
        }
        if !said.has_choices {
            return Err(Error::new(Kind::Upstream, "the provider's answer holds no choices"));
        }
        Ok(Completion { response: said.response, ..Completion::new(body, model, said.usage) })
    }

    fn watch(&self, request: &ChatRequest) -> StreamWatch {
        StreamWatch::new(self.stream_usage && !request.wants_stream_usage())
    }
}
