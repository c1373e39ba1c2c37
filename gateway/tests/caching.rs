//! The cache as clients see it: what they may ask of it, and what it says of itself.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use process::client::Answer;
use process::upstream::answer;
use process::{Gateway, Launch, Upstream, chat};

/// A provider that numbers its answers.
async fn provider() -> Upstream {
    let calls = std::sync::atomic::AtomicU64::new(0);
    Upstream::start(move |_| {
        let n = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let body = format!(
            r#"{{"choices":[{{"message":{{"content":"{n}"}}}}],"usage":{{"prompt_tokens":10,"completion_tokens":1}}}}"#
        );
        answer("200 OK", "", &body)
    })
    .await
}

/// Models `auto`, with a cache, and `plain`, without.
async fn gateway(upstream: &Upstream, cache: &str) -> Gateway {
    let config = format!(
        "[providers.up.openai]\nbase_url = \"http://{}/v1\"\n[models.auto]\ncache = {{ ttl = \"1h\"{cache} }}\n\
         [models.auto.routes.only]\nprovider = \"up\"\nmodel = \"gpt-4o-mini\"\n\
         [models.plain.routes.only]\nprovider = \"up\"\nmodel = \"gpt-4o-mini\"\n",
        upstream.address
    );
    Launch::serve(&config).start().await
}

/// The answer's text, what the cache did, and whether the answer has an age.
async fn told(gateway: &Gateway, headers: &[(&'static str, &str)]) -> (String, String, bool) {
    let answer = gateway.ask_with(headers, chat("auto", "hello")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let cache = answer.header("x-throughline-cache").unwrap().to_owned();
    (answer.text(), cache, answer.header("age").is_some())
}

fn is(text: &str, cache: &str, aged: bool) -> (String, String, bool) {
    (text.to_owned(), cache.to_owned(), aged)
}

fn refused(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_client_decides_whether_it_gets_a_stored_answer() {
    let upstream = provider().await;
    let gateway = gateway(&upstream, "").await;
    assert_eq!(told(&gateway, &[]).await, is("1", "miss", false));
    assert_eq!(told(&gateway, &[]).await, is("1", "hit", true));
    assert_eq!(told(&gateway, &[("cache-control", "no-cache")]).await, is("2", "bypass", false));
    assert_eq!(told(&gateway, &[]).await, is("2", "hit", true), "what it got was stored");
    assert_eq!(told(&gateway, &[("cache-control", "no-store")]).await, is("3", "bypass", false));
    assert_eq!(told(&gateway, &[("cache-control", "max-age=600")]).await, is("2", "hit", true));
    assert_eq!(told(&gateway, &[("cache-control", "max-age=0")]).await, is("4", "miss", false));
    let only = [("cache-control", "x=\"no-store\"; ,ONLY-IF-CACHED,,")];
    assert_eq!(told(&gateway, &only).await, is("4", "hit", true));
    assert_eq!(upstream.seen().len(), 4);
    assert_eq!(gateway.metric("cache_outcomes_total", &[("outcome", "bypass")]).await, 2.0);
}

#[tokio::test]
async fn who_wants_only_a_stored_answer_costs_nothing() {
    let upstream = provider().await;
    let gateway = gateway(&upstream, "").await;
    let only = [("cache-control", "only-if-cached")];
    for model in ["auto", "plain"] {
        let answer = gateway.ask_with(&only, chat(model, "hello")).await;
        assert_eq!(refused(&answer), (504, "not_cached".to_owned()), "{model}");
        assert_eq!(answer.header("x-throughline-attempts").unwrap_or("0"), "0");
    }
    let mut streamed = chat("auto", "hello");
    streamed["stream"] = true.into();
    assert_eq!(refused(&gateway.ask_with(&only, streamed).await).0, 504);
    assert_eq!(upstream.seen().len(), 0);
    assert!(!gateway.log().contains("a request failed"), "{}", gateway.log());
}

#[tokio::test]
async fn where_the_operator_says_so_clients_do_not_get_past_the_cache() {
    let upstream = provider().await;
    let gateway = gateway(&upstream, ", cache_control = false").await;
    told(&gateway, &[]).await;
    for value in ["no-cache", "no-store", "max-age=0"] {
        assert_eq!(told(&gateway, &[("cache-control", value)]).await, is("1", "hit", true), "{value}");
    }
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn tenants_never_get_each_others_answers() {
    let upstream = provider().await;
    let gateway = gateway(&upstream, "").await;
    let [ann, bob] = ["ann", "bob"].map(|name| format!("Bearer {name}"));
    assert_eq!(told(&gateway, &[("authorization", &ann)]).await, is("1", "miss", false));
    assert_eq!(told(&gateway, &[("authorization", &bob)]).await, is("2", "miss", false));
    assert_eq!(told(&gateway, &[]).await, is("3", "miss", false), "nor does who says nothing");
    assert_eq!(told(&gateway, &[("authorization", &ann)]).await, is("1", "hit", true));
    assert_eq!(told(&gateway, &[("authorization", &bob)]).await, is("2", "hit", true));
}

#[tokio::test]
async fn a_header_of_ones_own_names_the_tenant_unless_a_model_is_for_all() {
    let upstream = provider().await;
    let config = format!(
        "[server]\ntenant_header = \"x-team\"\n[providers.up.openai]\nbase_url = \"http://{}/v1\"\n\
         [models.auto]\ncache = {{ ttl = \"1h\" }}\n[models.auto.routes.only]\nprovider = \"up\"\nmodel = \"gpt-4o-mini\"\n\
         [models.all]\ncache = {{ ttl = \"1h\", scope = \"all\" }}\n\
         [models.all.routes.only]\nprovider = \"up\"\nmodel = \"gpt-4o-mini\"\n",
        upstream.address
    );
    let gateway = Launch::serve(&config).start().await;
    let ask = async |model: &str, team: &str, key: &str| {
        let headers = [("x-team", team), ("authorization", key)];
        let answer = gateway.ask_with(&headers, chat(model, "hello")).await;
        (answer.text(), answer.header("x-throughline-cache").unwrap().to_owned())
    };
    let is = |text: &str, cache: &str| (text.to_owned(), cache.to_owned());
    assert_eq!(ask("auto", "blue", "a").await, is("1", "miss"));
    assert_eq!(ask("auto", "blue", "b").await, is("1", "hit"));
    assert_eq!(ask("auto", "red", "a").await, is("2", "miss"));
    assert_eq!(ask("all", "blue", "a").await, is("3", "miss"));
    assert_eq!(ask("all", "red", "b").await, is("3", "hit"));
}

#[tokio::test]
async fn what_is_drawn_anew_each_time_goes_past_the_cache() {
    let upstream = provider().await;
    let gateway = gateway(&upstream, ", max_temperature = 0.5").await;
    let ask = async |field: &str, value: serde_json::Value| {
        let mut body = chat("auto", "hello");
        body["temperature"] = 0.2.into();
        body[field] = value;
        gateway.ask(&body).await.header("x-throughline-cache").unwrap().to_owned()
    };
    for (field, value) in [("temperature", 0.6.into()), ("n", 2.into()), ("store", false.into())] {
        assert_eq!(ask(field, value).await, "bypass", "{field}");
    }
    let asked = upstream.seen().len();
    for (field, value) in [("temperature", 0.5.into()), ("seed", 7.into()), ("n", 1.into())] {
        assert_eq!(ask(field, serde_json::Value::clone(&value)).await, "miss", "{field}");
        assert_eq!(ask(field, value).await, "hit", "{field}");
    }
    assert_eq!(upstream.seen().len(), asked + 3);
}
