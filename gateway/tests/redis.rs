//! Gateways that keep answers in a real redis-server: shared, and gone on without it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../../throughline/tests/redis/server.rs"]
mod server;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use process::upstream::answer;
use process::{Gateway, Launch, Step, Upstream, chat, until};
use rustix::process::Signal;
use serde_json::Value;
use server::{Server, free_address};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const COMPLETION: &str =
    r#"{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":1000,"completion_tokens":100}}"#;
const OUTCOMES: &str = "cache_outcomes_total";

/// A deadline that a good answer keeps on a busy machine as well.
const STORE: &str = "deadline = \"150ms\"";

async fn provider() -> Upstream {
    Upstream::start(|_| answer("200 OK", "", COMPLETION)).await
}

/// A model `auto` of the provider's `gpt-4o-mini`, with its answers in the store at `url`.
fn config(upstream: &Upstream, url: &str, cache: &str) -> String {
    format!(
        "[stores.shared.redis]\nurl = \"{url}\"\n{STORE}\n[providers.up.openai]\nbase_url = \"http://{}/v1\"\n\
         [models.auto]\ncache = {{ ttl = \"1h\", store = \"shared\"{cache} }}\n\
         [models.auto.routes.cheap]\nprovider = \"up\"\nmodel = \"gpt-4o-mini\"\n",
        upstream.address
    )
}

async fn asks(gateway: &Gateway, prompt: &str) {
    let answer = gateway.ask(chat("auto", prompt)).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "Hi"), "{answer:?}");
}

async fn outcome(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(OUTCOMES, &[("outcome", outcome)]).await
}

/// Waits until so many answers are in the store: no request waits for that.
async fn stores(gateway: &Gateway, count: f64) {
    let labels = [("primitive", "cache"), ("event", "stored")];
    gateway.settles("throughline_primitive_events_total", &labels, count).await;
}

async fn degraded(gateway: &Gateway) -> Value {
    let ready = gateway.send(Method::GET, "/readyz", "").await;
    assert_eq!(ready.status, 200, "a store that is down is no reason to take no requests");
    ready.json()["degraded"].take()
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn two_gateways_share_answers_and_a_restart_keeps_them() {
    let (server, upstream) = (Server::start(&[]).await, provider().await);
    let config = config(&upstream, &server.url(), "");
    let (one, other) = (Launch::serve(&config).start().await, Launch::serve(&config).start().await);
    asks(&one, "hello").await;
    stores(&one, 1.0).await;
    asks(&other, "hello").await;
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!((outcome(&one, "miss").await, outcome(&other, "hit").await), (1.0, 1.0));
    other.stop().await;
    let again = Launch::serve(&config).start().await;
    asks(&again, "hello").await;
    assert_eq!(upstream.seen().len(), 1);

    let another = config.replace("gpt-4o-mini", "gpt-4o");
    let another = Launch::serve(&another).start().await;
    asks(&another, "hello").await;
    assert_eq!(upstream.seen().len(), 2, "another model behind the same name is asked itself");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_store_that_goes_and_comes_is_seen_and_costs_no_request() {
    let (address, upstream) = (free_address(), provider().await);
    let gateway = Launch::serve(&config(&upstream, &format!("redis://{address}"), "")).start().await;
    for n in 0..20 {
        asks(&gateway, &format!("prompt {n}")).await;
    }
    assert_eq!((outcome(&gateway, "error").await, outcome(&gateway, "bypass").await), (5.0, 15.0));
    assert_eq!(gateway.metric("cache_store_up", &[("store", "shared")]).await, 0.0);
    let parts = degraded(&gateway).await;
    assert_eq!(parts[0]["part"], "store:shared", "{parts}");
    assert_eq!(parts[0]["reason"], "redis refused the connection", "{parts}");
    assert!(parts[0]["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{parts}");

    let mut server = Server::start_at(address, &[]).await;
    let well = async || degraded(&gateway).await.as_array()?.is_empty().then_some(());
    until("the store to be found again without any request", well).await;
    assert_eq!(gateway.metric("cache_store_up", &[("store", "shared")]).await, 1.0);
    asks(&gateway, "hello").await;
    asks(&gateway, "hello").await;
    assert_eq!((outcome(&gateway, "miss").await, outcome(&gateway, "hit").await), (1.0, 1.0));

    server.kill().await;
    for _ in 0..20 {
        asks(&gateway, "hello").await;
    }
    assert_eq!((outcome(&gateway, "error").await, outcome(&gateway, "bypass").await), (10.0, 30.0));
    server.restart().await;
    until("the store to be found again", well).await;
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn memory_in_front_of_a_store_goes_on_without_it() {
    let (server, upstream) = (Server::start(&[]).await, provider().await);
    let config = config(&upstream, &server.url(), ", max_bytes = \"1MiB\"");
    let gateway = Launch::serve(&config).start().await;
    asks(&gateway, "before").await;
    server.freeze();
    for prompt in ["before", "after", "after"] {
        asks(&gateway, prompt).await;
    }
    assert_eq!((outcome(&gateway, "miss").await, outcome(&gateway, "hit").await), (2.0, 2.0));
    assert_eq!(upstream.seen().len(), 2);
    server.thaw();

    let other = Launch::serve(&config).start().await;
    asks(&other, "before").await;
    assert_eq!(outcome(&other, "hit").await, 1.0, "what stands in the store is found by others");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_purge_reaches_the_memory_of_every_gateway() {
    let (server, upstream) = (Server::start(&[]).await, provider().await);
    let config = config(&upstream, &server.url(), ", max_bytes = \"1MiB\"");
    let (one, other) = (Launch::serve(&config).start().await, Launch::serve(&config).start().await);
    asks(&one, "hello").await;
    stores(&one, 1.0).await;
    asks(&other, "hello").await;
    for (gateway, calls) in [(&one, 2), (&other, 3)] {
        let purge = Launch::new(&["cache", "purge", "--model", "auto"]).file("throughline.toml", &config);
        let purged = purge.finish().await;
        assert!(purged.stdout.starts_with("store shared: 1 of 1 entries removed"), "{purged:?}");
        until("the answer is made again", async || {
            asks(gateway, "hello").await;
            (upstream.seen().len() == calls).then_some(())
        })
        .await;
        // The other one has it from the store, or it would ask.
        until("it is stored", async || {
            let stats = Launch::new(&["cache", "stats", "--json"]).file("throughline.toml", &config).finish();
            let stats: Value = serde_json::from_str(&stats.await.stdout).unwrap();
            (stats["stores"][0]["entries"] == 1).then_some(())
        })
        .await;
        asks(&one, "hello").await;
        asks(&other, "hello").await;
        assert_eq!(upstream.seen().len(), calls);
    }
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_gateway_that_is_stopped_stores_what_it_has_answered() {
    let (server, upstream) = (Server::start(&[]).await, provider().await);
    let config = config(&upstream, &server.url(), "").replace(STORE, "deadline = \"10s\"");
    let (one, other) = (Launch::serve(&config).start().await, Launch::serve(&config).start().await);
    asks(&one, "before").await;
    stores(&one, 1.0).await;
    asks(&one, "hello").await;
    one.stop().await;
    asks(&other, "hello").await;
    assert_eq!((upstream.seen().len(), outcome(&other, "hit").await), (2, 1.0));
}

/// Three gateways of which one asks the provider for all, if the store keeps a deadline that even a busy machine does.
async fn gateways_with_a_lock(upstream: &Upstream, server: &Server) -> (String, Vec<Arc<Gateway>>) {
    let config = config(upstream, &server.url(), "");
    let config = config.replace(STORE, "deadline = \"10s\"\nlock = true\nlock_lease = \"1s\"");
    let mut gateways = Vec::new();
    for _ in 0..3 {
        let gateway = Launch::serve(&config).start().await;
        // It has a connection to the store.
        asks(&gateway, "before").await;
        gateways.push(Arc::new(gateway));
    }
    (config, gateways)
}

/// A provider that answers a question when there is a permit for it, and "before" at once.
async fn provider_that_waits() -> (Upstream, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&permits);
    let upstream = Upstream::start(move |seen| {
        let mut steps = answer("200 OK", "", COMPLETION);
        if !String::from_utf8_lossy(&seen.body).contains("before") {
            steps.insert(0, Step::Wait(Arc::clone(&wait)));
        }
        steps
    });
    (upstream.await, permits)
}

/// So many requests, each of which ends whatever becomes of its gateway.
fn ask_often(gateway: &Arc<Gateway>, prompt: &str, count: usize) -> Vec<JoinHandle<()>> {
    let ask = || {
        let (gateway, prompt) = (Arc::clone(gateway), prompt.to_owned());
        tokio::spawn(async move { asks(&gateway, &prompt).await })
    };
    std::iter::repeat_with(ask).take(count).collect()
}

async fn all_are_answered(asked: Vec<JoinHandle<()>>) {
    for answered in asked {
        answered.await.expect("it is answered");
    }
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_thousand_misses_at_once_in_three_gateways_ask_the_provider_once() {
    let (server, (upstream, permits)) = (Server::start(&[]).await, provider_that_waits().await);
    let (_, gateways) = gateways_with_a_lock(&upstream, &server).await;
    assert_eq!(upstream.seen().len(), 1, "\"before\" is shared as well");
    let asked: Vec<_> = [334, 333, 333]
        .into_iter()
        .zip(&gateways)
        .flat_map(|(count, gateway)| ask_often(gateway, "hello", count))
        .collect();
    for (gateway, count) in gateways.iter().zip([334.0, 333.0, 333.0]) {
        gateway.settles("gateway_in_flight_requests", &[], count).await;
    }
    permits.add_permits(1_000);
    all_are_answered(asked).await;
    assert_eq!(upstream.seen().len(), 2);
    let mut coalesced = 0.0;
    for gateway in &gateways {
        coalesced += outcome(gateway, "coalesced").await;
    }
    assert_eq!(coalesced, 999.0);
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_gateway_that_is_killed_while_others_wait_for_it_is_replaced_by_one_of_them() {
    let (server, (upstream, permits)) = (Server::start(&[]).await, provider_that_waits().await);
    let (_, gateways) = gateways_with_a_lock(&upstream, &server).await;
    let lost = ask_often(&gateways[0], "hello", 5);
    upstream.sees(2).await;
    let asked: Vec<_> = gateways[1..].iter().flat_map(|gateway| ask_often(gateway, "hello", 20)).collect();
    for gateway in &gateways[1..] {
        gateway.settles("gateway_in_flight_requests", &[], 20.0).await;
    }
    gateways[0].signal(Signal::KILL);
    upstream.sees(3).await;
    permits.add_permits(100);
    all_are_answered(asked).await;
    assert_eq!(upstream.seen().len(), 3, "one has taken over");
    lost.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_gateway_that_is_killed_at_any_time_leaves_nobody_without_an_answer() {
    let (server, (upstream, permits)) = (Server::start(&[]).await, provider_that_waits().await);
    let (config, mut gateways) = gateways_with_a_lock(&upstream, &server).await;
    let generating = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(30)).await;
            permits.add_permits(1);
        }
    });
    for delay in [0, 3, 10, 25, 40, 60] {
        let prompt = format!("hello after {delay}");
        let lost = ask_often(&gateways[0], &prompt, 20);
        let asked: Vec<_> =
            gateways[1..].iter().flat_map(|gateway| ask_often(gateway, &prompt, 20)).collect();
        tokio::time::sleep(Duration::from_millis(delay)).await;
        gateways[0].signal(Signal::KILL);
        all_are_answered(asked).await;
        lost.iter().for_each(JoinHandle::abort);
        gateways[0] = Arc::new(Launch::serve(&config).start().await);
    }
    generating.abort();
}

#[tokio::test]
async fn check_shows_where_answers_are_kept_and_no_password() {
    let word = ["open", "sesame"].join("-");
    let store = "[stores.shared.redis]\nurl = \"rediss://cache:7000/2\"\npassword = \"env:WORD\"\n";
    let config = process::prompt_config(store);
    let config = format!("{config}[models.auto]\ncache = {{ ttl = \"1m\", store = \"shared\" }}\n");
    let checked = Launch::new(&["check", "t.toml"]).file("t.toml", &config).env("WORD", &word).finish().await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let shown = "store shared: rediss://cache:7000/2, keys throughline:*\n  keeps answers of auto\n";
    assert!(checked.stdout.contains(shown), "{}", checked.stdout);
    assert!(!format!("{checked:?}").contains(&word));
}
