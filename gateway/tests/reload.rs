//! The configuration is read anew while requests are under way.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use http::Method;
use http_body_util::BodyExt as _;
use process::client::get;
use process::upstream::{Step, answer, piece, stream_end, stream_head};
use process::{Gateway, Launch, Upstream, chat, until};
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Every line counts here, also one that says what others have said.
const ALL_LINES: &str = "[log]\nmax_repeats = 1000000\n";

const READ: &str = "config_last_reload_success_timestamp_seconds";
const GOOD: &str = "config_last_reload_successful";

/// A model `auto` whose answers all say `word`.
fn saying(word: &str) -> String {
    format!(
        "[providers.sim.simulated]\nlatency = {{ p50 = \"1ms\", p99 = \"2ms\" }}\nanswers = [\"{word}\"]\n\
         [models.auto.routes.only]\nprovider = \"sim\"\nmodel = \"gpt-4o-mini\"\n"
    )
}

#[expect(clippy::disallowed_methods, reason = "it is compared with a date on the page")]
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// How often the configuration was read anew, by the log.
fn reloads(gateway: &Gateway) -> usize {
    gateway.log().matches("the configuration was read anew").count()
}

/// Gives it another configuration and waits until it is served.
async fn reconfigure(gateway: &Gateway, config: &str) {
    let before = reloads(gateway);
    gateway.reconfigure(config);
    until("the configuration to be served", async || (reloads(gateway) > before).then_some(())).await;
}

async fn cache_outcome(gateway: &Gateway) -> String {
    gateway.ask(chat("auto", "the same")).await.header("x-throughline-cache").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_or_mixed_up_while_the_configuration_is_read_anew_again_and_again() {
    let gateway = Arc::new(Launch::serve(&(ALL_LINES.to_owned() + &saying("zero"))).start().await);
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (gateway, stop, asked) = (Arc::clone(&gateway), Arc::clone(&stop), Arc::clone(&asked));
        clients.spawn(async move {
            let mut said = BTreeSet::new();
            while !stop.load(Ordering::SeqCst) {
                let answer = gateway.ask(chat("auto", "hi")).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                said.insert(answer.text());
                asked.fetch_add(1, Ordering::SeqCst);
            }
            said
        });
    }
    for turn in 0..30 {
        let seen = asked.load(Ordering::SeqCst);
        reconfigure(&gateway, &saying(if turn % 2 == 0 { "one" } else { "two" })).await;
        let answer = gateway.ask(chat("auto", "now")).await;
        assert_eq!(answer.text(), if turn % 2 == 0 { "one" } else { "two" }, "it is served at once");
        until("requests meanwhile", async || (asked.load(Ordering::SeqCst) > seen + 8).then_some(())).await;
    }
    stop.store(true, Ordering::SeqCst);
    let said: BTreeSet<_> = clients.join_all().await.into_iter().flatten().collect();
    assert!(said.iter().all(|text| ["zero", "one", "two"].contains(&text.as_str())), "{said:?}");
    assert!(said.contains("one") && said.contains("two"), "{said:?}");
    let page = gateway.scrape().await;
    let answered = page.sum("gateway_requests_total", &[]).unwrap();
    assert_eq!(answered, (asked.load(Ordering::SeqCst) + 30) as f64, "every one is counted once");
    assert_eq!(page.sum("gateway_requests_total", &[("code", "200")]), Some(answered));
    assert_eq!(page.sum("throughline_primitive_in_flight", &[]), Some(0.0));
}

#[tokio::test]
async fn a_file_with_a_mistake_changes_nothing_and_is_shown_until_a_good_one_comes() {
    let gateway = Launch::serve(&saying("old")).start().await;
    let started = gateway.metric(READ, &[]).await;
    let now = now();
    assert!((now - 60.0..=now).contains(&started), "{started}");
    assert_eq!(gateway.metric(GOOD, &[]).await, 1.0);

    let bad = saying("new").replace("provider = \"sim\"", "provider = \"smi\"");
    gateway.reconfigure(&bad);
    gateway.settles(GOOD, &[], 0.0).await;
    let answer = gateway.ask(chat("auto", "hi")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "old"));
    let health = async || gateway.send(Method::GET, "/readyz", "").await;
    let first = health().await;
    assert_eq!((first.status, &first.json()["status"]), (200, &json!("degraded")));
    let part = first.json()["degraded"][0].clone();
    assert_eq!(part["part"], "configuration");
    assert_eq!(
        part["reason"],
        "throughline.toml:5:12: unknown provider `smi`, did you mean `sim`? (configured: sim)"
    );
    assert!(humantime::parse_rfc3339(part["since"].as_str().unwrap()).is_ok(), "{part}");
    gateway
        .says("the configuration is not applied, the one before it is still served: throughline.toml:5:12")
        .await;

    gateway.reconfigure("[models.auto\n");
    let another = async || {
        let now = health().await.json()["degraded"][0].clone();
        (now["reason"] != part["reason"]).then_some(now)
    };
    let second = until("the other mistake", another).await;
    assert_eq!(second["since"], part["since"], "it has not been good in between");
    assert_eq!(gateway.metric(READ, &[]).await, started, "what is served was read at the start");

    reconfigure(&gateway, &saying("new")).await;
    assert_eq!(gateway.ask(chat("auto", "hi")).await.text(), "new");
    assert_eq!(gateway.metric(GOOD, &[]).await, 1.0);
    assert!(gateway.metric(READ, &[]).await >= started);
    assert_eq!(health().await.json(), json!({ "status": "ready", "degraded": [] }));
}

#[tokio::test]
async fn a_file_that_is_gone_is_a_mistake_when_it_is_asked_for_and_nothing_else_is_served_in_its_place() {
    let gateway = Launch::serve(&saying("old")).start().await;
    gateway.remove("throughline.toml");
    gateway.signal(Signal::HUP);
    gateway.says("throughline.toml: cannot read the configuration: there is no such file").await;
    assert_eq!(gateway.ask(chat("auto", "hi")).await.text(), "old");
}

#[tokio::test]
async fn a_stream_under_way_ends_by_the_configuration_that_it_began_with() {
    let permits = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&permits);
    let upstream = Upstream::start(move |_| {
        let event = |text: &str| {
            piece(&format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"))
        };
        let wait = Step::Wait(Arc::clone(&gate));
        vec![stream_head(), event("first"), wait, event("last"), piece("data: [DONE]\n\n"), stream_end()]
    })
    .await;
    let gateway = Launch::serve(&upstream.config()).env("UPSTREAM_KEY", "sk-1").start().await;
    let mut body = chat("auto", "hi");
    body["stream"] = true.into();
    let mut stream = gateway.open(&body).await.into_body();
    let first = stream.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("first"));
    // Neither its provider nor its model is there any more.
    reconfigure(&gateway, &saying("new").replace("models.auto", "models.other")).await;
    assert_eq!(gateway.ask(chat("auto", "hi")).await.status, 404);
    assert_eq!(gateway.ask(chat("other", "hi")).await.text(), "new");
    permits.add_permits(1);
    let rest = stream.collect().await.unwrap().to_bytes();
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("last") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
    let page = gateway.scrape().await;
    assert_eq!(page.sum("gateway_requests_total", &[("code", "200")]), Some(2.0));
    assert_eq!(page.sum("throughline_primitive_in_flight", &[]), Some(0.0));
}

/// A model that keeps its answers in memory.
fn caching(more: &str, timeout: &str, upstream_model: &str) -> String {
    format!(
        "{more}\n[providers.sim.simulated]\nlatency = {{ p50 = \"1ms\", p99 = \"2ms\" }}\n\
         [models.auto]\ncache = {{ ttl = \"1h\" }}\ntimeout = {{ limit = \"{timeout}\" }}\n\
         [models.auto.routes.only]\nprovider = \"sim\"\nmodel = \"{upstream_model}\"\n"
    )
}

#[tokio::test]
async fn answers_in_memory_are_kept_unless_they_would_be_other_answers() {
    let gateway = Launch::serve(&caching("", "1m", "small")).start().await;
    assert_eq!(cache_outcome(&gateway).await, "miss");
    assert_eq!(cache_outcome(&gateway).await, "hit");
    reconfigure(&gateway, &caching("", "1m", "small")).await;
    assert_eq!(cache_outcome(&gateway).await, "hit", "nothing has changed");
    let other = "[models.other.routes.only]\nprovider = \"sim\"\nmodel = \"small\"\n";
    reconfigure(&gateway, &caching(other, "1m", "small")).await;
    assert_eq!(cache_outcome(&gateway).await, "hit", "another model was added");
    reconfigure(&gateway, &caching("", "2m", "small")).await;
    assert_eq!(cache_outcome(&gateway).await, "hit", "the model has changed, its answers have not");
    reconfigure(&gateway, &caching("", "2m", "large")).await;
    assert_eq!(cache_outcome(&gateway).await, "miss", "another model answers");
    reconfigure(&gateway, &caching("", "2m", "small")).await;
    assert_eq!(cache_outcome(&gateway).await, "hit", "the first one is back");
    let smaller = caching("", "2m", "small").replace("ttl = \"1h\"", "ttl = \"1h\", max_bytes = \"63MiB\"");
    reconfigure(&gateway, &smaller).await;
    assert_eq!(cache_outcome(&gateway).await, "miss", "a memory of another size begins empty");
}

#[tokio::test]
async fn the_circuit_of_a_model_that_has_not_changed_stays_as_it_is() {
    let upstream = Upstream::start(|_| answer("500 Broken", "", "{}")).await;
    let config = |more: &str, min_calls: u32| {
        let breaker = format!("circuit_breaker = {{ min_calls = {min_calls}, open_for = \"1h\" }}");
        format!("{}{breaker}\n{more}", upstream.config())
    };
    let gateway = Launch::serve(&config("", 2)).env("UPSTREAM_KEY", "sk-1").start().await;
    for _ in 0..3 {
        gateway.ask(chat("auto", "hi")).await;
    }
    let open = [("circuit", "auto/only"), ("state", "open")];
    assert_eq!(gateway.metric("circuit_breaker_state", &open).await, 1.0);
    assert_eq!(upstream.seen().len(), 2);
    reconfigure(&gateway, &config("[models.b.routes.r]\nprovider = \"up\"\nmodel = \"b\"\n", 2)).await;
    assert_eq!(gateway.metric("circuit_breaker_state", &open).await, 1.0);
    assert_eq!(gateway.ask(chat("auto", "hi")).await.status, 503);
    assert_eq!(upstream.seen().len(), 2, "it is still left alone");
    reconfigure(&gateway, &config("", 3)).await;
    assert_eq!(gateway.metric("circuit_breaker_state", &open).await, 0.0);
    gateway.ask(chat("auto", "hi")).await;
    assert_eq!(upstream.seen().len(), 3, "a circuit that was configured anew begins closed");
}

#[tokio::test]
async fn a_secret_in_a_file_is_read_anew() {
    let upstream = Upstream::start(|_| answer("200 OK", "", r#"{"choices":[]}"#)).await;
    let config = upstream.config().replace("env:UPSTREAM_KEY", "file:key");
    let gateway = Launch::serve(&config).file("key", "sk-old").start().await;
    gateway.ask(chat("auto", "hi")).await;
    gateway.replace("key", "sk-new");
    reconfigure(&gateway, &config).await;
    gateway.ask(chat("auto", "hi")).await;
    let sent: Vec<_> = upstream.seen().into_iter().map(|seen| seen.head).collect();
    assert!(sent[0].contains("Bearer sk-old") && sent[1].contains("Bearer sk-new"), "{sent:?}");
}

#[tokio::test]
async fn what_takes_effect_at_the_next_start_only_is_said() {
    let gateway = Launch::serve(&saying("old")).start().await;
    let tables = "[server]\nmax_connections = 7\nmax_body = \"1KiB\"\n[log]\nlevel = \"warn\"\n\
                  [telemetry]\nservice_name = \"x\"\n";
    reconfigure(&gateway, &format!("{tables}{}", saying("new"))).await;
    gateway.says("a part of the configuration takes effect at the next start only").await;
    gateway.says("server.max_connections, [telemetry], [log]").await;
    assert_eq!(gateway.ask(chat("auto", "hi")).await.text(), "new");
    assert_eq!(gateway.ask(chat("auto", &"x".repeat(2000))).await.status, 413, "this one is applied");
    assert_eq!(gateway.metric("build_info", &[("service", "throughline")]).await, 1.0);
}

#[tokio::test]
async fn a_file_that_has_changed_is_found_without_a_signal() {
    let gateway = Launch::serve(&saying("old")).start().await;
    gateway.replace("throughline.toml", &saying("new"));
    until("the change to be found", async || (reloads(&gateway) > 0).then_some(())).await;
    assert_eq!(gateway.ask(chat("auto", "hi")).await.text(), "new");
}

#[tokio::test]
async fn the_configuration_is_read_anew_also_where_nothing_is_observed() {
    let gateway = Launch::serve(&saying("old")).env("ENABLE_OBSERVABILITY", "false").start().await;
    reconfigure(&gateway, &saying("new")).await;
    assert_eq!(gateway.ask(chat("auto", "hi")).await.text(), "new");
    gateway.reconfigure("models = 1");
    gateway.says("the configuration is not applied").await;
    assert_eq!(gateway.ask(chat("auto", "hi")).await.text(), "new");
}

/// Threads, open files and resident KiB of a process, and the series on its page.
async fn held(gateway: &Gateway) -> (usize, usize, u64, usize) {
    let directory =
        |name: &str| std::fs::read_dir(format!("/proc/{}/{name}", gateway.pid())).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    let page = get(gateway.metrics.unwrap(), "/metrics").await;
    let series = String::from_utf8_lossy(&page.body).lines().filter(|line| !line.starts_with('#')).count();
    (directory("task"), directory("fd"), resident, series)
}

#[tokio::test]
async fn a_hundred_changes_of_the_configuration_leave_nothing_behind() {
    let upstream = Upstream::start(|_| answer("200 OK", "", r#"{"choices":[]}"#)).await;
    // Every turn makes each part anew: a client with a connection, a memory, a store, a model and its circuit.
    let config = |turn: usize| {
        let limits = format!(
            "[models.auto]\ncache = {{ ttl = \"1h\", max_bytes = \"{}MiB\" }}\n[models.auto.routes",
            256 + turn
        );
        let upstream = upstream
            .config()
            .replace("api_key", &format!("connect_timeout = \"{}ms\"\napi_key", 1000 + turn));
        format!(
            "[stores.s.redis]\nurl = \"redis://127.0.0.1:1/{}\"\n{}circuit_breaker = {{}}\n\
             [models.b]\ncache = {{ ttl = \"1h\", store = \"s\" }}\n[models.b.routes.r]\nprovider = \"up\"\nmodel = \"b\"\n",
            turn % 16,
            upstream.replace("[models.auto.routes", &limits)
        )
    };
    let gateway =
        Launch::serve(&(ALL_LINES.to_owned() + &config(0))).env("UPSTREAM_KEY", "sk-1").start().await;
    let run = async |turns: std::ops::Range<usize>| {
        for turn in turns {
            reconfigure(&gateway, &config(turn)).await;
            for model in ["auto", "b"] {
                assert_eq!(gateway.ask(chat(model, "hi")).await.status, 200);
            }
        }
    };
    run(1..11).await;
    let before = held(&gateway).await;
    run(11..111).await;
    // Connections and threads that are idle go a moment later.
    let (mut threads, mut files, mut resident, mut series) = (0, 0, 0, 0);
    until("what is left over to go", async || {
        (threads, files, resident, series) = held(&gateway).await;
        (threads <= before.0 + 1 && files <= before.1 + 2).then_some(())
    })
    .await;
    assert_eq!(series, before.3, "no series is added");
    assert!(resident < before.2 + (64 << 10), "{before:?} became {resident} KiB: a memory alone takes more");
    assert_eq!(gateway.metric(GOOD, &[]).await, 1.0);
}

#[tokio::test]
async fn the_built_in_configuration_is_served_on_after_a_signal() {
    let launch = Launch::new(&["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
    let gateway = launch.start().await;
    gateway.signal(Signal::HUP);
    until("it to be read", async || (reloads(&gateway) > 0).then_some(())).await;
    assert_eq!(gateway.ask(chat("auto", "hi")).await.status, 200);
}
