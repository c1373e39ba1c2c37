//! The operations pack beside what it is for: a real Prometheus that has loaded it, and a gateway that it scrapes.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;
mod rules;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use process::prometheus::Prometheus;
use process::{Launch, PROMPT_PROVIDER, chat, until};
use rules::Pack;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// One of everything that the runbooks' commands look for. Nothing listens at the store's address.
const CONFIG: &str = r#"
[maturity]
file = "maturity.toml"

[stores.shared.redis]
url = "redis://127.0.0.1:1"

[prices.small]
input = 100.0
output = 200.0
source = "this test"
date = "2026-11-22"

[models.auto]
default_route = "cheap"
baseline = "dear"
cache = { ttl = "1h", store = "shared" }
timeout = { limit = "1h" }

[models.auto.routes.cheap]
provider = "sim"
model = "small"
circuit_breaker = {}

[models.auto.routes.dear]
provider = "sim"
model = "small"
"#;

const MATURITY: &str = "[components.router]\ndescription = \"Chooses a model\"\nstage = \"development\"\n";

/// A Prometheus that scrapes `target` and has loaded the rules, which are evaluated each second and look no further
/// back than a test lasts.
async fn with_rules(pack: &Pack, target: SocketAddr) -> Prometheus {
    let load = "rule_files: [rules/*.yml]\n";
    let hasty = |text: String| {
        let seconds = ["30s", "2m", "5m"].iter().fold(text, |text, interval| {
            text.replace(&format!("    interval: {interval}\n"), "    interval: 1s\n")
        });
        seconds.replace("[30d:1h]", "[30d:1s]")
    };
    Prometheus::with_jobs(&[("throughline", target, load)], |folder| {
        std::fs::create_dir(folder.join("rules")).unwrap();
        for entry in std::fs::read_dir(pack.folder().join("prometheus/rules")).unwrap() {
            let file = entry.unwrap();
            let text = std::fs::read_to_string(file.path()).unwrap();
            std::fs::write(folder.join("rules").join(file.file_name()), hasty(text)).unwrap();
        }
    })
    .await
}

/// `throughline ops check --json`: its exit code, and what it found.
async fn check(prometheus: &Prometheus) -> (Option<i32>, Value, String) {
    let url = format!("http://{}/", prometheus.address());
    let ended = Launch::new(&["ops", "check", &url, "--json"]).finish().await;
    let found = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended.code, found, ended.stderr)
}

fn missing(found: &Value) -> BTreeSet<String> {
    let names = found["missing"].as_array().unwrap().iter().map(|missing| missing["name"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

fn blind<'a>(found: &'a Value, name: &str) -> Vec<&'a str> {
    let missing = found["missing"].as_array().unwrap().iter().find(|missing| missing["name"] == name);
    missing.unwrap()["blind"].as_array().unwrap().iter().map(|reader| reader.as_str().unwrap()).collect()
}

/// Serves series of these names to whoever connects; each counts how often it was asked for.
async fn exporter(names: Arc<Mutex<BTreeSet<String>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = AtomicU64::new(0);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let value = count.fetch_add(1, Ordering::Relaxed);
            let page = page(&names.lock().unwrap(), value);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n";
            let answer = format!("{head}content-length: {}\r\n\r\n{page}", page.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

fn page(names: &BTreeSet<String>, value: u64) -> String {
    let mut page = String::new();
    for name in names {
        let labels = "operation=\"a\",route=\"/v1/chat/completions\",code=\"200\"";
        let bounds: &[&str] = if name.ends_with("_bucket") { &[",le=\"1\"", ",le=\"+Inf\""] } else { &[""] };
        for bound in bounds {
            writeln!(page, "{name}{{{labels}{bound}}} {value}").unwrap();
        }
    }
    page
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs prometheus"]
async fn check_finds_nothing_missing_once_every_series_is_there() {
    let (pack, names) = (Pack::exported(&[]).await, Arc::default());
    let prometheus = with_rules(&pack, exporter(Arc::clone(&names)).await).await;
    prometheus.is_up("throughline", true).await;

    let (code, found, said) = check(&prometheus).await;
    assert_eq!(code, Some(1), "{found:#}");
    assert!(said.contains("series missing") && !said.contains("not loaded"), "{said}");
    assert!(!missing(&found).contains("up"), "{found:#}");
    assert!(blind(&found, "cache_hits_total").contains(&"alert CacheHitRateLow"), "{found:#}");

    let raw = missing(&found).into_iter().filter(|name| !name.contains(':'));
    names.lock().unwrap().extend(raw);
    until("every series to be there", async || {
        let (code, found, _) = check(&prometheus).await;
        (code == Some(0)).then(|| assert_eq!(missing(&found), BTreeSet::new()))
    })
    .await;

    // A single one that goes away is noticed.
    names.lock().unwrap().remove("cache_store_up");
    until("the series that went away to be missed", async || {
        let (code, found, _) = check(&prometheus).await;
        (code == Some(1) && missing(&found).contains("cache_store_up"))
            .then(|| assert!(blind(&found, "cache_store_up").contains(&"alert CacheStoreDown")))
    })
    .await;
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs prometheus"]
async fn check_names_rules_that_are_not_loaded_and_series_of_another_job() {
    let names = Arc::new(Mutex::new(BTreeSet::from(["cache_hits_total".to_owned()])));
    let target = exporter(names).await;
    let prometheus = Prometheus::with_jobs(&[("other", target, "")], |_| ()).await;
    prometheus.is_up("other", true).await;
    let (code, found, said) = check(&prometheus).await;
    assert_eq!(code, Some(1));
    assert!(missing(&found).contains("cache_hits_total") && missing(&found).contains("up"), "{found:#}");
    let rules = found["not_loaded"].as_array().unwrap();
    assert!(rules.contains(&"CircuitOpen".into()) && said.contains("rules not loaded"), "{said}");
}

#[tokio::test]
async fn check_says_why_prometheus_cannot_be_asked() {
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = deaf.local_addr().unwrap();
    drop(deaf);
    let ended = Launch::new(&["ops", "check", &format!("http://{address}")]).finish().await;
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains(&format!("cannot ask Prometheus at http://{address}: ")),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("refused"), "{}", ended.stderr);

    let gateway = Launch::serve(&process::prompt_config("")).start().await;
    let ended = Launch::new(&["ops", "check", &format!("http://{}", gateway.address)]).finish().await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("it answers 404 and nothing that Prometheus would"), "{}", ended.stderr);
}

/// The blocks of a runbook that can be carried out, by their language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("\n```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

fn runbooks(pack: &Pack) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(pack.folder().join("runbooks")).unwrap();
    let read = |path: &Path| {
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())
    };
    let mut runbooks: Vec<_> = entries.map(|entry| read(&entry.unwrap().path())).collect();
    runbooks.sort();
    assert!(runbooks.len() > 10, "{} runbooks", runbooks.len());
    runbooks
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs prometheus and curl"]
async fn every_block_of_every_runbook_can_be_carried_out() {
    let pack = Pack::exported(&[]).await;
    let config = format!("{PROMPT_PROVIDER}\n{CONFIG}");
    let launch = Launch::serve(&config).file("maturity.toml", MATURITY);
    let gateway = launch.env("OTEL_TRACES_EXPORTER", "console").start().await;
    assert_eq!(gateway.ask(chat("auto", "hi")).await.status, 200);
    let prometheus = with_rules(&pack, gateway.metrics.unwrap()).await;
    prometheus.is_up("throughline", true).await;

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("throughline.toml"), &config).unwrap();
    std::fs::write(folder.path().join("maturity.toml"), MATURITY).unwrap();
    let here = |command: &str| {
        command
            .replace("127.0.0.1:9464", &gateway.metrics.unwrap().to_string())
            .replace("127.0.0.1:8080", &gateway.address.to_string())
            .replace("127.0.0.1:9090", &prometheus.address().to_string())
    };
    let mut wrong = Vec::new();
    for (alert, text) in runbooks(&pack) {
        for query in blocks(&text, "promql") {
            let answer = prometheus.query(query.trim()).await;
            if answer["status"] != "success" {
                wrong.push(format!("{alert}: {query}{answer}"));
            }
        }
        // Alertmanager is not here: `cargo xtask e2e` has one.
        for command in blocks(&text, "sh").iter().filter(|command| !command.contains(":9093")) {
            if let Err(said) = carried_out(&here(command), folder.path()).await {
                wrong.push(format!("{alert}: {command}{said}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs a command as somebody would who has the program in the path. A command that says nothing helps nobody.
async fn carried_out(command: &str, folder: &Path) -> Result<(), String> {
    let programs = Path::new(env!("CARGO_BIN_EXE_throughline")).parent().unwrap().display();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-euc", command]).current_dir(folder).env("PATH", path).stdin(Stdio::null());
    let output = shell.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.success() {
        true if output.stdout.is_empty() => Err("says nothing".to_owned()),
        true => Ok(()),
        false => Err(said),
    }
}
