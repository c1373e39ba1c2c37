//! The port for operators of a running gateway, by the commands and by raw requests: memory, a file, and memory in front of it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../../throughline/tests/redis/server.rs"]
mod server;

use std::net::SocketAddr;
use std::path::Path;

use futures_util::future::join_all;
use http::Method;
use process::upstream::answer;
use process::{Answer, Finished, Gateway, Launch, PATIENCE, Upstream, chat, client, until};
use serde_json::{Value, json};
use server::Server;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const COMPLETION: &str =
    r#"{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":1000,"completion_tokens":100}}"#;
const TOKEN: &str = "the-operators-token-of-this-test";
const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\nbearer_tokens = [\"file:./admin.token\"]\n";
const PURGE: &str = "/admin/cache/purge";

async fn provider() -> Upstream {
    Upstream::start(|_| answer("200 OK", "", COMPLETION)).await
}

/// Two models whose answers are kept as `cache` says, with a port for operators.
fn config(upstream: &Upstream, store: &str, cache: &str) -> String {
    let model = |name: &str| {
        format!(
            "[models.{name}]\ncache = {{ ttl = \"1h\"{cache} }}\n[models.{name}.routes.only]\nprovider = \"up\"\n\
             model = \"gpt-4o-mini\"\n"
        )
    };
    format!(
        "[server]\ntenant_header = \"x-team\"\n{ADMIN}{store}[providers.up.openai]\nbase_url = \"http://{}/v1\"\n{}{}",
        upstream.address,
        model("auto"),
        model("fast")
    )
}

fn disk(path: &Path) -> String {
    format!("[stores.kept.disk]\npath = \"{}\"\nmax_bytes = \"16MiB\"\ndeadline = \"5s\"\n", path.display())
}

async fn serve(config: &str) -> Gateway {
    Launch::serve(config).file("admin.token", TOKEN).start().await
}

/// Where it serves operators.
fn port(gateway: &Gateway) -> SocketAddr {
    let said = gateway.stdout();
    said.lines().find_map(|line| line.strip_prefix("admin http://")).expect(&said).parse().unwrap()
}

/// A command that the gateway is to do, in a folder without a configuration.
async fn remotely(port: SocketAddr, args: &[&str]) -> Finished {
    let gateway = ["--gateway", &format!("http://{port}"), "--token", "file:admin.token"];
    let args = [&["cache"], args, &gateway[..]].concat();
    Launch::new(&args).file("admin.token", TOKEN).finish().await
}

async fn json(port: SocketAddr, args: &[&str]) -> Value {
    let finished = remotely(port, &[args, &["--json"]].concat()).await;
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let notes = report["notes"].as_array().into_iter().flatten().map(|note| note.as_str().unwrap());
    let notes: String = notes.map(|note| format!("{note}\n")).collect();
    assert_eq!((finished.code, finished.stderr), (Some(0), notes), "{report}");
    report
}

/// What stands at `field` of each store, by its name.
fn each<'a>(report: &'a Value, field: &'a str) -> Vec<(&'a str, u64)> {
    let stores = report["stores"].as_array().unwrap().iter();
    stores.map(|store| (store["name"].as_str().unwrap(), store[field].as_u64().unwrap())).collect()
}

async fn asks(gateway: &Gateway, model: &str, team: &str, prompt: &str) {
    let answer = gateway.ask_with(&[("x-team", team)], chat(model, prompt)).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "Hi"), "{answer:?}");
}

/// Whether the answer comes from the cache.
async fn is_kept(gateway: &Gateway, model: &str, team: &str, prompt: &str) -> bool {
    let answer = gateway.ask_with(&[("x-team", team)], chat(model, prompt)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("x-throughline-cache") == Some("hit")
}

/// Six answers: three prompts of two teams in one model, and a probe in the other.
async fn fill(gateway: &Gateway) {
    until("answers from the cache", async || is_kept(gateway, "fast", "probe", "?").await.then_some(()))
        .await;
    for team in ["red", "blue"] {
        for prompt in ["one", "two", "three"] {
            asks(gateway, "auto", team, prompt).await;
        }
    }
}

/// What every gateway does with every command, with these stores for the models.
async fn looked_after(gateway: &Gateway, auto: &[&str], fast: &[&str], both: &[&str]) {
    let port = port(gateway);
    let expected = |one: u64, other: u64| {
        let counts = [(auto, one), (fast, other), (both, one + other)].into_iter();
        let mut counts: Vec<_> =
            counts.flat_map(|(names, count)| names.iter().map(move |name| (*name, count))).collect();
        // Memory comes before what is behind it.
        counts.sort_by_key(|(name, _)| (!name.starts_with("memory:"), *name));
        counts
    };
    let stats = json(port, &["stats", "--tenant", "red"]).await;
    assert_eq!(each(&stats, "entries"), expected(6, 1), "{stats}");
    assert_eq!(each(&stats, "unreadable"), expected(0, 0), "{stats}");
    assert_eq!((&stats["stores"][0]["tenants"]["red"]["entries"]), &json!(3), "{stats}");
    assert_eq!((&stats["stores"][0]["models"]["auto"]["entries"]), &json!(6), "{stats}");

    let dry = json(port, &["purge", "--tenant", "red", "--dry-run"]).await;
    assert_eq!((each(&dry, "entries"), &dry["dry_run"]), (expected(3, 0), &json!(true)), "{dry}");
    let key = dry["stores"][0]["keys"][0].as_str().unwrap().to_owned();
    let shown = json(port, &["get", &key[..8]]).await;
    assert_eq!((&shown[0]["key"], &shown[0]["model"]), (&json!(key), &json!("auto")), "{shown}");
    assert_eq!(shown[0]["answered_by"], "gpt-4o-mini");
    assert_eq!(remotely(port, &["get", &key, "--value"]).await.stdout, COMPLETION);

    let purged = json(port, &["purge", "--key", &key]).await;
    assert_eq!(each(&purged, "entries"), expected(1, 0), "{purged}");
    let missing = remotely(port, &["get", &key]).await;
    assert_eq!(
        (missing.code, missing.stderr.contains(&format!("nothing is stored under {key}"))),
        (Some(1), true)
    );
    let purged = json(port, &["purge", "--tenant", "red", "--model", "auto"]).await;
    assert_eq!(each(&purged, "entries"), expected(2, 0), "{purged}");
    assert!(is_kept(gateway, "auto", "blue", "one").await);
    for prompt in ["one", "two", "three"] {
        assert!(!is_kept(gateway, "auto", "red", prompt).await, "{prompt} was purged");
    }
    until("the answers are kept again", async || {
        (each(&json(port, &["stats"]).await, "entries") == expected(6, 1)).then_some(())
    })
    .await;
    assert_eq!(each(&json(port, &["purge", "--model", "fast"]).await, "entries"), expected(0, 1));
    assert!(!is_kept(gateway, "fast", "probe", "?").await);

    let refused = remotely(port, &["flush"]).await;
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("everything in the stores and the memory of the gateway at"),
        "{refused:?}"
    );
    assert_eq!(remotely(port, &["flush", "--yes"]).await.code, Some(0));
    assert_eq!(each(&json(port, &["stats"]).await, "entries"), expected(0, 0));
    assert!(!is_kept(gateway, "auto", "blue", "one").await);
    gateway.says("an operator has had answers removed from the cache").await;
    assert!(!gateway.log().contains(TOKEN), "{}", gateway.log());
}

#[tokio::test]
async fn memory_is_looked_into_and_purged() {
    let upstream = provider().await;
    let gateway = serve(&config(&upstream, "", "")).await;
    fill(&gateway).await;
    looked_after(&gateway, &["memory:auto"], &["memory:fast"], &[]).await;
}

#[tokio::test]
async fn a_file_is_looked_into_and_purged_beside_its_gateway() {
    let (folder, upstream) = (TempDir::new().unwrap(), provider().await);
    let store = disk(&folder.path().join("answers.cache"));
    let gateway = serve(&config(&upstream, &store, ", store = \"kept\"")).await;
    fill(&gateway).await;
    looked_after(&gateway, &[], &[], &["kept"]).await;
}

#[tokio::test]
async fn memory_in_front_of_a_file_is_purged_with_it() {
    let (folder, upstream) = (TempDir::new().unwrap(), provider().await);
    let store = disk(&folder.path().join("answers.cache"));
    let cache = ", store = \"kept\", max_bytes = \"1MiB\"";
    let gateway = serve(&config(&upstream, &store, cache)).await;
    fill(&gateway).await;
    looked_after(&gateway, &["memory:auto"], &["memory:fast"], &["kept"]).await;

    fill(&gateway).await;
    let one = json(port(&gateway), &["purge", "--model", "auto", "--store", "memory:auto"]).await;
    assert_eq!(each(&one, "entries"), [("memory:auto", 6)], "{one}");
    assert!(is_kept(&gateway, "auto", "red", "one").await, "the file still has it");
    let both = json(port(&gateway), &["flush", "--yes", "--store", "kept"]).await;
    assert_eq!(each(&both, "entries"), [("memory:auto", 1), ("memory:fast", 1), ("kept", 7)], "{both}");
    assert!(!is_kept(&gateway, "auto", "red", "one").await, "nobody has it");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn memory_in_front_of_a_server_is_purged_with_it() {
    let (server, upstream) = (Server::start(&[]).await, provider().await);
    let store = format!("[stores.kept.redis]\nurl = \"{}\"\ndeadline = \"5s\"\n", server.url());
    let cache = ", store = \"kept\", max_bytes = \"1MiB\"";
    let gateway = serve(&config(&upstream, &store, cache)).await;
    fill(&gateway).await;
    looked_after(&gateway, &["memory:auto"], &["memory:fast"], &["kept"]).await;

    fill(&gateway).await;
    let looked = json(port(&gateway), &["purge", "--model", "auto", "--dry-run"]).await;
    assert_eq!(looked["notes"], Value::Null, "nothing was removed");
    let purged = json(port(&gateway), &["purge", "--model", "auto"]).await;
    let said = "other gateways drop their copies of auto, fast in memory at once if their user may `client tracking`, and else \
                when the ttl is over";
    assert_eq!(purged["notes"], json!([said]), "{purged}");
}

/// A request to the port that is fine but for what is said.
async fn send(port: SocketAddr, method: Method, path: &str, other: &[(&str, &str)], body: &str) -> Answer {
    let mut request = client::request(method, port, path, body.to_owned());
    let bearer = format!("Bearer {TOKEN}");
    for (name, value) in [("authorization", bearer.as_str()), ("content-type", "application/json")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    for (name, value) in other {
        let name: http::HeaderName = name.parse().unwrap();
        match *value {
            "" => drop(request.headers_mut().remove(name)),
            value => drop(request.headers_mut().insert(name, value.parse().unwrap())),
        }
    }
    client::send(&client::client(), request).await
}

#[tokio::test]
async fn nobody_without_a_token_and_no_web_page_removes_anything() {
    let upstream = provider().await;
    let gateway = serve(&config(&upstream, "", "")).await;
    fill(&gateway).await;
    let port = port(&gateway);
    let all = r#"{"dry_run": false}"#;
    let key = ["Bearer ", "sk-an-ordinary-key-of-a-client"].concat();
    for (headers, status, code) in [
        (&[("authorization", "")][..], 401, "unauthorized"),
        (&[("authorization", "Bearer another-token-of-letters")], 401, "unauthorized"),
        (&[("authorization", key.as_str())], 401, "unauthorized"),
        (&[("authorization", ""), ("x-team", "red")], 401, "unauthorized"),
        // A page on another site, by fetch; the same with what a browser on this machine would say of a page here.
        (&[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")], 403, "browser"),
        (&[("origin", "http://localhost:9465")], 403, "browser"),
        (&[("sec-fetch-site", "none")], 403, "browser"),
        // A form of a page, which can send no JSON and no token.
        (
            &[("authorization", ""), ("content-type", "application/x-www-form-urlencoded")],
            401,
            "unauthorized",
        ),
        (&[("content-type", "text/plain")], 415, "wrong_content_type"),
        // A name that points here.
        (&[("host", "evil.example")], 403, "foreign_host"),
    ] {
        let answer = send(port, Method::POST, "/admin/cache/flush", headers, all).await;
        assert_eq!((answer.status, &answer.error()["code"]), (status, &json!(code)), "{headers:?}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    for method in [Method::GET, Method::OPTIONS, Method::DELETE] {
        let answer = send(port, method.clone(), "/admin/cache/flush", &[], "").await;
        assert_eq!(answer.status, 405, "{method}");
    }
    for path in [PURGE, "/admin/cache/flush", "/admin/cache/stats"] {
        let answer = gateway.send(Method::POST, path, all).await;
        assert_eq!(answer.status, 404, "the port of the clients has no {path}");
    }
    assert!(is_kept(&gateway, "auto", "red", "one").await, "nothing was removed");
    gateway.says("a request to the admin port was refused").await;
    assert!(!gateway.log().contains("another-token"), "{}", gateway.log());
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_and_said() {
    let upstream = provider().await;
    let gateway = serve(&config(&upstream, "", "")).await;
    fill(&gateway).await;
    let port = port(&gateway);
    let huge = format!("{{\"tenant\": \"{}\"}}", "x".repeat(1 << 20));
    for (body, status, said) in [
        ("", 400, "the body cannot be read"),
        ("[]", 400, "it is no JSON object"),
        ("[[], [], null, null, \"auto\"]", 400, "it is no JSON object"),
        ("{}", 400, "say what is to be purged, by keys, prefix, tenant or model"),
        ("{\"tenant\": \"red\", \"dry\": true}", 400, "unknown field `dry`"),
        ("{\"keys\": [\"3f9c\"]}", 400, "a key is 64 hexadecimal digits"),
        ("{\"prefix\": \"3f\"}", 400, "`prefix`: write 8 to 64 hexadecimal digits"),
        ("{\"model\": \"auto\", \"stores\": [\"memory:auo\"]}", 400, "did you mean `memory:auto`?"),
        (huge.as_str(), 413, "the body is larger than 65536 bytes"),
    ] {
        let answer = send(port, Method::POST, PURGE, &[], body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let message = answer.error()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(said), "{message}");
    }
    let everything = send(port, Method::POST, "/admin/cache/flush", &[], "[]").await;
    assert_eq!(everything.status, 400, "an empty list is no request for everything");
    let unknown = remotely(port, &["stats", "--store", "kept"]).await;
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("unknown store `kept`"), "{unknown:?}");
    assert!(is_kept(&gateway, "auto", "red", "one").await, "nothing was removed");
}

#[tokio::test]
async fn a_name_that_is_wrong_is_said_to_be_so_where_it_can_be_known() {
    let upstream = provider().await;
    let gateway = serve(&config(&upstream, "", "")).await;
    fill(&gateway).await;
    let port = port(&gateway);
    for dry in [&[][..], &["--dry-run"]] {
        let unknown = remotely(port, &[&["purge", "--model", "autto"], dry].concat()).await;
        assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(2), ""), "{unknown:?}");
        let said = format!(
            "the gateway at http://{port} says: unknown model `autto`, did you mean `auto`? (configured: auto, fast)"
        );
        assert!(unknown.stderr.starts_with(&said), "{unknown:?}");
    }
    let answer = send(port, Method::POST, PURGE, &[], r#"{"model":"autto"}"#).await;
    assert_eq!((answer.status, &answer.error()["code"]), (400, &json!("unknown_model")));

    let nobody = remotely(port, &["purge", "--tenant", "read", "--model", "auto"]).await;
    assert_eq!(nobody.code, Some(0), "{nobody:?}");
    assert!(nobody.stdout.starts_with("store memory:auto: 0 of 6 entries removed"), "{nobody:?}");
    let said = "nothing matched: no answer in these stores has the tenant `read` and the model `auto`; ";
    assert!(nobody.stderr.starts_with(said), "{nobody:?}");
    let mark = remotely(port, &["purge", "--model", "#0badc0de"]).await;
    assert_eq!(mark.code, Some(0), "a mark is not a name: {mark:?}");
    assert!(is_kept(&gateway, "auto", "red", "one").await, "nothing was removed");
}

#[tokio::test]
async fn what_other_stores_say_stands_beside_an_answer() {
    let (folder, upstream) = (TempDir::new().unwrap(), provider().await);
    let store = disk(&folder.path().join("none").join("answers.cache"));
    let config = config(&upstream, &store, "");
    let fast = "[models.fast]\ncache = { ttl = \"1h\"";
    let gateway = serve(&config.replace(fast, &format!("{fast}, store = \"kept\""))).await;
    let port = port(&gateway);
    until("an answer from the cache", async || is_kept(&gateway, "auto", "red", "one").await.then_some(()))
        .await;
    let dry =
        remotely(port, &["purge", "--tenant", "red", "--dry-run", "--store", "memory:auto", "--json"]).await;
    let dry: Value = serde_json::from_str(&dry.stdout).unwrap();
    let key = dry["stores"][0]["keys"][0].as_str().unwrap();
    let got = remotely(port, &["get", key, "--value"]).await;
    assert_eq!((got.code, got.stdout.as_str()), (Some(1), COMPLETION), "{got:?}");
    assert!(
        got.stderr.starts_with("store kept: ") && got.stderr.ends_with(": there is no such folder\n"),
        "{got:?}"
    );
    let fine = remotely(port, &["get", key, "--value", "--store", "memory:auto"]).await;
    assert_eq!((fine.code, fine.stdout.as_str(), fine.stderr.as_str()), (Some(0), COMPLETION, ""));
}

#[tokio::test]
async fn those_who_say_nothing_keep_no_operator_out_and_are_closed() {
    let upstream = provider().await;
    let gateway = serve(&config(&upstream, "", "")).await;
    let port = port(&gateway);
    let mut silent = Vec::new();
    for n in 0..300 {
        let mut stream = TcpStream::connect(port).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(b"POST /admin/cache/stats HTTP/1.1\r\nhost: localhost\r\n").await.unwrap();
        }
        silent.push(stream);
    }
    let stats = json(port, &["stats"]).await;
    assert_eq!(each(&stats, "entries"), [("memory:auto", 0), ("memory:fast", 0)]);
    let closed = silent.iter_mut().map(|stream| async {
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    tokio::time::timeout(PATIENCE, join_all(closed)).await.expect("all of them are closed");
}

#[tokio::test]
async fn no_request_fails_during_a_purge() {
    let (folder, upstream) = (TempDir::new().unwrap(), provider().await);
    let store = disk(&folder.path().join("answers.cache"));
    let cache = ", store = \"kept\", max_bytes = \"16MiB\"";
    let gateway = serve(&config(&upstream, &store, cache)).await;
    fill(&gateway).await;
    let (gateway, port) = (&gateway, port(&gateway));
    let clients = join_all((0..50).map(|client| async move {
        for round in 0..20 {
            asks(gateway, "auto", "red", &format!("{} of {}", round % 5, client % 10)).await;
        }
    }));
    let purges = async {
        for round in 0..6 {
            let body = if round % 2 == 0 { r#"{"tenant":"red"}"# } else { r#"{"model":"auto"}"# };
            let answer = send(port, Method::POST, PURGE, &[], body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    };
    tokio::join!(clients, purges);
    let left = send(port, Method::POST, PURGE, &[], r#"{"model":"auto"}"#).await;
    assert_eq!(left.status, 200);
    let stats = json(port, &["stats"]).await;
    assert!(each(&stats, "entries").iter().all(|(_, count)| *count <= 1), "{stats}");
}

#[tokio::test]
async fn the_configurations_own_gateway_does_it_while_it_runs() {
    let (folder, upstream) = (TempDir::new().unwrap(), provider().await);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = disk(&folder.path().join("answers.cache"));
    let config = config(&upstream, &store, ", store = \"kept\", max_bytes = \"1MiB\"");
    let config = config.replace("127.0.0.1:0", &free.to_string());
    let stats = async || {
        let launch = Launch::new(&["cache", "stats", "--json"]).file("throughline.toml", &config);
        let finished = launch.file("admin.token", TOKEN).finish().await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        (serde_json::from_str::<Value>(&finished.stdout).unwrap(), finished.stderr)
    };
    let gateway = serve(&config).await;
    fill(&gateway).await;
    let (report, said) = stats().await;
    assert_eq!(each(&report, "entries"), [("memory:auto", 6), ("memory:fast", 1), ("kept", 7)]);
    assert_eq!(said, "");
    gateway.stop().await;
    let (report, said) = stats().await;
    assert_eq!(each(&report, "entries"), [("kept", 7)]);
    assert!(
        said.contains(&format!("no gateway answers at {free}: the stores are reached directly")),
        "{said}"
    );
}

#[tokio::test]
async fn who_does_not_answer_or_refuses_or_is_somebody_else_is_said() {
    let upstream = provider().await;
    let gateway = serve(&config(&upstream, "", "")).await;
    let ask = async |address: SocketAddr, token: &str| {
        let url = format!("http://{address}");
        let args = ["cache", "stats", "--gateway", &url, "--token", "env:OPERATOR"];
        Launch::new(&args).env("OPERATOR", token).finish().await
    };
    let wrong = ask(port(&gateway), "another-token-of-letters").await;
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("a token of bearer_tokens in [admin] is needed"), "{wrong:?}");
    assert!(!wrong.stderr.contains("another-token"), "{wrong:?}");
    for other in [gateway.address, gateway.metrics.unwrap()] {
        let strange = ask(other, TOKEN).await;
        assert_eq!(strange.code, Some(1));
        assert!(strange.stderr.contains("is it `listen` of the gateway's [admin] table"), "{strange:?}");
    }
    let away = port(&gateway);
    gateway.stop().await;
    let gone = ask(away, TOKEN).await;
    assert_eq!(gone.code, Some(1));
    assert!(
        gone.stderr.contains(&format!("cannot ask the gateway at http://{away}: {away} refused")),
        "{gone:?}"
    );

    let body = r#"{"error":{"message":"the body cannot be read: unknown field","type":"admin_error","param":null,"code":"invalid_request"}}"#;
    let newer =
        Upstream::start(move |_| answer("400 Bad Request", "x-throughline-version: 99.0.0\r\n", body)).await;
    let refused = ask(newer.address, TOKEN).await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("; it is 99.0.0, this is "), "{refused:?}");

    let version = "x-throughline-version: 99.0.0\r\n";
    let orders = r#"{"error":{"message":"\u001b[2Jall is well\r\u009b1m","code":"invalid_request"}}"#;
    let rude = Upstream::start(move |_| answer("400 Bad Request", version, orders)).await;
    let refused = ask(rude.address, TOKEN).await;
    assert!(refused.stderr.contains("says: \\u{1b}[2Jall is well\\r\\u{9b}1m; it is 99.0.0"), "{refused:?}");
    let orders = r#"{"stores":[],"failures":["store kept: \u001b[2J"]}"#;
    let rude = Upstream::start(move |_| answer("502 Bad Gateway", version, orders)).await;
    let failed = ask(rude.address, TOKEN).await;
    assert_eq!((failed.code, failed.stderr.as_str()), (Some(1), "store kept: \\u{1b}[2J\n"));
}

#[tokio::test]
async fn a_new_token_is_taken_over_without_a_restart() {
    let upstream = provider().await;
    let config = config(&upstream, "", "");
    let gateway = serve(&config).await;
    let port = port(&gateway);
    let status = async |token: &str| {
        let bearer = format!("Bearer {token}");
        send(port, Method::POST, "/admin/cache/stats", &[("authorization", &bearer)], "{}").await.status
    };
    assert_eq!((status(TOKEN).await, status("the-next-token-of-this-test").await), (200, 401));
    gateway.replace("admin.token", "the-next-token-of-this-test");
    gateway.reconfigure(&config);
    until("the new token", async || (status("the-next-token-of-this-test").await == 200).then_some(())).await;
    assert_eq!(status(TOKEN).await, 401);
}

#[tokio::test]
async fn what_was_purged_is_not_given_to_the_same_question_in_other_words() {
    let upstream = provider().await;
    let semantic = ", semantic = { mode = \"answer\", threshold = 0.8, max_error = 0.05, learned = \"ngrams-1\", audit = 0 }";
    let gateway = serve(&config(&upstream, "", semantic)).await;
    asks(&gateway, "auto", "red", "How do I reset my password?").await;
    let before = upstream.seen().len();
    asks(&gateway, "auto", "red", "how can i reset my passwords").await;
    assert_eq!(upstream.seen().len(), before, "it is the same question");
    let purged = json(port(&gateway), &["purge", "--tenant", "red"]).await;
    assert!(each(&purged, "entries")[0].1 >= 1, "{purged}");
    asks(&gateway, "auto", "red", "how can i reset my passwords").await;
    assert_eq!(upstream.seen().len(), before + 1, "it was purged");
}
