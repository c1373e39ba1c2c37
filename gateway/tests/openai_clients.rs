//! Clients that nobody here wrote: the `async-openai` crate and OpenAI's own Python package.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::process::Stdio;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::{ApiErrorResponse, OpenAIError};
use async_openai::types::chat::{
    ChatCompletionRequestUserMessageArgs, ChatCompletionStreamOptions, CreateChatCompletionRequest,
    CreateChatCompletionRequestArgs, FinishReason,
};
use futures_util::StreamExt as _;
use process::{Gateway, Launch};

const CONFIG: &str = r#"
[providers.quick.simulated]
seed = 3
latency = { p50 = "2ms", p99 = "5ms" }
tokens_per_second = 5000.0
completion_tokens = { min = 5, max = 20 }

[providers.failing.simulated]
latency = { p50 = "1ms", p99 = "1ms" }
faults = { error_rate = 1.0, error_status = 503 }

[providers.hanging.simulated]
faults = { hang_rate = 1.0 }

[models.auto]
default_route = "cheap"
baseline = "dear"
rules = [{ route = "dear", when = { prompt_chars_at_least = 400 } }]
cache = { ttl = "10m" }
timeout = { limit = "20s" }
[models.auto.routes.cheap]
provider = "quick"
model = "gpt-4o-mini"
[models.auto.routes.dear]
provider = "quick"
model = "gpt-4o"

[models.broken.routes.only]
provider = "failing"
model = "gpt-4o-mini"

[models.stuck]
timeout = { limit = "300ms" }
[models.stuck.routes.only]
provider = "hanging"
model = "gpt-4o-mini"
"#;

fn client(gateway: &Gateway) -> Client<OpenAIConfig> {
    let base = format!("http://{}/v1", gateway.address);
    Client::with_config(OpenAIConfig::new().with_api_base(base).with_api_key("not-needed"))
}

fn request(model: &str, prompt: &str) -> CreateChatCompletionRequest {
    let message =
        ChatCompletionRequestUserMessageArgs::default().content(prompt).build().expect("it is complete");
    let request = CreateChatCompletionRequestArgs::default().model(model).messages([message.into()]).build();
    request.expect("it is complete")
}

fn refusal<T>(result: Result<T, OpenAIError>) -> ApiErrorResponse {
    match result {
        Err(OpenAIError::ApiError(error)) => error,
        Err(other) => panic!("the client does not understand the error: {other:?}"),
        Ok(_) => panic!("there was an answer"),
    }
}

#[tokio::test]
async fn async_openai_lists_models_and_gets_answers() {
    let gateway = Launch::serve(CONFIG).start().await;
    let client = client(&gateway);
    let models = client.models().list().await.unwrap();
    let names: Vec<_> = models.data.iter().map(|model| model.id.as_str()).collect();
    assert_eq!(names, ["auto", "broken", "stuck"]);

    let answer = client.chat().create(request("auto", "Name a river.")).await.unwrap();
    let usage = answer.usage.unwrap();
    assert_eq!(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
    assert!((5..=20).contains(&usage.completion_tokens), "{usage:?}");
    let choice = &answer.choices[0];
    assert_eq!(choice.finish_reason, Some(FinishReason::Stop));
    let text = choice.message.content.clone().unwrap();
    assert_eq!(text.split(' ').count(), usize::try_from(usage.completion_tokens).unwrap());

    let repeat = client.chat().create(request("auto", "Name a river.")).await.unwrap();
    assert_eq!((repeat.id, repeat.choices[0].message.content.clone().unwrap()), (answer.id, text));
    assert_eq!(gateway.metric("cache_hits_total", &[("operation", "auto")]).await, 1.0);
}

#[tokio::test]
async fn async_openai_reads_streams() {
    let gateway = Launch::serve(CONFIG).start().await;
    let client = client(&gateway);
    for with_usage in [false, true] {
        let mut request = request("auto", "Tell a story.");
        request.stream_options = with_usage
            .then_some(ChatCompletionStreamOptions { include_usage: Some(true), include_obfuscation: None });
        let mut stream = client.chat().create_stream(request).await.unwrap();
        let (mut words, mut usage, mut stops) = (0, None, 0);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.unwrap();
            usage = chunk.usage.or(usage);
            for choice in chunk.choices {
                words += u32::from(choice.delta.content.is_some_and(|text| !text.is_empty()));
                stops += u32::from(choice.finish_reason == Some(FinishReason::Stop));
            }
        }
        assert_eq!((usage.is_some(), stops), (with_usage, 1));
        assert!((5..=20).contains(&words), "{words}");
        if let Some(usage) = usage {
            assert_eq!(usage.completion_tokens, words);
        }
    }
    gateway.settles("gateway_requests_total", &[("code", "200")], 2.0).await;
}

#[tokio::test]
async fn async_openai_has_the_same_answer_plain_and_streamed() {
    let gateway = Launch::serve(CONFIG).start().await;
    let client = client(&gateway);
    let plain = async |prompt: &str| {
        let answer = client.chat().create(request("auto", prompt)).await.unwrap();
        let choice = &answer.choices[0];
        (
            answer.id,
            choice.message.content.clone().unwrap(),
            choice.finish_reason,
            answer.usage.unwrap().total_tokens,
        )
    };
    let streamed = async |prompt: &str| {
        let mut request = request("auto", prompt);
        request.stream_options =
            Some(ChatCompletionStreamOptions { include_usage: Some(true), include_obfuscation: None });
        let mut stream = client.chat().create_stream(request).await.unwrap();
        let (mut id, mut text, mut finish, mut tokens) = (String::new(), String::new(), None, 0);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.unwrap();
            id = chunk.id;
            tokens += chunk.usage.map_or(0, |usage| usage.total_tokens);
            for choice in chunk.choices {
                text.push_str(&choice.delta.content.unwrap_or_default());
                finish = choice.finish_reason.or(finish);
            }
        }
        (id, text, finish, tokens)
    };
    let first = plain("Name a river.").await;
    assert_eq!(streamed("Name a river.").await, first);
    let first = streamed("Name a lake.").await;
    gateway.settles("cache_misses_total", &[("operation", "auto")], 2.0).await;
    let stored = [("primitive", "cache"), ("event", "stored")];
    gateway.settles("throughline_primitive_events_total", &stored, 2.0).await;
    assert_eq!(plain("Name a lake.").await, first);
    assert_eq!(gateway.metric("cache_hits_total", &[("operation", "auto")]).await, 2.0);
}

#[tokio::test]
async fn async_openai_understands_every_error() {
    let gateway = Launch::serve(CONFIG).start().await;
    let client = client(&gateway);
    let error = refusal(client.chat().create(request("none", "Hello.")).await);
    assert_eq!((error.status_code.as_u16(), error.api_error.code.as_deref()), (404, Some("model_not_found")));
    assert_eq!(error.api_error.r#type.as_deref(), Some("invalid_request_error"));
    for (model, status, code) in [("broken", 502, "upstream_error"), ("stuck", 504, "timeout")] {
        let error = refusal(client.chat().create(request(model, "Hello.")).await);
        assert_eq!(error.status_code.as_u16(), status);
        // Of a 5xx the client takes the body for the message, after it has tried three times more.
        assert!(error.api_error.message.contains(&format!("\"code\":\"{code}\"")), "{error:?}");
        let status = status.to_string();
        assert_eq!(gateway.metric("gateway_requests_total", &[("code", &status)]).await, 4.0, "{model}");
    }
    let mut empty = request("auto", "Hello.");
    empty.messages.clear();
    let error = refusal(client.chat().create(empty).await);
    assert_eq!((error.status_code.as_u16(), error.api_error.param.as_deref()), (400, Some("messages")));
    assert!(client.chat().create(request("auto", "And now?")).await.is_ok());
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs the openai package"]
async fn the_openai_python_package_works() {
    let python =
        std::env::var("THROUGHLINE_E2E_PYTHON").expect("THROUGHLINE_E2E_PYTHON names a Python with openai");
    let gateway = Launch::serve(CONFIG).start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/openai_client.py");
    let run = tokio::process::Command::new(python)
        .args([script, &format!("http://{}/v1", gateway.address)])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(process::PATIENCE * 4, run).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.lines().filter(|line| line.starts_with("ok ")).count() >= 12, "{said}");
}
