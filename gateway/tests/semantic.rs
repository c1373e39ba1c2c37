//! The semantic cache as clients and operators see it, with the real program.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../../throughline/tests/redis/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use process::upstream::{Seen, Step, answer};
use process::{Gateway, Launch, Upstream, chat, until};
use serde_json::{Value, json};
use server::Server;

const LOOKUPS: &str = "semantic_cache_lookups_total";
const ANSWER: &str =
    "mode = \"answer\", threshold = 0.8, max_error = 0.05, learned = \"ngrams-1\", audit = 0";

/// Asks for the same in other words, by what the built-in embedder sees.
const QUESTION: &str = "How do I reset my password?";
const REWORDED: &str = "how can i reset my passwords";

fn completion(text: &str) -> Vec<Step> {
    let body = format!(
        r#"{{"choices":[{{"message":{{"content":"{text}"}}}}],"usage":{{"prompt_tokens":1000,"completion_tokens":100}}}}"#
    );
    answer("200 OK", "", &body)
}

/// A provider that numbers its answers.
async fn provider() -> Upstream {
    let calls = AtomicU64::new(0);
    Upstream::start(move |_| completion(&(calls.fetch_add(1, Ordering::Relaxed) + 1).to_string())).await
}

/// A model `auto` whose cache has more keys, and these of its semantic one.
fn config(upstream: &Upstream, cache: &str, semantic: &str) -> String {
    format!(
        "[server]\ntenant_header = \"x-team\"\n[providers.up.openai]\nbase_url = \"http://{}/v1\"\n\
         [models.auto]\ncache = {{ ttl = \"1h\"{cache}, semantic = {{ {semantic} }} }}\n\
         [models.auto.routes.only]\nprovider = \"up\"\nmodel = \"gpt-4o-mini\"\n",
        upstream.address
    )
}

async fn gateway(upstream: &Upstream, semantic: &str) -> Gateway {
    Launch::serve(&config(upstream, "", semantic)).start().await
}

/// The answer's text, what the cache did, and whether it was another question's.
async fn told(gateway: &Gateway, headers: &[(&'static str, &str)], body: Value) -> (String, String, bool) {
    let answer = gateway.ask_with(headers, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let cache = answer.header("x-throughline-cache").unwrap().to_owned();
    let similarity = answer.header("x-throughline-semantic-similarity");
    if let Some(similarity) = similarity {
        assert!((0.8..=1.0).contains(&similarity.parse::<f64>().unwrap()), "{similarity}");
        assert!(answer.header("age").is_some(), "an answer of another question has an age as well");
    }
    (answer.text(), cache, similarity.is_some())
}

fn is(text: &str, cache: &str, other: bool) -> (String, String, bool) {
    (text.to_owned(), cache.to_owned(), other)
}

async fn lookups(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(LOOKUPS, &[("operation", "auto"), ("outcome", outcome)]).await
}

async fn counted(gateway: &Gateway, outcome: &str, count: f64) {
    until(outcome, async || (lookups(gateway, outcome).await >= count).then_some(())).await;
    assert_eq!(lookups(gateway, outcome).await, count, "{outcome}");
}

#[tokio::test]
async fn a_question_in_other_words_gets_the_answer_and_says_so() {
    let upstream = provider().await;
    let gateway = gateway(&upstream, ANSWER).await;
    assert_eq!(told(&gateway, &[], chat("auto", QUESTION)).await, is("1", "miss", false));
    assert_eq!(
        told(&gateway, &[], chat("auto", QUESTION)).await,
        is("1", "hit", false),
        "that is the exact cache's"
    );
    assert_eq!(told(&gateway, &[], chat("auto", REWORDED)).await, is("1", "hit", true));
    assert_eq!(
        told(&gateway, &[], chat("auto", REWORDED)).await,
        is("1", "hit", true),
        "it is not stored as its own"
    );
    assert_eq!(told(&gateway, &[], chat("auto", "when does the train leave?")).await, is("2", "miss", false));
    assert_eq!(upstream.seen().len(), 2);
    assert_eq!((lookups(&gateway, "hit").await, lookups(&gateway, "miss").await), (2.0, 2.0));
    // 1000 tokens at 0.15 and 100 at 0.6 dollars a million, twice.
    let saved = gateway.metric("semantic_cache_saved_usd_total", &[("operation", "auto")]).await;
    assert!((saved - 2.0 * 0.00021).abs() < 1e-9, "{saved}");
    assert_eq!(gateway.metric("semantic_cache_entries", &[("operation", "auto")]).await, 2.0);
    assert!(gateway.metric("semantic_cache_bytes", &[("operation", "auto")]).await > 1000.0);
    assert_eq!(gateway.metric("semantic_cache_seconds_count", &[("operation", "auto")]).await, 4.0);
}

/// As [`ANSWER`], with every answer audited.
fn audited() -> String {
    ANSWER.replace("audit = 0", "audit = 1")
}

async fn compared(gateway: &Gateway, mode: &str, verdict: &str) -> f64 {
    let labels = [("operation", "auto"), ("mode", mode), ("verdict", verdict)];
    gateway.metric("semantic_cache_comparisons_total", &labels).await
}

#[tokio::test]
async fn answers_are_audited_behind_the_requests_and_too_many_wrong_ones_are_told_of() {
    let upstream = provider().await;
    let gateway = Launch::serve(&["[log]\nformat = \"json\"\n", &config(&upstream, "", &audited())].concat());
    let gateway = gateway.start().await;
    told(&gateway, &[], chat("auto", QUESTION)).await;
    for n in 1..=8_u32 {
        let answer = gateway.ask(chat("auto", REWORDED)).await;
        assert_eq!(
            (answer.text().as_str(), answer.header("x-throughline-cost-usd")),
            ("1", Some("0.000000000"))
        );
        // The provider numbers its answers, so it never says the same again.
        until("the audit", async || {
            (compared(&gateway, "answer", "different").await >= f64::from(n)).then_some(())
        })
        .await;
    }
    assert_eq!(upstream.seen().len(), 9);
    let audits = gateway.metric("semantic_cache_audit_usd_total", &[("operation", "auto")]).await;
    assert!((audits - 8.0 * 0.00021).abs() < 1e-9, "{audits}");
    let all = gateway.metric("llm_cost_usd_total", &[("provider", "up")]).await;
    assert!((all - 9.0 * 0.00021).abs() < 1e-9, "{all}");
    gateway.says("differ from the provider's more often than its threshold was learned for").await;
    let log = gateway.log();
    assert!(log.contains("\"compared\":8") && log.contains("\"max_error\":0.05"), "{log}");
    assert!(!log.contains("password"), "nothing of a question is in the log: {log}");
}

#[tokio::test]
async fn a_provider_that_is_gone_costs_no_request_of_an_audit_and_one_that_hangs_no_stop() {
    let never = Arc::new(tokio::sync::Semaphore::new(0));
    let calls = AtomicU64::new(0);
    let upstream = Upstream::start(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => completion("1"),
        1..4 => answer("503 Service Unavailable", "", "{}"),
        _ => vec![Step::Wait(Arc::clone(&never))],
    })
    .await;
    let gateway = gateway(&upstream, &audited()).await;
    told(&gateway, &[], chat("auto", QUESTION)).await;
    for n in 1..=3_u32 {
        assert_eq!(told(&gateway, &[], chat("auto", REWORDED)).await, is("1", "hit", true));
        until("the audit", async || {
            (compared(&gateway, "answer", "unknown").await >= f64::from(n)).then_some(())
        })
        .await;
    }
    assert_eq!(told(&gateway, &[], chat("auto", REWORDED)).await, is("1", "hit", true));
    until("the audit that hangs", async || (upstream.seen().len() == 5).then_some(())).await;
    assert_eq!(gateway.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_shadow_counts_by_both_names_until_the_old_one_is_gone() {
    let upstream = provider().await;
    let gateway = gateway(&upstream, "threshold = 0.8").await;
    told(&gateway, &[], chat("auto", QUESTION)).await;
    counted(&gateway, "miss", 1.0).await;
    assert_eq!(told(&gateway, &[], chat("auto", REWORDED)).await, is("2", "miss", false));
    until("the verdict", async || (compared(&gateway, "shadow", "different").await > 0.0).then_some(()))
        .await;
    let old = [("operation", "auto"), ("verdict", "different")];
    assert_eq!(gateway.metric("semantic_cache_shadow_total", &old).await, 1.0);
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn whatever_else_differs_is_asked_anew() {
    let upstream = provider().await;
    let gateway = gateway(&upstream, ANSWER).await;
    let question = |text: &str| {
        json!({"model": "auto", "temperature": 0.5, "messages": [
            {"role": "system", "content": "You help customers of a bank."},
            {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": text},
        ]})
    };
    let asked = async |change: &dyn Fn(&mut Value)| {
        let mut body = question(REWORDED);
        change(&mut body);
        told(&gateway, &[], body).await.2
    };
    told(&gateway, &[], question(QUESTION)).await;
    assert!(asked(&|_| {}).await);
    assert!(asked(&|body| body["user"] = "somebody".into()).await, "what the exact cache ignores is ignored");
    let changes: [&dyn Fn(&mut Value); 9] = [
        &|body| body["temperature"] = 0.4.into(),
        &|body| body["tools"] = json!([{"type": "function", "function": {"name": "f"}}]),
        &|body| body["response_format"] = json!({"type": "json_object"}),
        &|body| body["never_heard_of"] = 1.into(),
        &|body| body["messages"][0]["content"] = "You help customers of a shop.".into(),
        &|body| body["messages"][2]["content"] = "Hi!".into(),
        &|body| body["messages"][3]["content"] = "how can i not reset my passwords".into(),
        &|body| body["messages"][3]["content"] = "how can i reset my 2 passwords".into(),
        &|body| body["messages"][3]["content"] = "how can i reset my Google passwords".into(),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        assert!(!asked(change).await, "change {at}");
    }
    assert_eq!(upstream.seen().len(), 10);
}

#[tokio::test]
async fn tenants_never_share() {
    let upstream = provider().await;
    let gateway = gateway(&upstream, ANSWER).await;
    told(&gateway, &[("x-team", "blue")], chat("auto", QUESTION)).await;
    assert_eq!(told(&gateway, &[("x-team", "red")], chat("auto", REWORDED)).await, is("2", "miss", false));
    assert_eq!(told(&gateway, &[], chat("auto", REWORDED)).await, is("3", "miss", false));
    assert_eq!(told(&gateway, &[("x-team", "blue")], chat("auto", REWORDED)).await, is("1", "hit", true));
}

#[tokio::test]
async fn a_caller_decides_as_with_the_exact_cache() {
    let upstream = provider().await;
    let gateway = gateway(&upstream, ANSWER).await;
    let ask = async |control: &str, text: &str| {
        told(&gateway, &[("cache-control", control)], chat("auto", text)).await
    };
    assert_eq!(ask("no-store", QUESTION).await, is("1", "bypass", false));
    assert_eq!(
        ask("max-age=600", REWORDED).await,
        is("2", "miss", false),
        "what is not to be stored is not known"
    );
    assert_eq!(ask("no-cache", QUESTION).await, is("3", "bypass", false));
    assert_eq!(ask("max-age=0", "how may i reset my password").await, is("4", "miss", false));
    assert_eq!(ask("max-age=600", "how should i reset my password").await.1, "hit");
    let mut varied = chat("auto", REWORDED);
    varied["temperature"] = 1.5.into();
    assert_eq!(told(&gateway, &[], varied).await, is("5", "bypass", false));
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn what_an_operator_purges_is_not_given_to_other_questions() {
    let (server, upstream) = (Server::start(&[]).await, provider().await);
    let store = format!("[stores.kept.redis]\nurl = \"{}\"\ndeadline = \"2s\"\n", server.url());
    let text = format!("{store}{}", config(&upstream, ", store = \"kept\"", ANSWER));
    let gateway = Launch::serve(&text).start().await;
    let told = async |team: &str, text: &str| told(&gateway, &[("x-team", team)], chat("auto", text)).await;
    until("an answer from the store", async || told("red", QUESTION).await.1.eq("hit").then_some(())).await;
    until("an answer from the store", async || told("blue", QUESTION).await.1.eq("hit").then_some(())).await;
    assert!(told("red", REWORDED).await.2 && told("blue", REWORDED).await.2);
    let asked = upstream.seen().len();
    let purge =
        Launch::new(&["cache", "purge", "--tenant", "red"]).file("throughline.toml", &text).finish().await;
    assert_eq!(purge.code, Some(0), "{purge:?}");
    assert!(!told("red", REWORDED).await.2, "it is gone");
    assert!(told("blue", "how should i reset my password").await.2, "the others' is not");
    assert_eq!((upstream.seen().len(), lookups(&gateway, "gone").await), (asked + 1, 1.0));
}

#[tokio::test]
async fn a_renewed_answer_is_given_to_other_questions() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = provider().await;
    let store = format!("[stores.kept.disk]\npath = \"{}\"\n", dir.path().join("answers").display());
    let text = config(&upstream, ", store = \"kept\"", ANSWER);
    let gateway = Launch::serve(&format!("{store}{text}")).start().await;
    until("an answer from the store", async || {
        told(&gateway, &[], chat("auto", QUESTION)).await.1.eq("hit").then_some(())
    })
    .await;
    let (first, cache, other) = told(&gateway, &[], chat("auto", REWORDED)).await;
    assert_eq!((cache.as_str(), other), ("hit", true));
    let renewed = told(&gateway, &[("cache-control", "no-cache")], chat("auto", QUESTION)).await.0;
    assert_ne!(renewed, first);
    until("the new answer", async || {
        told(&gateway, &[], chat("auto", REWORDED)).await.0.eq(&renewed).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_shadow_answers_nobody_and_counts_how_it_would_have_done() {
    let calls = AtomicU64::new(0);
    let upstream = Upstream::start(move |seen: &Seen| {
        let number = calls.fetch_add(1, Ordering::Relaxed).to_string();
        let same = String::from_utf8_lossy(&seen.body).contains("password");
        completion(if same { "Open the settings." } else { &number })
    })
    .await;
    let gateway = gateway(&upstream, "threshold = 0.8").await;
    for text in [QUESTION, REWORDED, "how can I reset my password please"] {
        assert_eq!(told(&gateway, &[], chat("auto", text)).await, is("Open the settings.", "miss", false));
        until("the comparison", async || {
            let [hit, miss] = [lookups(&gateway, "hit").await, lookups(&gateway, "miss").await];
            (hit + miss >= upstream.seen().len() as f64).then_some(())
        })
        .await;
    }
    counted(&gateway, "hit", 2.0).await;
    let verdict = async |verdict: &str| {
        gateway
            .metric("semantic_cache_comparisons_total", &[("operation", "auto"), ("verdict", verdict)])
            .await
    };
    assert_eq!((verdict("same").await, verdict("different").await), (2.0, 0.0));
    told(&gateway, &[], chat("auto", "where is the main station")).await;
    counted(&gateway, "miss", 2.0).await;
    told(&gateway, &[], chat("auto", "where is our main station")).await;
    counted(&gateway, "hit", 3.0).await;
    until("a verdict", async || (verdict("different").await >= 1.0).then_some(())).await;
    assert_eq!(upstream.seen().len(), 5, "everybody was answered by the provider");
    assert_eq!(gateway.metric("semantic_cache_saved_usd_total", &[("operation", "auto")]).await, 0.0);
}

/// Chat answers, and embeddings as `embed` says.
async fn embedder(embed: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> (Upstream, Arc<AtomicU64>) {
    let asked = Arc::new(AtomicU64::new(0));
    let (calls, embeddings) = (AtomicU64::new(0), Arc::clone(&asked));
    let upstream = Upstream::start(move |seen| {
        if !seen.head.starts_with("POST /v1/embeddings ") {
            return completion(&(calls.fetch_add(1, Ordering::Relaxed) + 1).to_string());
        }
        embeddings.fetch_add(1, Ordering::Relaxed);
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!(body["model"], "text-embedding-3-small");
        embed(body["input"][0].as_str().unwrap())
    })
    .await;
    (upstream, asked)
}

fn embedding(numbers: &str) -> Vec<Step> {
    let body = format!(
        r#"{{"data":[{{"index":0,"embedding":[{numbers}]}}],"usage":{{"prompt_tokens":1000000,"total_tokens":1000000}}}}"#
    );
    answer("200 OK", "", &body)
}

const ASKED: &str = "mode = \"answer\", threshold = 0.9, max_error = 0.05, learned = \"text-embedding-3-small\", audit = 0, \
                     embedder = { provider = \"up\", model = \"text-embedding-3-small\", deadline = \"300ms\" }";

#[tokio::test]
async fn a_providers_embeddings_say_what_is_alike_and_are_paid_for() {
    let (upstream, asked) =
        embedder(|text| embedding(if text.contains("pass") { "1, 0, 0.1" } else { "0, 1, 0" })).await;
    let gateway = gateway(&upstream, ASKED).await;
    let first = gateway.ask(chat("auto", QUESTION)).await;
    // A million tokens of text at 0.02 dollars, besides the answer.
    assert_eq!(first.header("x-throughline-cost-usd"), Some("0.020210000"));
    assert_eq!(told(&gateway, &[], chat("auto", "i forgot the passphrase")).await, is("1", "hit", true));
    assert_eq!(told(&gateway, &[], chat("auto", "when does the train leave?")).await, is("2", "miss", false));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    let spent = gateway.metric("semantic_cache_embedding_usd_total", &[("operation", "auto")]).await;
    assert!((spent - 0.06).abs() < 1e-9, "{spent}");
    let labels = [("provider", "up"), ("model", "text-embedding-3-small")];
    assert!((gateway.metric("llm_cost_usd_total", &labels).await - 0.06).abs() < 1e-9);
}

#[tokio::test]
async fn a_sick_embedder_costs_no_request() {
    type Sick = (&'static str, Box<dyn Fn(&str) -> Vec<Step> + Send + Sync>);
    let never = Arc::new(tokio::sync::Semaphore::new(0));
    let sick: Vec<Sick> = vec![
        ("500", Box::new(|_| answer("500 Internal Server Error", "", "{}"))),
        ("hung", Box::new(move |_| vec![Step::Wait(Arc::clone(&never))])),
        ("closed", Box::new(|_| vec![Step::Close])),
        ("no shape", Box::new(|_| answer("200 OK", "", r#"{"data":"none"}"#))),
        ("no json", Box::new(|_| answer("200 OK", "", "<html>"))),
        ("nan", Box::new(|_| embedding("NaN, 1"))),
        ("huge", Box::new(|_| embedding("1e999, 1"))),
        ("nowhere", Box::new(|_| embedding("0, 0"))),
        ("none", Box::new(|_| answer("200 OK", "", r#"{"data":[]}"#))),
        ("stream", Box::new(|_| vec![process::upstream::stream_head(), process::upstream::stream_end()])),
    ];
    for (name, embed) in sick {
        let (upstream, asked) = embedder(embed).await;
        let gateway = gateway(&upstream, ASKED).await;
        for n in 1..=8 {
            let text = format!("{QUESTION} {}", "again ".repeat(n));
            let (answer, cache, other) = told(&gateway, &[], chat("auto", &text)).await;
            assert_eq!((answer, cache.as_str(), other), (n.to_string(), "miss", false), "{name}");
        }
        assert_eq!(lookups(&gateway, "error").await, 8.0, "{name}");
        assert_eq!(asked.load(Ordering::Relaxed), 5, "{name}: after five it is left alone");
    }
}

#[tokio::test]
async fn an_embedder_that_fails_is_logged_and_degraded_until_it_works() {
    let is_sick = Arc::new(AtomicBool::new(false));
    let sick = Arc::clone(&is_sick);
    let (upstream, _) = embedder(move |_| match sick.load(Ordering::Relaxed) {
        true => answer("404 Not Found", "", r#"{"error":{"message":"no such model, said topmost"}}"#),
        false => embedding("1, 0"),
    })
    .await;
    let text = ["[log]\nformat = \"json\"\n", &config(&upstream, "", ASKED)].concat();
    let gateway = Launch::serve(&text).start().await;
    let ask = async |n: usize| {
        let text = format!("{QUESTION} {}", "topmost ".repeat(n));
        assert_eq!(gateway.ask(chat("auto", &text)).await.status, 200);
        let ready = gateway.send(http::Method::GET, "/readyz", "").await;
        let ready: Value = serde_json::from_slice(&ready.body).unwrap();
        ready["degraded"].clone()
    };
    // Half of the calls going well keep the circuit closed.
    for n in 1..=6 {
        assert_eq!(ask(n).await, json!([]));
    }
    is_sick.store(true, Ordering::Relaxed);
    for n in 7..=10 {
        assert_eq!(ask(n).await, json!([]), "one failure is none yet");
    }
    let degraded = ask(11).await;
    assert_eq!(degraded[0]["part"], "embedder:auto", "{degraded}");
    assert_eq!(degraded[0]["reason"], "the provider refused the request with 404");
    assert!(degraded[0]["since"].as_str().unwrap().ends_with('Z'), "{degraded}");
    is_sick.store(false, Ordering::Relaxed);
    assert_eq!(ask(12).await, json!([]));
    gateway.says("questions are embedded again").await;
    let log = gateway.log();
    let failures = log.matches("a question could not be embedded").count();
    assert!((1..=5).contains(&failures), "{log}");
    assert_eq!(log.matches("the embedder fails").count(), 1, "{log}");
    assert!(log.contains("\"reason\":\"the provider refused the request with 404\""), "{log}");
    assert!(!log.contains("topmost"), "nothing of a question is in the log: {log}");
}

#[tokio::test]
async fn an_embedder_that_refuses_every_call_is_left_alone_and_degraded() {
    for refusal in ["404 Not Found", "429 Too Many Requests", "401 Unauthorized"] {
        let (upstream, asked) = embedder(move |_| answer(refusal, "", "{}")).await;
        let gateway = gateway(&upstream, ASKED).await;
        for n in 1..=8 {
            told(&gateway, &[], chat("auto", &format!("{QUESTION} {}", "again ".repeat(n)))).await;
        }
        assert_eq!(asked.load(Ordering::Relaxed), 5, "{refusal}");
        let ready = gateway.send(http::Method::GET, "/readyz", "").await;
        assert!(String::from_utf8_lossy(&ready.body).contains("embedder:auto"), "{refusal}");
    }
}

#[tokio::test]
async fn a_text_that_is_refused_keeps_nobody_elses_from_being_embedded() {
    for refusal in ["400 Bad Request", "413 Payload Too Large", "422 Unprocessable Entity"] {
        let (upstream, asked) = embedder(move |text| match text.contains("again") {
            true => answer(refusal, "", r#"{"error":{"message":"the input is too long"}}"#),
            false => embedding("1, 0"),
        })
        .await;
        let gateway = gateway(&upstream, ASKED).await;
        for n in 1..=12 {
            let text = format!("{QUESTION} {}", "again ".repeat(n));
            let told = told(&gateway, &[], chat("auto", &text)).await;
            assert_eq!(told, is(&n.to_string(), "miss", false), "{refusal}");
        }
        assert_eq!(lookups(&gateway, "error").await, 12.0, "{refusal}");
        assert_eq!(asked.load(Ordering::Relaxed), 12, "{refusal}: it is not left alone");
        let ready = gateway.send(http::Method::GET, "/readyz", "").await;
        assert!(!String::from_utf8_lossy(&ready.body).contains("embedder:auto"), "{refusal}");
        let others = told(&gateway, &[], chat("auto", QUESTION)).await;
        assert_eq!(others, is("13", "miss", false), "{refusal}");
        let reworded = told(&gateway, &[], chat("auto", REWORDED)).await;
        assert_eq!(reworded, is("13", "hit", true), "{refusal}");
    }
}

#[tokio::test]
async fn an_embedder_that_is_not_there_costs_no_request() {
    let upstream = provider().await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = config(&upstream, "", &ASKED.replace("\"up\"", "\"gone\""));
    let gone = format!("[providers.gone.openai]\nbase_url = \"http://{gone}/v1\"\n");
    let gateway = Launch::serve(&format!("{gone}{text}")).start().await;
    assert_eq!(told(&gateway, &[], chat("auto", QUESTION)).await, is("1", "miss", false));
    assert_eq!(lookups(&gateway, "error").await, 1.0);
}

#[tokio::test]
async fn an_embedding_of_another_model_is_an_error_and_never_a_hit() {
    let calls = AtomicU64::new(0);
    let (upstream, _) = embedder(move |_| {
        embedding(if calls.fetch_add(1, Ordering::Relaxed) == 1 { "1, 0, 0" } else { "1, 0" })
    })
    .await;
    let gateway = gateway(&upstream, ASKED).await;
    assert_eq!(told(&gateway, &[], chat("auto", QUESTION)).await, is("1", "miss", false));
    assert_eq!(told(&gateway, &[], chat("auto", REWORDED)).await, is("2", "miss", false));
    assert_eq!(told(&gateway, &[], chat("auto", "how may i reset my password")).await, is("1", "hit", true));
    assert_eq!(lookups(&gateway, "error").await, 1.0);
}

#[tokio::test]
async fn the_bound_is_kept() {
    let upstream = provider().await;
    let gateway = gateway(&upstream, &format!("{}, max_entries = 5", ANSWER.replace("0.8", "0.5"))).await;
    for n in 0..20 {
        told(&gateway, &[], chat("auto", &format!("what does the number {n} mean"))).await;
    }
    assert_eq!(gateway.metric("semantic_cache_entries", &[("operation", "auto")]).await, 5.0);
    assert_eq!(lookups(&gateway, "guarded").await, 19.0, "another number is another question");
    assert_eq!(upstream.seen().len(), 20);
}

#[tokio::test]
async fn streams_are_known_once_they_are_whole() {
    let upstream = Upstream::start(|seen| {
        let chunk = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
        let broken = String::from_utf8_lossy(&seen.body).contains("broken");
        let mut steps = vec![process::upstream::stream_head(), process::upstream::piece(chunk)];
        match broken {
            true => steps.push(Step::Close),
            false => {
                steps.extend([process::upstream::piece("data: [DONE]\n\n"), process::upstream::stream_end()]);
            }
        }
        steps
    })
    .await;
    let gateway = gateway(&upstream, ANSWER).await;
    let ask = async |text: &str| {
        let mut body = chat("auto", text);
        body["stream"] = true.into();
        let answer = gateway.ask(body).await;
        answer.header("x-throughline-semantic-similarity").is_some()
    };
    assert!(!ask("my broken phone is slow").await);
    assert!(!ask("my broken phones are slow").await, "half an answer is none");
    assert!(!ask(QUESTION).await);
    until("the whole stream to be known", async || ask(REWORDED).await.then_some(())).await;
}

#[tokio::test]
async fn a_configuration_that_answers_without_evidence_is_refused() {
    let upstream = provider().await;
    let text = config(&upstream, "", "mode = \"answer\", threshold = 0.9");
    let finished = Launch::new(&["check", "throughline.toml"]).file("throughline.toml", &text).finish().await;
    assert_eq!(finished.code, Some(2));
    assert!(finished.stderr.contains("`mode` is `answer` without `max_error`, `learned`"), "{finished:?}");
}

/// Pairs of which one in `every` has another answer, far apart.
fn pairs(count: usize, every: usize) -> String {
    let line = |n: usize| {
        let word = ["card", "account", "transfer", "refund", "fee"][n % 5];
        let wrong = n.is_multiple_of(every);
        let shop: String = n.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
        let a = format!("how can i block my {word} at the shop called {shop}");
        let b = if wrong { "when does the next train leave".to_owned() } else { a.replace("can", "may") };
        format!("{}\n", json!({"a": a, "b": b, "same": !wrong}))
    };
    (0..count).map(line).collect()
}

async fn learn(pairs: &str, args: &[&str]) -> process::Finished {
    let launch = Launch::new(&[&["cache", "learn", "pairs.jsonl"], args].concat());
    launch.file("pairs.jsonl", pairs).finish().await
}

#[tokio::test]
async fn a_threshold_is_learned_and_its_line_is_a_configuration_that_answers() {
    let finished = learn(&pairs(400, 10), &["--json"]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let learned: Value = serde_json::from_str(&finished.stdout).unwrap();
    let chosen = &learned["chosen"];
    assert_eq!(
        (&learned["kind"], &chosen["served"], &chosen["wrong"]),
        (&json!("pairs"), &json!(360), &json!(0))
    );
    assert!(chosen["bound"].as_f64().unwrap() <= 0.01);
    let line = learned["config"].as_str().unwrap();
    let text = format!(
        "[providers.sim.simulated]\n[models.auto]\ncache = {{ ttl = \"1h\", {} }}\n\
         [models.auto.routes.only]\nprovider = \"sim\"\nmodel = \"m\"\n",
        line.replace("shadow", "answer")
    );
    let checked = Launch::new(&["check", "throughline.toml"]).file("throughline.toml", &text).finish().await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let shown = learn(&pairs(400, 10), &[]).await;
    assert!(
        shown.stdout.contains(line) && shown.stdout.contains("<- loosest that is shown"),
        "{}",
        shown.stdout
    );
}

#[tokio::test]
async fn what_the_examples_do_not_show_is_refused() {
    for (text, args, why) in [
        (
            pairs(100, 10),
            &[][..],
            "at most 90 of the examples would get an answer: to show 1% errors with 95% confidence takes 299",
        ),
        (pairs(400, 10), &["--max-error", "0"], "write a share from 0.01% to 50%"),
        ("{\"a\": 1}\n".to_owned(), &[], "pairs.jsonl:1: this is no example"),
        (pairs(9, 10), &["--provider", "up"], "--model"),
        (pairs(9, 10), &["--provider", "up", "--model", "e"], "throughline.toml"),
    ] {
        let finished = learn(&text, args).await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains(why), "{why}: {finished:?}");
    }
    let wrong: String = (pairs(400, 1000).lines().enumerate())
        .map(|(n, line)| if n % 2 == 0 { line.replace("true", "false") } else { line.to_owned() } + "\n")
        .collect();
    let finished = learn(&wrong, &["--max-error", "2%"]).await;
    assert!(finished.stderr.contains("no threshold keeps errors at most 2%"), "{finished:?}");
}

#[tokio::test]
async fn a_provider_says_what_is_alike_when_it_is_asked_to() {
    let (upstream, asked) = embedder(|_| answer("500 Internal Server Error", "", "{}")).await;
    let text = config(&upstream, "", "");
    let args = ["--provider", "up", "--model", "text-embedding-3-small"];
    let run = async |text: &str| {
        let launch = Launch::new(&[&["cache", "learn", "pairs.jsonl"], &args[..]].concat());
        launch.file("throughline.toml", text).file("pairs.jsonl", &pairs(400, 10)).finish().await
    };
    let finished = run(&text).await;
    assert_eq!((finished.code, asked.load(Ordering::Relaxed)), (Some(1), 1), "{finished:?}");
    assert!(finished.stderr.contains("embedding failed: the provider answered 500"), "{finished:?}");

    let many = Upstream::start(|seen| {
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        let texts = body["input"].as_array().unwrap().iter().enumerate();
        let items = texts.map(|(at, text)| {
            let train = text.as_str().unwrap().contains("train");
            json!({"index": at, "embedding": if train { [1, 0] } else { [0, 1] }})
        });
        answer(
            "200 OK",
            "",
            &json!({"data": items.collect::<Vec<_>>(), "usage": {"prompt_tokens": 50}}).to_string(),
        )
    })
    .await;
    let finished = run(&config(&many, "", "")).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let line = finished.stdout.lines().find(|line| line.contains("semantic = {")).unwrap().trim();
    assert!(line.contains("learned = \"text-embedding-3-small\""), "{line}");
    let text = config(&many, "", "").replace("semantic = {  }", line);
    let checked = Launch::new(&["check", "throughline.toml"]).file("throughline.toml", &text).finish().await;
    assert_eq!(checked.code, Some(0), "{text}\n{checked:?}");
    assert!(finished.stdout.contains("it has cost $0.000012"), "{}", finished.stdout);
}
