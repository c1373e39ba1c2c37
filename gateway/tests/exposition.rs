//! The page of /metrics against the formats' own rules and against the list of what may be on it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use http::header::ACCEPT;
use process::prometheus::program;
use process::{Gateway, Launch, PROMPT_PROVIDER, chat, client};
use throughline::telemetry::Scrape;

const FAMILIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/families.txt");

const CONFIG: &str = r#"
[providers.failing.simulated]
latency = { p50 = "1ms", p99 = "1ms" }
faults = { error_rate = 1.0, error_status = 503 }

[providers.hanging.simulated]
faults = { hang_rate = 1.0 }

[models.auto]
default_route = "cheap"
baseline = "dear"
route_header = "x-route"
cache = { ttl = "1h", semantic = {} }
timeout = { limit = "1h" }
[models.auto.routes.cheap]
provider = "sim"
model = "gpt-4o-mini"
retry = {}
hedge = { after = "1h" }
circuit_breaker = {}
[models.auto.routes.dear]
provider = "sim"
model = "gpt-4o"

[models.broken.routes.only]
provider = "failing"
model = "of-no-known-price"
retry = { attempts = 2, first_delay = "1ms" }

[models.stuck]
timeout = { limit = "20ms" }
[models.stuck.routes.only]
provider = "hanging"
model = "gpt-4o-mini"

[models.unpriced.routes.only]
provider = "sim"
model = "of-no-known-price"
"#;

/// A gateway that has had requests of every kind.
async fn gateway() -> Gateway {
    let launch = Launch::serve(&format!("{PROMPT_PROVIDER}\n{CONFIG}"));
    let launch = launch.env("OTEL_TRACES_EXPORTER", "console").env("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let gateway = launch.start().await;
    for (model, prompt) in
        [("auto", "one"), ("auto", "one"), ("broken", "x"), ("stuck", "x"), ("unpriced", "x"), ("none", "x")]
    {
        gateway.ask(chat(model, prompt)).await;
    }
    gateway.ask_with(&[("x-route", "dear")], chat("auto", "two")).await;
    gateway.ask_with(&[("x-route", "nowhere")], chat("auto", "six")).await;
    let mut streamed = chat("auto", "flow");
    streamed["stream"] = true.into();
    gateway.ask(streamed).await;
    gateway.ask("not json").await;
    gateway.send(Method::GET, "/v1/models", "").await;
    gateway.send(Method::DELETE, "/nowhere", "").await;
    gateway
}

async fn page(gateway: &Gateway, accept: &str) -> String {
    let mut request = client::request(Method::GET, gateway.metrics.unwrap(), "/metrics", "");
    request.headers_mut().insert(ACCEPT, accept.parse().unwrap());
    let answer = client::send(&client::client(), request).await;
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs prometheus-client of Python"]
async fn strict_parsers_of_both_formats_accept_the_page_and_find_the_same() {
    let gateway = gateway().await;
    let dir = tempfile::tempdir().unwrap();
    let (strict, older) = (dir.path().join("openmetrics"), dir.path().join("text"));
    let openmetrics = page(&gateway, "application/openmetrics-text; version=1.0.0").await;
    assert!(openmetrics.contains(" # {trace_id="), "exemplars are a part of what is checked");
    std::fs::write(&strict, &openmetrics).unwrap();
    std::fs::write(&older, page(&gateway, "text/plain").await).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/strict_parser.py");
    let read = async |strict| {
        let parser = program("THROUGHLINE_E2E_PYTHON").arg(script).arg(strict).arg(&older).output();
        let output = parser.await.unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (accepted, said) = read(&strict).await;
    assert!(accepted, "{said}");
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(found["samples"], Scrape::parse(&openmetrics).samples().len());

    // The parser does find what is wrong.
    for (right, wrong) in
        [("# EOF\n", ""), ("cache_hits_total{", "cache_hits{"), ("le=\"+Inf\"", "le=\"9e9\"")]
    {
        std::fs::write(&strict, openmetrics.replacen(right, wrong, 1)).unwrap();
        assert!(!read(&strict).await.0, "without {right} it is accepted");
    }
}

/// A family by its name: type, help and the label names of each of its samples, without `le`.
fn families(openmetrics: &str) -> BTreeMap<String, (String, String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    let mut help = "";
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap().1;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            families.insert(name.to_owned(), (kind.to_owned(), help.to_owned(), BTreeSet::new()));
        }
    }
    for sample in Scrape::parse(openmetrics).samples() {
        let suffix = ["_bucket", "_sum", "_count", "_total"]
            .iter()
            .find_map(|suffix| sample.name.strip_suffix(suffix).filter(|name| families.contains_key(*name)));
        let family = suffix.unwrap_or(&sample.name);
        let labels: Vec<&str> =
            sample.labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
        let (_, _, sets) = families.get_mut(family).unwrap_or_else(|| panic!("{sample:?} has no family"));
        sets.insert(labels.join(","));
    }
    families
}

/// Once the page is meant to change:
/// `UPDATE_FIXTURES=1 cargo test -p throughline-gateway --test exposition`.
#[tokio::test]
async fn the_page_holds_the_families_of_the_list_with_their_labels_and_no_others() {
    let gateway = gateway().await;
    let mut list = String::new();
    for (name, (kind, help, labels)) in
        families(&page(&gateway, "application/openmetrics-text; version=1.0.0").await)
    {
        let labels: Vec<String> = labels.into_iter().collect();
        let [labels] = labels.as_slice() else { panic!("{name} has series with unlike labels: {labels:?}") };
        list += &format!("{name} {kind} {{{labels}}} {help}\n");
    }
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(FAMILIES, &list).unwrap();
    }
    let golden = std::fs::read_to_string(FAMILIES).unwrap();
    assert_eq!(list, golden, "names, types, labels and help are a promise to whoever queries them");
    // What the library declares is on the list as it is declared.
    let declared = throughline::telemetry::catalogue();
    let mut found = 0;
    for family in declared {
        let exposed = family.exposed_name();
        let name = exposed.strip_suffix("_total").unwrap_or(&exposed);
        let Some(line) = golden.lines().find(|line| line.split(' ').next() == Some(name)) else { continue };
        let mut labels = family.labels().to_vec();
        labels.sort_unstable();
        assert!(line.ends_with(&format!("{{{}}} {}", labels.join(","), family.help())), "{line}");
        found += 1;
    }
    assert!(found > 20, "{found} families of the library are on the page");
}
