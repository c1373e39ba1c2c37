//! Providers that fail, hang and ask for a pause: what is tried again, where else, and when no more.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use process::upstream::{Seen, Step, answer, piece, stream_end, stream_head};
use process::{Answer, Gateway, Launch, Upstream, chat, until};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

const COMPLETION: &str =
    r#"{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":1000,"completion_tokens":100}}"#;
const ROLE: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n";
const CONTENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":100}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// What an answer of gpt-4o-mini costs, and one of gpt-4o.
const CHEAP_USD: f64 = 0.000_21;
const PREMIUM_USD: f64 = 0.0035;

const RETRY: &str = r#"retry = { attempts = 3, first_delay = "1ms", longest_delay = "1ms" }"#;
const EVENTS: &str = "throughline_primitive_events_total";
const RUNS: &str = "throughline_primitive_duration_seconds_count";

fn streamed(prompt: &str) -> Value {
    let mut body = chat("auto", prompt);
    body["stream"] = true.into();
    body
}

fn wants_stream(seen: &Seen) -> bool {
    String::from_utf8_lossy(&seen.body).contains("\"stream\":true")
}

/// A good answer, as it was asked for.
fn good(seen: &Seen) -> Vec<Step> {
    match wants_stream(seen) {
        true => vec![stream_head(), piece(ROLE), piece(CONTENT), piece(USAGE), piece(DONE), stream_end()],
        false => answer("200 OK", "", COMPLETION),
    }
}

fn failure(_: &Seen) -> Vec<Step> {
    answer("503 Service Unavailable", "", "{}")
}

/// A provider that takes these turns and then gives good answers.
async fn turns(turns: Vec<Vec<Step>>) -> Upstream {
    let next = AtomicUsize::new(0);
    Upstream::start(move |seen| {
        turns.get(next.fetch_add(1, Ordering::SeqCst)).cloned().unwrap_or_else(|| good(seen))
    })
    .await
}

fn provider(name: &str, address: SocketAddr) -> String {
    format!("[providers.{name}.openai]\nbase_url = \"http://{address}/v1\"\n")
}

/// A model `auto` with these keys, and a route `cheap` with those, to the provider `up`.
fn config(address: SocketAddr, model: &str, route: &str) -> String {
    let up = provider("up", address);
    format!(
        "{up}[models.auto]\ndefault_route = \"cheap\"\n{model}\n\
         [models.auto.routes.cheap]\nprovider = \"up\"\nmodel = \"gpt-4o-mini\"\n{route}\n"
    )
}

/// As [`config`], with a route `premium` to fall back to.
fn with_premium(address: SocketAddr, premium: SocketAddr, route: &str) -> String {
    let model = "fallback = [\"premium\"]\nbaseline = \"premium\"\nroute_header = \"x-route\"";
    let other = provider("other", premium);
    let premium = "[models.auto.routes.premium]\nprovider = \"other\"\nmodel = \"gpt-4o\"\n";
    format!("{}{other}{premium}", config(address, model, route))
}

async fn gateway(upstream: &Upstream, model: &str, route: &str) -> Gateway {
    Launch::serve(&config(upstream.address, model, route)).start().await
}

/// The answer came whole, from attempts as many as that.
fn came_whole(answer: &Answer, attempts: &str) {
    assert_eq!((answer.status, answer.header("x-throughline-attempts")), (200, Some(attempts)), "{answer:?}");
    let body = String::from_utf8_lossy(&answer.body);
    assert!(*body == *COMPLETION || *body == *format!("{ROLE}{CONTENT}{DONE}"), "{body}");
}

async fn free_port() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_request_is_tried_again_after_a_failure_and_the_answer_is_paid_once() {
    for body in [chat("auto", "hi"), streamed("hi")] {
        let down = answer("503 No", "", "{}");
        let upstream = turns(vec![down.clone(), vec![Step::Close], down.clone(), down]).await;
        let gateway = gateway(&upstream, "", RETRY).await;
        let failed = gateway.ask(&body).await;
        assert_eq!((failed.status, failed.header("x-throughline-attempts")), (502, Some("3")), "{failed:?}");
        let good = gateway.ask(&body).await;
        came_whole(&good, "2");
        assert_eq!(good.header("x-throughline-route"), Some("cheap"));
        assert_eq!(good.header("x-throughline-fallback"), None);
        let seen = upstream.seen();
        assert_eq!(seen.len(), 5);
        assert!(seen.iter().all(|request| request.body == seen[0].body), "every attempt asks the same");
        for total in ["router_cost_usd_total", "llm_cost_usd_total"] {
            gateway.settles(total, &[], CHEAP_USD).await;
        }
        for (event, count) in [("retry", 3.0), ("recovered", 1.0), ("exhausted", 1.0)] {
            let labels = [("primitive", "retry"), ("operation", "auto/cheap"), ("event", event)];
            assert_eq!(gateway.metric(EVENTS, &labels).await, count, "{event}");
        }
        assert_eq!(gateway.metric("router_decisions_total", &[]).await, 2.0, "a retry is no decision");
    }
}

#[tokio::test]
async fn a_stream_is_tried_again_until_its_first_token_and_never_after_it() {
    let upstream = turns(vec![
        vec![stream_head(), piece(ROLE), Step::Close],
        vec![stream_head(), piece("data: {\"error\":{\"message\":\"overloaded\"}}\n\n"), stream_end()],
    ])
    .await;
    let patient = gateway(&upstream, "", RETRY).await;
    came_whole(&patient.ask(streamed("hi")).await, "3");
    assert_eq!(upstream.seen().len(), 3);

    let upstream = turns(vec![vec![stream_head(), piece(ROLE), piece(CONTENT), Step::Close]]).await;
    let gateway = gateway(&upstream, "", RETRY).await;
    let broken = gateway.ask(streamed("hi")).await;
    let text = String::from_utf8_lossy(&broken.body);
    assert_eq!((broken.status, broken.header("x-throughline-attempts")), (200, Some("1")));
    assert!(
        text.starts_with(&format!("{ROLE}{CONTENT}data: {{\"error\"")) && !text.contains("[DONE]"),
        "{text}"
    );
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_first_token_that_does_not_come_is_worth_another_try() {
    let upstream = turns(vec![vec![stream_head(), piece(ROLE), Step::Hold], vec![Step::Hold]]).await;
    let route = format!("timeout = {{ limit = \"1h\", first_token = \"80ms\" }}\n{RETRY}");
    let gateway = gateway(&upstream, "", &route).await;
    came_whole(&gateway.ask(streamed("hi")).await, "3");
    until("both to be let go", async || (upstream.hung_up() == 2).then_some(())).await;
}

#[tokio::test]
async fn a_refused_request_is_neither_tried_again_nor_elsewhere() {
    let refused = answer("400 Bad Request", "", r#"{"error":{"message":"no such tool"}}"#);
    let (upstream, premium) = (turns(vec![refused]).await, turns(Vec::new()).await);
    let config = with_premium(upstream.address, premium.address, RETRY);
    let answer = Launch::serve(&config).start().await.ask(chat("auto", "hi")).await;
    assert_eq!((answer.status, answer.header("x-throughline-attempts")), (400, Some("1")));
    assert_eq!((upstream.seen().len(), premium.seen().len()), (1, 0));
}

#[tokio::test]
async fn a_provider_that_asks_for_a_pause_gets_it() {
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::start(move |seen| {
        let limited = String::from_utf8_lossy(&seen.body).contains("first");
        match limited && asked.fetch_add(1, Ordering::SeqCst) == 0 {
            true => answer("429 Too Many Requests", "retry-after: 2\r\n", "{}"),
            false => good(seen),
        }
    })
    .await;
    let gateway = gateway(&upstream, "timeout = { limit = \"1m\" }", RETRY).await;
    let meanwhile = async {
        upstream.sees(1).await;
        gateway.ask(chat("auto", "second")).await
    };
    let (first, second) = tokio::join!(gateway.ask(chat("auto", "first")), meanwhile);
    came_whole(&first, "2");
    came_whole(&second, "1");
    let order: Vec<_> = upstream
        .seen()
        .iter()
        .map(|request| String::from_utf8_lossy(&request.body).contains("first"))
        .collect();
    assert_eq!(order, [true, false, true], "the second request came long before the pause was over");
}

#[tokio::test]
async fn a_pause_that_nobody_can_wait_for_is_passed_on_at_once() {
    for (model, pause, why) in
        [("timeout = { limit = \"20s\" }", "50", "no_time_left"), ("", "3600", "not_retryable")]
    {
        let limited = answer("429 No", &format!("retry-after: {pause}\r\n"), "{}");
        let upstream = turns(vec![limited]).await;
        let gateway = gateway(&upstream, model, RETRY).await;
        let answer = gateway.ask(chat("auto", "hi")).await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some(pause)));
        assert_eq!(upstream.seen().len(), 1);
        let gave_up = [("primitive", "retry"), ("event", why)];
        assert_eq!(gateway.metric(EVENTS, &gave_up).await, 1.0, "{why}");
    }
}

const BREAKER: &str = r#"circuit_breaker = { failure_rate = 1.0, min_calls = 3, open_for = "1h" }"#;

#[tokio::test]
async fn an_open_circuit_keeps_requests_from_the_provider() {
    let upstream = Upstream::start(failure).await;
    let gateway = gateway(&upstream, "", BREAKER).await;
    for body in [chat("auto", "hi"), streamed("hi"), chat("auto", "hi")] {
        assert_eq!(gateway.ask(body).await.status, 502);
    }
    for body in [chat("auto", "hi"), streamed("hi")] {
        let refused = gateway.ask(body).await;
        assert_eq!((refused.status, refused.error()["code"].as_str()), (503, Some("circuit_open")));
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((3000..=3960).contains(&seconds), "about an hour, in seconds: {seconds}");
        assert_eq!(refused.header("x-throughline-attempts"), Some("0"));
        assert_eq!(refused.header("x-throughline-cost-usd"), Some("0.000000000"));
    }
    assert_eq!(upstream.seen().len(), 3);
    let open = [("circuit", "auto/cheap"), ("state", "open")];
    assert_eq!(gateway.metric("circuit_breaker_state", &open).await, 1.0);
    let rejected = [("circuit", "auto/cheap"), ("outcome", "rejected")];
    assert_eq!(gateway.metric("circuit_breaker_calls_total", &rejected).await, 2.0);
}

#[tokio::test]
async fn an_open_circuit_is_not_tried_again_but_a_reason_to_fall_back() {
    let (upstream, premium) = (Upstream::start(failure).await, turns(Vec::new()).await);
    let config = with_premium(upstream.address, premium.address, &format!("{RETRY}\n{BREAKER}"));
    let gateway = Launch::serve(&config).start().await;
    came_whole(&gateway.ask(chat("auto", "hi")).await, "4");
    assert_eq!(upstream.seen().len(), 3, "the third failure opens it");
    for body in [chat("auto", "hi"), streamed("hi")] {
        let answer = gateway.ask(body).await;
        came_whole(&answer, "1");
        assert_eq!(answer.header("x-throughline-fallback"), Some("premium"));
    }
    assert_eq!((upstream.seen().len(), premium.seen().len()), (3, 3));
}

#[tokio::test]
async fn a_fallback_answers_for_a_provider_that_is_down_and_is_paid_as_what_it_is() {
    let premium = turns(Vec::new()).await;
    let config = with_premium(free_port().await, premium.address, "");
    let gateway = Launch::serve(&config).start().await;
    for (count, body) in [(1.0, chat("auto", "hi")), (2.0, streamed("hi"))] {
        let answer = gateway.ask(&body).await;
        came_whole(&answer, "2");
        assert_eq!(answer.header("x-throughline-route"), Some("cheap"));
        assert_eq!(answer.header("x-throughline-fallback"), Some("premium"));
        if count == 1.0 {
            assert_eq!(answer.header("x-throughline-cost-usd"), Some("0.003500000"));
        }
        let taken = [("route", "cheap")];
        for total in ["router_cost_usd_total", "router_baseline_cost_usd_total"] {
            gateway.settles(total, &taken, PREMIUM_USD * count).await;
        }
        let premium = [("provider", "other"), ("model", "gpt-4o")];
        assert_eq!(gateway.metric("llm_cost_usd_total", &premium).await, PREMIUM_USD * count);
    }
    assert_eq!(gateway.metric("router_cost_savings_usd_total", &[]).await, 0.0, "nothing was saved");
    let models = premium.seen();
    assert!(
        models.iter().all(|seen| String::from_utf8_lossy(&seen.body).contains("\"gpt-4o\"")),
        "{models:?}"
    );
}

#[tokio::test]
async fn a_stream_is_replaced_until_its_first_token_and_never_after_it() {
    let upstream = turns(vec![
        vec![stream_head(), piece(ROLE), Step::Close],
        vec![stream_head(), piece(CONTENT), Step::Close],
    ])
    .await;
    let premium = turns(Vec::new()).await;
    let config = with_premium(upstream.address, premium.address, "");
    let gateway = Launch::serve(&config).start().await;
    came_whole(&gateway.ask(streamed("hi")).await, "2");
    let broken = gateway.ask(streamed("hi")).await;
    let text = String::from_utf8_lossy(&broken.body);
    assert!(text.starts_with(CONTENT) && text.contains("upstream_error"), "{text}");
    assert_eq!(broken.header("x-throughline-fallback"), None);
    assert_eq!((upstream.seen().len(), premium.seen().len()), (2, 1));
}

#[tokio::test]
async fn a_route_does_not_fall_back_to_itself_and_the_first_failure_is_told() {
    let (upstream, premium) = (turns(Vec::new()).await, Upstream::start(failure).await);
    let config = with_premium(upstream.address, premium.address, "");
    let launch = Launch::serve(&config).start().await;
    let answer = launch.ask_with(&[("x-route", "premium")], chat("auto", "hi")).await;
    assert_eq!((answer.status, answer.header("x-throughline-attempts")), (502, Some("1")));
    assert_eq!((upstream.seen().len(), premium.seen().len()), (0, 1));

    let config = with_premium(free_port().await, premium.address, "");
    let gateway = Launch::serve(&config).start().await;
    let answer = gateway.ask(chat("auto", "hi")).await;
    assert_eq!((answer.status, answer.header("x-throughline-attempts")), (502, Some("2")));
    assert_eq!(answer.error()["message"], "the provider could not be reached");
    assert_eq!(answer.header("x-throughline-fallback"), None);
    let log = gateway.stop().await.stderr;
    assert!(log.contains("could not be reached") && log.contains("answered 503"), "{log}");
}

#[tokio::test]
async fn the_answer_of_a_fallback_is_kept_and_a_hit_names_nobody() {
    let premium = turns(Vec::new()).await;
    let config = with_premium(free_port().await, premium.address, "");
    let config = config.replacen("[models.auto]", "[models.auto]\ncache = { ttl = \"1h\" }", 1);
    let gateway = Launch::serve(&config).start().await;
    let miss = gateway.ask(chat("auto", "hi")).await;
    assert_eq!(miss.header("x-throughline-fallback"), Some("premium"));
    let hit = gateway.ask(chat("auto", "hi")).await;
    assert_eq!((hit.body, hit.headers.get("x-throughline-fallback")), (miss.body, None));
    gateway.settles("cache_cost_savings_usd_total", &[], PREMIUM_USD).await;
}

#[tokio::test]
async fn a_second_attempt_joins_one_that_hangs_and_the_loser_is_let_go() {
    for (hang, body) in [
        (vec![Step::Hold], chat("auto", "hi")),
        (vec![stream_head(), piece(ROLE), Step::Hold], streamed("hi")),
    ] {
        let upstream = turns(vec![hang]).await;
        let gateway = gateway(&upstream, "", "hedge = { after = \"20ms\" }").await;
        let answer = gateway.ask(&body).await;
        came_whole(&answer, "2");
        until("the loser to be let go", async || (upstream.hung_up() == 1).then_some(())).await;
        assert_eq!(upstream.seen().len(), 2);
        for total in ["router_cost_usd_total", "llm_cost_usd_total"] {
            gateway.settles(total, &[], CHEAP_USD).await;
        }
        if !wants_stream(&upstream.seen()[0]) {
            assert_eq!(answer.header("x-throughline-cost-usd"), Some("0.000210000"));
        }
        gateway.settles(RUNS, &[("primitive", "chat"), ("outcome", "cancelled")], 1.0).await;
        let hedged = [("primitive", "hedge"), ("operation", "auto/cheap"), ("event", "hedged")];
        assert_eq!(gateway.metric(EVENTS, &hedged).await, 1.0);
    }
}

/// What a budget grants in ten seconds without a success.
const FLOOR: usize = 30;

#[tokio::test]
async fn a_storm_of_failures_is_not_made_a_worse_one_by_retries_and_hedges() {
    const REQUESTS: usize = 40;
    for route in [RETRY.to_owned(), format!("{RETRY}\nhedge = {{ after = \"0s\" }}")] {
        let upstream = Upstream::start(failure).await;
        let gateway = gateway(&upstream, "", &route).await;
        let start = Instant::now();
        let answers = join_all((0..REQUESTS).map(|_| gateway.ask(chat("auto", "hi")))).await;
        assert!(answers.iter().all(|answer| answer.status == 502), "{answers:?}");
        let extra = upstream.seen().len() - REQUESTS;
        // More is granted only to a machine that needs more than ten seconds for this.
        let most = FLOOR * (1 + usize::try_from(start.elapsed().as_secs() / 10).unwrap());
        assert!((FLOOR..=most).contains(&extra), "{extra} extra calls, with {route}");
        let told = answers.iter().map(|answer| answer.header("x-throughline-attempts").unwrap());
        let told: usize = told.map(|attempts| attempts.parse::<usize>().unwrap()).sum();
        assert_eq!(told, upstream.seen().len(), "every call is told to somebody");
        let refused = gateway.metric(EVENTS, &[("event", "budget_exhausted")]).await;
        assert!(refused > 0.0, "{route}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_during_a_pause_ends_its_request() {
    let upstream = Upstream::start(|_| answer("503 No", "retry-after: 50\r\n", "{}")).await;
    let gateway = gateway(&upstream, "", RETRY).await;
    let body = chat("auto", "hi").to_string();
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all((head + &body).as_bytes()).await.unwrap();
    gateway.settles(RUNS, &[("primitive", "chat"), ("outcome", "error")], 1.0).await;
    assert_eq!(gateway.metric("throughline_primitive_in_flight", &[("primitive", "retry")]).await, 1.0);
    drop(client);
    gateway.settles(RUNS, &[("primitive", "retry"), ("outcome", "cancelled")], 1.0).await;
    assert_eq!(gateway.metric("throughline_primitive_in_flight", &[]).await, 0.0);
    assert_eq!(gateway.metric("gateway_requests_total", &[("code", "499")]).await, 1.0);
    assert_eq!(upstream.seen().len(), 1);
}
