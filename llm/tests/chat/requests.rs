//! What goes to a provider, and what does not.

use http::header::AUTHORIZATION;
use throughline::Context;
use throughline_llm::HttpClient;
use throughline_llm::providers::{OpenAiConfig, Provider, openai};

use super::upstream::{Act, Upstream};
use super::{MODEL, PLAIN, STREAMED, ask, ask_with, config, plain, read, request, stream_of};

const ANSWER: &str = r#"{"choices":[{"message":{"content":"Hello"}}]}"#;

fn names(headers: &[(String, String)]) -> Vec<&str> {
    headers.iter().map(|(name, _)| name.as_str()).collect()
}

fn value<'a>(headers: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
    headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

#[tokio::test]
async fn the_body_is_the_clients_with_the_model_of_the_configuration() {
    let upstream = Upstream::start(vec![Act::json(200, "", ANSWER)]).await;
    plain(&ask(upstream.base_url.clone()), &Context::new()).await.unwrap();
    let seen = &upstream.seen()[0];
    assert_eq!(seen.line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(seen.body, PLAIN.replace("auto", MODEL));
    assert_eq!(value(&seen.headers, "accept"), Some("application/json"));
}

#[tokio::test]
async fn usage_is_asked_for_unless_the_configuration_says_otherwise() {
    for (stream_usage, expected) in [(true, r#"{"stream_options":{"include_usage":true},"#), (false, "{")] {
        let upstream = Upstream::start(Act::stream(&[b"data: [DONE]\n\n"])).await;
        let ask = ask_with(OpenAiConfig { stream_usage, ..config(upstream.base_url.clone()) }, MODEL);
        read(stream_of(&ask, STREAMED, &Context::new()).await.unwrap()).await;
        let seen = &upstream.seen()[0];
        assert_eq!(seen.body, STREAMED.replacen('{', expected, 1).replace("auto", MODEL));
        assert_eq!(value(&seen.headers, "accept"), Some("text/event-stream"));
    }
}

#[tokio::test]
async fn nothing_of_the_client_but_the_body_goes_upstream() {
    let upstream = Upstream::start(vec![Act::json(200, "", ANSWER)]).await;
    let cx = Context::builder()
        .trace_parent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Some("vendor=secret"))
        .correlation_id("secret")
        .session_id("secret")
        .user_id("secret")
        .tag("tenant", "secret")
        .baggage("team", "secret")
        .build();
    plain(&ask(upstream.base_url.clone()), &cx).await.unwrap();
    let seen = &upstream.seen()[0];
    assert_eq!(names(&seen.headers), ["accept", "content-length", "content-type", "host", "user-agent"]);
    assert!(seen.headers.iter().all(|(_, value)| !value.contains("secret")));
}

#[tokio::test]
async fn a_provider_that_is_to_learn_of_the_trace_gets_its_parent_and_nothing_more() {
    let upstream = Upstream::start(vec![Act::json(200, "", ANSWER), Act::json(200, "", ANSWER)]).await;
    let told = OpenAiConfig { forwards_trace: true, ..config(upstream.base_url.clone()) };
    let ask = ask_with(told, MODEL);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let cx = Context::builder().trace_parent(parent, Some("vendor=secret")).baggage("team", "secret").build();
    plain(&ask, &cx).await.unwrap();
    plain(&ask, &Context::new()).await.unwrap();
    let [with, without] = &upstream.seen()[..] else { panic!("there were two requests") };
    assert_eq!(
        value(&with.headers, "traceparent"),
        Some(parent),
        "nothing is recorded here: it passes through"
    );
    assert!(with.headers.iter().all(|(_, value)| !value.contains("secret")));
    assert_eq!(value(&without.headers, "traceparent"), None, "there is no trace to speak of");
}

#[tokio::test]
async fn the_key_is_that_of_the_configuration() {
    let upstream = Upstream::start(vec![Act::json(200, "", ANSWER)]).await;
    let keyed = OpenAiConfig { api_key: Some("sk-1234".into()), ..config(upstream.base_url.clone()) };
    plain(&ask_with(keyed, MODEL), &Context::new()).await.unwrap();
    plain(&ask(upstream.base_url.clone()), &Context::new()).await.unwrap();
    let [keyed, bare] = &upstream.seen()[..] else { panic!("there were two requests") };
    assert_eq!(value(&keyed.headers, "authorization"), Some("Bearer sk-1234"));
    assert_eq!(value(&bare.headers, "authorization"), None);
}

#[test]
fn the_key_is_never_shown() {
    let keyed = OpenAiConfig { api_key: Some("sk-1234".into()), ..config("https://localhost/v1".into()) };
    assert!(!format!("{keyed:?}").contains("sk-1234"));
    let provider = openai(keyed, HttpClient::new(std::time::Duration::from_secs(1))).unwrap();
    assert!(!format!("{provider:?}").contains("sk-1234"));
    let Provider::Http(dialect, _) = provider else { panic!("it is called over HTTP") };
    let sent = dialect.request(&request(PLAIN), MODEL);
    assert!(sent.headers[AUTHORIZATION].is_sensitive());
    assert!(!format!("{sent:?}").contains("sk-1234"));
}

#[test]
fn a_provider_that_cannot_be_called_is_refused_when_it_is_built() {
    let refused = |base_url: &str, key: Option<&str>| {
        let config = OpenAiConfig { api_key: key.map(Into::into), ..config(base_url.to_owned()) };
        openai(config, HttpClient::new(std::time::Duration::from_secs(1))).expect_err(base_url).to_string()
    };
    for base_url in [
        "",
        "/v1",
        "localhost:8080/v1",
        "ftp://localhost/v1",
        "http:///v1",
        "https://local host/v1",
        "https://localhost/v1?key=sk-1234",
        "https://localhost/v1#chat",
        "https://user:sk-1234@localhost/v1",
    ] {
        let expected = "the address of provider `main` is not a URL such as https://host/v1";
        assert_eq!(refused(base_url, None), expected, "{base_url}");
    }
    let error = refused("https://localhost/v1", Some("sk-\n1234"));
    assert_eq!(error, "the key of provider `main` holds characters that a header may not");
}
