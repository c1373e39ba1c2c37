//! `throughline cache` and the store in a file, with the real program: looked into, purged, killed, locked, full.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../../throughline/tests/redis/server.rs"]
mod server;

use std::path::Path;

use process::upstream::answer;
use process::{Finished, Gateway, Launch, Upstream, chat, until};
use rustix::process::Signal;
use serde_json::Value;
use server::Server;
use tempfile::TempDir;

const COMPLETION: &str =
    r#"{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":1000,"completion_tokens":100}}"#;
const OUTCOMES: &str = "cache_outcomes_total";

async fn provider() -> Upstream {
    Upstream::start(|_| answer("200 OK", "", COMPLETION)).await
}

/// Two models with their answers in the store `kept`, which is written as `store`.
fn config(upstream: &Upstream, store: &str) -> String {
    let model = |name: &str| {
        format!(
            "[models.{name}]\ncache = {{ ttl = \"1h\", store = \"kept\" }}\n[models.{name}.routes.only]\n\
             provider = \"up\"\nmodel = \"gpt-4o-mini\"\n"
        )
    };
    format!(
        "[server]\ntenant_header = \"x-team\"\n{store}deadline = \"5s\"\n[providers.up.openai]\n\
         base_url = \"http://{}/v1\"\n{}{}",
        upstream.address,
        model("auto"),
        model("fast")
    )
}

fn disk(path: &Path) -> String {
    format!("[stores.kept.disk]\npath = \"{}\"\nmax_bytes = \"16MiB\"\n", path.display())
}

fn redis(server: &Server) -> String {
    format!("[stores.kept.redis]\nurl = \"{}\"\n", server.url())
}

async fn asks(gateway: &Gateway, model: &str, team: &str, prompt: &str) {
    let answer = gateway.ask_with(&[("x-team", team)], chat(model, prompt)).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "Hi"), "{answer:?}");
}

async fn outcome(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(OUTCOMES, &[("outcome", outcome)]).await
}

/// Waits until answers come from the store: a file is opened in the background.
async fn works(gateway: &Gateway) {
    until("answers from the store", async || {
        let before = outcome(gateway, "hit").await;
        asks(gateway, "fast", "probe", "does it work?").await;
        (outcome(gateway, "hit").await > before).then_some(())
    })
    .await;
}

async fn cache(config: &str, args: &[&str]) -> Finished {
    Launch::new(&[&["cache"], args].concat()).file("throughline.toml", config).finish().await
}

/// The JSON that a command prints.
async fn json(config: &str, args: &[&str]) -> Value {
    let finished = cache(config, &[args, &["--json"]].concat()).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

async fn entries(config: &str) -> Value {
    json(config, &["stats"]).await["stores"][0]["entries"].take()
}

/// Six answers: three prompts of two teams in one model, and the probe in the other.
async fn fill(gateway: &Gateway) {
    works(gateway).await;
    for team in ["red", "blue"] {
        for prompt in ["one", "two", "three"] {
            asks(gateway, "auto", team, prompt).await;
        }
    }
}

/// What every kind of store does with every command.
async fn looked_after(config: &str) {
    let stats = json(config, &["stats", "--tenant", "red", "--tenant", "probe"]).await;
    let store = &stats["stores"][0];
    assert_eq!((&store["entries"], &store["unreadable"]), (&7.into(), &0.into()), "{stats}");
    assert_eq!(
        (&store["models"]["auto"]["entries"], &store["models"]["fast"]["entries"]),
        (&6.into(), &1.into())
    );
    assert_eq!(
        (&store["tenants"]["red"]["entries"], &store["tenants"]["probe"]["entries"]),
        (&3.into(), &1.into())
    );

    let dry = json(config, &["purge", "--tenant", "red", "--dry-run"]).await;
    assert_eq!((&dry["stores"][0]["entries"], &dry["dry_run"]), (&3.into(), &true.into()), "{dry}");
    assert_eq!(entries(config).await, 7);
    let none = json(config, &["purge", "--tenant", "red", "--model", "fast"]).await;
    assert_eq!((&none["stores"][0]["entries"], &none["stores"][0]["scanned"]), (&0.into(), &7.into()));
    let marks = stats["stores"][0]["tenants"].as_object().unwrap();
    let blue = marks.keys().find(|name| name.starts_with('#')).expect("it was not named");
    let by_mark = json(config, &["purge", "--tenant", blue, "--dry-run"]).await;
    assert_eq!(by_mark["stores"][0]["entries"], 3, "{by_mark}");
    let purged = cache(config, &["purge", "--tenant", "red"]).await;
    assert!(purged.stdout.starts_with("store kept: 3 of 7 entries removed, "), "{purged:?}");
    assert_eq!(entries(config).await, 4);
    assert_eq!(json(config, &["purge", "--model", "fast"]).await["stores"][0]["entries"], 1);

    let missing = cache(config, &["get", "0123456789abcdef"]).await;
    assert_eq!(
        (missing.code, missing.stderr.contains("nothing is stored under 0123456789abcdef")),
        (Some(1), true)
    );
    let unknown = cache(config, &["stats", "--store", "kelt"]).await;
    assert_eq!(unknown.code, Some(2));
    assert!(
        unknown.stderr.contains("unknown store `kelt`, did you mean `kept`? (configured: kept)"),
        "{unknown:?}"
    );

    let asked = cache(config, &["flush"]).await;
    assert_eq!(asked.code, Some(2));
    assert!(asked.stderr.contains("everything in kept would be removed: say --yes"), "{asked:?}");
    assert_eq!(json(config, &["flush", "--dry-run"]).await["stores"][0]["entries"], 3);
    assert_eq!(json(config, &["flush", "--yes"]).await["stores"][0]["entries"], 3);
    assert_eq!(entries(config).await, 0);
}

#[tokio::test]
async fn a_file_is_looked_into_and_purged_once_its_gateway_has_stopped() {
    let (folder, upstream) = (TempDir::new().unwrap(), provider().await);
    let config = config(&upstream, &disk(&folder.path().join("answers.cache")));
    let gateway = Launch::serve(&config).start().await;
    fill(&gateway).await;
    let locked = cache(&config, &["purge", "--tenant", "red"]).await;
    assert_eq!(locked.code, Some(1));
    assert!(
        locked.stderr.contains("stop the gateway that has it, and start it again afterwards"),
        "{locked:?}"
    );
    gateway.stop().await;
    looked_after(&config).await;
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_server_is_looked_into_and_purged_while_a_gateway_uses_it() {
    let (server, upstream) = (Server::start(&[]).await, provider().await);
    let config = config(&upstream, &redis(&server));
    let gateway = Launch::serve(&config).start().await;
    fill(&gateway).await;
    let before = upstream.seen().len();
    asks(&gateway, "auto", "red", "one").await;
    assert_eq!(upstream.seen().len(), before, "it is cached");
    looked_after(&config).await;
    asks(&gateway, "auto", "red", "one").await;
    assert_eq!(upstream.seen().len(), before + 1, "it was purged");
}

#[tokio::test]
async fn a_stored_answer_is_shown_by_its_key_or_the_beginning_of_it() {
    let (folder, upstream) = (TempDir::new().unwrap(), provider().await);
    let path = folder.path().join("answers.cache");
    let config = config(&upstream, &disk(&path));
    let gateway = Launch::serve(&config).start().await;
    works(&gateway).await;
    gateway.stop().await;
    let dry = json(&config, &["purge", "--model", "fast", "--dry-run"]).await;
    let key = dry["stores"][0]["keys"][0].as_str().unwrap().to_owned();
    for named in [&key[..], &key[..8]] {
        let shown = json(&config, &["get", named]).await;
        assert_eq!((&shown[0]["key"], &shown[0]["model"]), (&key.as_str().into(), &"fast".into()), "{shown}");
        assert_eq!(shown[0]["answered_by"], "gpt-4o-mini");
    }
    let value = cache(&config, &["get", &key, "--value"]).await;
    assert_eq!(value.stdout, COMPLETION);
    assert_eq!(json(&config, &["purge", "--key", &key]).await["stores"][0]["entries"], 1);
}

#[tokio::test]
async fn what_was_written_before_a_kill_is_there_after_it() {
    let (folder, upstream) = (TempDir::new().unwrap(), provider().await);
    let config = config(&upstream, &disk(&folder.path().join("answers.cache")));
    for round in 0..4 {
        let gateway = Launch::serve(&config).start().await;
        works(&gateway).await;
        if round > 0 {
            let before = upstream.seen().len();
            asks(&gateway, "auto", "red", &format!("kept of round {}", round - 1)).await;
            assert_eq!(upstream.seen().len(), before, "round {round}: it survived the kill");
        }
        asks(&gateway, "auto", "red", &format!("kept of round {round}")).await;
        // Others are being written as it dies.
        let load = async {
            let client = process::client::client();
            for n in 0.. {
                let body = chat("auto", &format!("round {round}, dying, {n}"));
                if client.request(gateway.chat_request(&[], &body)).await.is_err() {
                    break;
                }
            }
        };
        let kill = async {
            // Many times what a write waits for others.
            tokio::time::sleep(std::time::Duration::from_millis(700)).await;
            gateway.signal(Signal::KILL);
        };
        tokio::join!(load, kill);
    }
    let stats = json(&config, &["stats"]).await;
    assert_eq!(stats["stores"][0]["unreadable"], 0);
    assert!(stats["stores"][0]["entries"].as_u64().unwrap() > 4, "{stats}");
}

#[tokio::test]
async fn a_second_gateway_goes_past_the_file_and_takes_it_over() {
    let (folder, upstream) = (TempDir::new().unwrap(), provider().await);
    let config = config(&upstream, &disk(&folder.path().join("answers.cache")));
    let first = Launch::serve(&config).start().await;
    works(&first).await;
    let second = Launch::serve(&config).start().await;
    for n in 0..10 {
        asks(&second, "auto", "red", &format!("prompt {n}")).await;
    }
    assert_eq!(outcome(&second, "hit").await, 0.0);
    let reason = until("the reason in health", async || {
        let ready = second.send(http::Method::GET, "/readyz", "").await;
        assert_eq!(ready.status, 200);
        let degraded = ready.json()["degraded"].take();
        let store = degraded.as_array()?.iter().find(|part| part.to_string().contains("store:kept"))?.clone();
        Some(store.to_string())
    })
    .await;
    assert!(reason.contains("another process has"), "{reason}");
    first.stop().await;
    works(&second).await;
}

#[tokio::test]
async fn a_file_that_may_not_grow_costs_no_request() {
    let (folder, upstream) = (TempDir::new().unwrap(), provider().await);
    let path = folder.path().join("answers.cache");
    let config = config(&upstream, &disk(&path));
    // As a full disk does, the system refuses to write beyond this.
    let gateway = Launch::serve(&config).with_largest_file(256 << 10).start().await;
    let mut asked = 0;
    until("the store is said to fail", async || {
        for n in asked..asked + 100 {
            asks(&gateway, "auto", "red", &format!("question {n}")).await;
        }
        asked += 100;
        let ready = gateway.send(http::Method::GET, "/readyz", "").await.json();
        ready["degraded"].to_string().contains("store:kept").then_some(())
    })
    .await;
}
