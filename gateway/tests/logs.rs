//! The log of the running gateway: what its lines say, and that a target that does not work costs no request anything.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_util::future::join_all;
use http::Method;
use process::client::rest;
use process::upstream::{Step, answer, piece, stream_end, stream_head};
use process::{Gateway, Launch, Upstream, chat, prompt_config, until};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const CONTENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":100}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const LOST: &str = "apm_log_lines_dropped_total";

/// The lines of a log of JSON, each of which must be an object with the keys that all have.
fn lines(log: &str) -> Vec<Value> {
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level", "target", "message"] {
            assert!(line[key].is_string(), "no {key}: {line}");
        }
        assert!(line["fields"].is_object(), "{line}");
        line
    };
    log.lines().map(line).collect()
}

fn with_message(log: &str, message: &str) -> Vec<Value> {
    lines(log).into_iter().filter(|line| line["message"] == message).collect()
}

/// Waits for the line with `message`.
async fn line(gateway: &Gateway, message: &str) -> Value {
    until(message, async || {
        let log = gateway.log();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        with_message(whole, message).into_iter().next()
    })
    .await
}

/// A gateway before a provider that always fails.
async fn failing(more: &str) -> (Upstream, Launch) {
    let upstream = Upstream::start(|_| answer("503 Service Unavailable", "", "{}")).await;
    let launch = Launch::serve(&format!("{more}\n{}", upstream.config())).env("UPSTREAM_KEY", "k-1");
    (upstream, launch)
}

/// A gateway that answers, and logs a line a request to `file`.
fn to_file(file: &Path) -> Launch {
    let log = format!("[log]\nfile = \"{}\"\naccess = true\n", file.display());
    Launch::serve(&prompt_config(&log))
}

async fn asked(gateway: &Gateway, requests: usize) {
    let ask = async |_| assert_eq!(gateway.ask(chat("auto", "hi")).await.status, 200);
    join_all((0..requests).map(ask)).await;
}

/// What health says of the log.
async fn degraded(gateway: &Gateway) -> Option<Value> {
    let ready = gateway.send(Method::GET, "/readyz", "").await;
    assert_eq!(ready.status, 200, "it takes requests");
    let ready = ready.json();
    let part = ready["degraded"].as_array().unwrap().iter().find(|part| part["part"] == "logs").cloned();
    assert_eq!(ready["status"], if part.is_some() { "degraded" } else { "ready" });
    part
}

async fn becomes_degraded(gateway: &Gateway) -> String {
    let part = until("the log to be degraded", async || degraded(gateway).await).await;
    assert!(humantime::parse_rfc3339(part["since"].as_str().unwrap()).is_ok(), "{part}");
    part["reason"].as_str().unwrap().to_owned()
}

async fn recovers(gateway: &Gateway) {
    until("the log to recover", async || degraded(gateway).await.is_none().then_some(())).await;
}

async fn lost(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(LOST, &[("reason", reason)]).await
}

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("throughline.log");
    (directory, file)
}

#[tokio::test]
async fn a_failure_is_a_line_of_json_with_the_ids_of_its_request() {
    let (_upstream, launch) = failing("").await;
    let gateway = launch.start().await;
    let answer = gateway.ask_with(&[("x-request-id", "order-7")], chat("auto", "hi")).await;
    assert_eq!(answer.status, 502);
    let failed = line(&gateway, "a request failed").await;
    assert_eq!(failed["level"], "WARN");
    assert_eq!(failed["target"], "throughline::requests");
    assert_eq!(failed["trace_id"].as_str(), answer.header("x-throughline-trace-id"));
    assert_eq!(failed["span_id"].as_str().unwrap().len(), 16);
    let fields = &failed["fields"];
    assert_eq!((&fields["request_id"], &fields["kind"]), (&"order-7".into(), &"upstream".into()));
    assert_eq!(fields["error"], "upstream: the provider answered 503");
    let serves = line(&gateway, "the gateway serves").await;
    assert_eq!(serves["fields"]["address"], gateway.address.to_string());
    assert_eq!(serves["fields"]["metrics"], gateway.metrics.unwrap().to_string());
    assert_eq!(serves.get("trace_id"), None, "it is of no request");
    let ended = gateway.stop().await;
    assert_eq!(with_message(&ended.stderr, "stopping: requests in flight may finish").len(), 1);
}

#[tokio::test]
async fn a_timeout_is_an_error_and_so_says_the_level() {
    let upstream = Upstream::start(|_| vec![Step::Hold]).await;
    let config = upstream.config().replace(
        "[models.auto.routes.only]",
        "[models.auto]\ntimeout = { limit = \"20ms\" }\n[models.auto.routes.only]",
    );
    let gateway = Launch::serve(&config).env("UPSTREAM_KEY", "k-1").start().await;
    assert_eq!(gateway.ask(chat("auto", "hi")).await.status, 504);
    let failed = line(&gateway, "a request failed").await;
    assert_eq!((&failed["level"], &failed["fields"]["kind"]), (&"ERROR".into(), &"timeout".into()));
}

#[tokio::test]
async fn a_stream_that_breaks_is_logged_with_its_trace() {
    let upstream = Upstream::start(|_| vec![stream_head(), piece(CONTENT), Step::Close]).await;
    let gateway = Launch::serve(&upstream.config()).env("UPSTREAM_KEY", "k-1").start().await;
    let mut body = chat("auto", "hi");
    body["stream"] = true.into();
    let answer = gateway.ask(body).await;
    assert_eq!(answer.status, 200);
    let failed = line(&gateway, "a request failed").await;
    assert_eq!(failed["trace_id"].as_str(), answer.header("x-throughline-trace-id"));
}

#[tokio::test]
async fn text_is_for_people_and_takes_no_orders() {
    let (_upstream, launch) = failing("").await;
    let gateway = launch.args(&["--log-format", "text"]).start().await;
    let evil = "x\t level=ERROR trace_id=0 \"";
    assert_eq!(gateway.ask_with(&[("x-request-id", evil)], chat("auto", "hi")).await.status, 502);
    let ended = gateway.stop().await;
    let failed: Vec<_> = ended.stderr.lines().filter(|line| line.contains("a request failed")).collect();
    assert_eq!(failed.len(), 1, "{}", ended.stderr);
    assert!(failed[0].contains(" WARN throughline::requests: a request failed request_id="), "{}", failed[0]);
    assert!(failed[0].contains("request_id=\"x\\t level=ERROR trace_id=0 \\\"\" "), "{}", failed[0]);
    assert!(!failed[0].contains('\u{1b}'), "no colours, this is no terminal: {}", failed[0]);
}

#[tokio::test]
async fn a_sick_provider_does_not_flood_the_log() {
    let (_upstream, launch) = failing("[log]\nmax_repeats = 3\nrepeat_interval = \"1h\"").await;
    let gateway = launch.start().await;
    let ask = async |_| assert_eq!(gateway.ask(chat("auto", "hi")).await.status, 502);
    join_all((0..200).map(ask)).await;
    let ended = gateway.stop().await;
    assert_eq!(with_message(&ended.stderr, "a request failed").len(), 3, "{}", ended.stderr);
    let sums: Vec<_> = lines(&ended.stderr)
        .into_iter()
        .filter(|line| line["message"].as_str().unwrap().starts_with("repeated "))
        .collect();
    assert_eq!(sums.len(), 1, "{}", ended.stderr);
    assert_eq!(sums[0]["fields"]["repeated"], 197);
    let message = sums[0]["message"].as_str().unwrap();
    assert!(
        message.starts_with("repeated 197 times in ") && message.ends_with(": a request failed"),
        "{message}"
    );
}

#[tokio::test]
async fn an_access_line_tells_the_story_of_a_request_and_nothing_of_what_was_said() {
    let upstream = Upstream::start(|seen| {
        if String::from_utf8_lossy(&seen.body).contains("\"hold\"") {
            return vec![Step::Hold];
        }
        match seen.head.contains("text/event-stream") {
            true => vec![stream_head(), piece(CONTENT), piece(USAGE), piece(DONE), stream_end()],
            false => answer(
                "200 OK",
                "",
                r#"{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":1000,"completion_tokens":100}}"#,
            ),
        }
    })
    .await;
    let config = upstream.config().replace(
        "[models.auto.routes.only]",
        "[models.auto]\ncache = { ttl = \"1h\" }\n[models.auto.routes.only]",
    );
    let gateway =
        Launch::serve(&format!("[log]\naccess = true\n{config}")).env("UPSTREAM_KEY", "k-1").start().await;
    let mut streamed = chat("auto", "a question of mine, streamed");
    streamed["stream"] = true.into();
    let plain = gateway.ask(chat("auto", "a question of mine")).await;
    let hit = gateway.ask(chat("auto", "a question of mine")).await;
    let stream = gateway.ask(streamed).await;
    let refused = gateway.ask(chat("none", "a question of mine")).await;
    let body = chat("auto", "hold").to_string();
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", body.len());
    client.write_all((head + &body).as_bytes()).await.unwrap();
    upstream.sees(3).await;
    drop(client);
    until("the call to be given up", async || (upstream.hung_up() == 1).then_some(())).await;

    let ended = gateway.stop().await;
    assert!(!ended.stderr.contains("a question of mine"), "{}", ended.stderr);
    let access = with_message(&ended.stderr, "a request was answered");
    assert_eq!(access.len(), 5, "{}", ended.stderr);
    let of = |trace: Option<&str>| access.iter().find(|line| line["trace_id"].as_str() == trace).unwrap();
    let told = |answer: &process::Answer| {
        let line = of(answer.header("x-throughline-trace-id"));
        assert_eq!((&line["level"], &line["target"]), (&"INFO".into(), &"throughline::access".into()));
        let mut fields = line["fields"].clone();
        assert!(
            fields["duration_ms"].as_f64().unwrap() >= fields["upstream_ms"].as_f64().unwrap(),
            "{fields}"
        );
        assert_eq!(fields["request_id"].as_str(), answer.header("x-request-id"));
        for name in ["duration_ms", "upstream_ms", "request_id"] {
            fields.as_object_mut().unwrap().remove(name);
        }
        fields
    };
    let whole = json!({
        "method": "POST", "path": "/v1/chat/completions", "status": 200, "outcome": "success", "model": "auto",
        "route": "only", "cache": "miss", "attempts": 1, "input_tokens": 1000, "output_tokens": 100, "cost_usd": 0.00021,
    });
    let mut from_cache = whole.clone();
    from_cache["cache"] = "hit".into();
    from_cache["attempts"] = 0.into();
    from_cache["cost_usd"] = 0.0.into();
    // The router stands inside the cache.
    from_cache.as_object_mut().unwrap().remove("route");
    assert_eq!(told(&plain), whole);
    assert_eq!(told(&hit), from_cache);
    assert_eq!(told(&stream), whole);
    let path = "/v1/chat/completions";
    assert_eq!(
        told(&refused),
        json!({ "method": "POST", "path": path, "status": 404, "outcome": "success" })
    );
    let gone = access.iter().find(|line| line["fields"]["outcome"] == "cancelled").unwrap();
    assert_eq!(gone["fields"]["status"], 499, "{gone}");
}

#[tokio::test]
async fn a_rotated_file_is_left_and_a_new_one_begun() {
    let (directory, file) = directory();
    let gateway = to_file(&file).start().await;
    asked(&gateway, 1).await;
    until("a line", async || fs::read_to_string(&file).ok().filter(|log| log.contains("answered"))).await;
    let old = directory.path().join("throughline.log.1");
    fs::rename(&file, &old).unwrap();
    gateway.signal(Signal::HUP);
    asked(&gateway, 1).await;
    until("a new file", async || fs::read_to_string(&file).ok().filter(|log| log.contains("answered"))).await;
    let ended = gateway.stop().await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for log in [old, file] {
        assert_eq!(with_message(&fs::read_to_string(log).unwrap(), "a request was answered").len(), 1);
    }
}

/// A small disk: a file system of its own where this test may mount one, else the device that is always full.
struct Disk {
    directory: TempDir,
    mounted: bool,
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(directory.path())
            .output();
        let mounted = mount.is_ok_and(|done| done.status.success());
        if !mounted {
            std::os::unix::fs::symlink("/dev/full", directory.path().join("log")).unwrap();
        }
        Self { directory, mounted }
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn fill(&self) {
        if self.mounted {
            let filler =
                fs::OpenOptions::new().create(true).append(true).open(self.directory.path().join("filler"));
            let mut filler = filler.unwrap();
            while std::io::Write::write(&mut filler, &[0; 512]).is_ok() {}
        }
    }

    fn make_room(&self) {
        let what = if self.mounted { self.directory.path().join("filler") } else { self.log() };
        fs::remove_file(what).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("-l").arg(self.directory.path()).output();
        }
    }
}

#[tokio::test]
async fn a_full_disk_costs_lines_and_no_request_and_is_over_when_there_is_room() {
    let disk = Disk::new();
    disk.fill();
    let gateway = to_file(&disk.log()).start().await;
    asked(&gateway, 50).await;
    let reason = becomes_degraded(&gateway).await;
    assert!(reason.contains("no space is left on its device; lines are lost until it can"), "{reason}");
    // Its first line, that it serves, is lost as well.
    until("the loss", async || (lost(&gateway, "write_failed").await >= 51.0).then_some(())).await;
    disk.make_room();
    recovers(&gateway).await;
    asked(&gateway, 1).await;
    assert_eq!(gateway.stop().await.code, Some(0));
    let log = fs::read_to_string(disk.log()).unwrap();
    let log = log.trim_start_matches('\n');
    let told: u64 = with_message(log, "log lines were lost")
        .iter()
        .map(|line| line["fields"]["lost"].as_u64().unwrap())
        .sum();
    assert!(told >= 51, "{log}");
    assert_eq!(with_message(log, "a request was answered").len(), 1, "{log}");
}

#[tokio::test]
async fn a_directory_that_vanishes_costs_no_request_and_is_over_when_it_is_back() {
    let (directory, _) = directory();
    let inner = directory.path().join("logs");
    fs::create_dir(&inner).unwrap();
    let log = inner.join("log");
    let gateway = to_file(&log).start().await;
    asked(&gateway, 1).await;
    let written = || fs::read_to_string(&log).unwrap().contains("a request was answered");
    until("the first line", async || written().then_some(())).await;
    fs::remove_dir_all(&inner).unwrap();
    asked(&gateway, 5).await;
    until("the loss", async || (lost(&gateway, "write_failed").await >= 5.0).then_some(())).await;
    assert!(becomes_degraded(&gateway).await.contains("its directory does not exist"));
    fs::create_dir(&inner).unwrap();
    recovers(&gateway).await;
    asked(&gateway, 1).await;
    assert_eq!(gateway.stop().await.code, Some(0));
    let log = fs::read_to_string(&log).unwrap();
    assert_eq!(with_message(&log, "a request was answered").len(), 1, "{log}");
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_is_said_at_the_start_and_used_once_somebody_does() {
    let (_directory, file) = directory();
    mkfifoat(CWD, &file, Mode::RUSR | Mode::WUSR).unwrap();
    let gateway = to_file(&file).start().await;
    gateway.says("it is a pipe that nobody reads; lines are lost until it can").await;
    asked(&gateway, 20).await;
    until("the loss", async || (lost(&gateway, "write_failed").await >= 21.0).then_some(())).await;
    assert!(becomes_degraded(&gateway).await.contains("it is a pipe that nobody reads"));
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut reader = fs::OpenOptions::new().read(true).custom_flags(flags).open(&file).unwrap();
    recovers(&gateway).await;
    asked(&gateway, 1).await;
    assert_eq!(gateway.stop().await.code, Some(0));
    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    assert_eq!(with_message(&log, "log lines were lost").len(), 1, "{log}");
    assert_eq!(with_message(&log, "a request was answered").len(), 1, "{log}");
}

#[tokio::test]
async fn a_standard_error_that_is_closed_costs_no_request() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gateway = Launch::serve(&prompt_config("[log]\naccess = true\n")).stderr(writer).start().await;
    asked(&gateway, 20).await;
    assert_eq!(
        becomes_degraded(&gateway).await,
        "standard error cannot be written to: nobody reads it any more; lines are lost until it can"
    );
    until("the loss", async || (lost(&gateway, "write_failed").await >= 21.0).then_some(())).await;
    assert_eq!(gateway.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_standard_error_that_nobody_reads_costs_no_request_and_is_over_when_somebody_does() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let gateway = Launch::serve(&prompt_config("[log]\naccess = true\n")).stderr(writer).start().await;
    // More than a pipe takes.
    asked(&gateway, 400).await;
    assert!(becomes_degraded(&gateway).await.contains("the log's target takes nothing"));
    asked(&gateway, 10).await;
    let reading = std::thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).map(|_| log).unwrap()
    });
    recovers(&gateway).await;
    assert_eq!(gateway.stop().await.code, Some(0));
    let log = reading.join().unwrap();
    assert_eq!(with_message(&log, "a request was answered").len(), 410, "nothing was lost, there was room");
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_standard_error_that_nobody_reads() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let gateway = Launch::serve(&prompt_config("[log]\naccess = true\n")).stderr(writer).start().await;
    asked(&gateway, 400).await;
    assert_eq!(gateway.stop().await.code, Some(0));
}

#[tokio::test]
async fn the_level_follows_the_environment_and_production_is_quieter() {
    let (_upstream, launch) = failing("").await;
    let gateway = launch.env("ENVIRONMENT", "production").start().await;
    assert_eq!(gateway.ask(chat("auto", "hi")).await.status, 502);
    let ended = gateway.stop().await;
    let levels: Vec<_> = lines(&ended.stderr).into_iter().map(|line| line["level"].clone()).collect();
    assert_eq!(levels, ["WARN"], "{}", ended.stderr);

    let (_upstream, launch) = failing("").await;
    let gateway = launch.env("THROUGHLINE_LOG", "off").start().await;
    assert_eq!(gateway.ask(chat("auto", "hi")).await.status, 502);
    assert_eq!(gateway.stop().await.stderr, "");
}

#[tokio::test]
async fn requests_on_one_connection_are_not_mixed_up() {
    let (_upstream, launch) = failing("").await;
    let gateway = launch.start().await;
    let body = chat("auto", "hi").to_string();
    let request = |id: &str, close: &str| {
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nx-request-id: {id}\r\n{close}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let both = request("one", "") + &request("two", "connection: close\r\n");
    client.write_all(both.as_bytes()).await.unwrap();
    let said = rest(&mut client).await;
    let traces: Vec<_> = said
        .lines()
        .filter_map(|line| line.strip_prefix("x-throughline-trace-id: "))
        .map(str::trim)
        .collect();
    let ended = gateway.stop().await;
    let failed = with_message(&ended.stderr, "a request failed");
    let ids: Vec<_> = failed
        .iter()
        .map(|line| (line["fields"]["request_id"].as_str(), line["trace_id"].as_str()))
        .collect();
    assert_eq!(ids, [(Some("one"), Some(traces[0])), (Some("two"), Some(traces[1]))]);
}
