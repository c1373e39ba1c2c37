//! `throughline maturity`, from evidence that other tools have written.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::path::Path;
use std::process::Stdio;

use http::Method;
use process::{Finished, Launch, client, prompt_config, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use throughline::telemetry::Scrape;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

const GUIDE: &str = include_str!("../../docs/guides/maturity.md");

/// The fenced blocks of a language that begin with `head`.
fn block(language: &str, head: &str) -> &'static str {
    let fence = format!("```{language}\n");
    let blocks = GUIDE.match_indices(&fence).map(|(at, _)| &GUIDE[at + fence.len()..]);
    let block = blocks.map(|rest| &rest[..rest.find("```").unwrap()]).find(|block| block.starts_with(head));
    block.unwrap_or_else(|| panic!("the guide has no {language} block that begins with {head}"))
}

/// A folder with a file and evidence for it.
struct Project(TempDir);

impl Project {
    /// Evidence that opens every gate of `COMPONENT`.
    fn good() -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        project.write("maturity.toml", PRODUCTION);
        project.write("junit.xml", JUNIT);
        project.write(
            "lcov.info",
            "SF:/ci/src/router.rs\r\nDA:1,4\r\nDA:2,1\r\nDA:3,1\r\nDA:4,1\r\nDA:5,0\r\nend_of_record\r\n",
        );
        project.write(
            "audit.json",
            r#"{"lockfile":{"dependency-count":9},"vulnerabilities":{"found":false,"count":0,"list":[]}}"#,
        );
        project.write(
            "bench.json",
            r#"{"format":"throughline-bench/1","unit":"ns","results":[{"name":"router","value":249.0}]}"#,
        );
        project.write("README.md", "# Router\n");
        project
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    async fn run(&self, args: &[&str]) -> Finished {
        let file = self.path("maturity.toml");
        Launch::new(&["maturity", args[0], &file]).args(&args[1..]).finish().await
    }

    /// The gate of the only component.
    async fn gate(&self, gate: &str) -> (bool, String) {
        let ended = self.run(&["check", "--json"]).await;
        let found: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
        let gates = found["components"][0]["gates"].as_array().unwrap().clone();
        let gate = gates.iter().rfind(|found| found["gate"] == gate).unwrap();
        (gate["passed"].as_bool().unwrap(), gate["why"].as_str().unwrap().to_owned())
    }
}

const JUNIT: &str = "<testsuites><testsuite name='router' tests='2'><testcase name='routes'/><testcase name='waits'/>\
                     </testsuite><testsuite name='e2e'><testcase name='answers'/></testsuite>\
                     <testsuite name='ci'><testcase name='clippy'/></testsuite></testsuites>";

const PRODUCTION: &str = r#"
[evidence]
tests = ["junit.xml"]
coverage = ["lcov.info"]
advisories = ["audit.json"]
benchmarks = ["bench.json"]

[components.router]
description = "Chooses a model <script>alert(1)</script>"
owner = "Ada & Grace"
stage = "production"
sources = ["src/router.rs"]
tests = ["router *"]
integration_tests = ["e2e *"]
checks = ["ci clippy"]
documentation = ["README.md"]
runbook = ["README.md"]
budgets = { router = 500.0 }
since = { staging = 2026-01-01, production = 2026-02-01 }
sign_off.production = { by = "Ada", on = 2026-02-01 }
"#;

#[tokio::test]
async fn a_claim_holds_when_every_gate_is_open() {
    let ended = Project::good().run(&["check"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    for said in [
        "ok   router: production, all gates passed; coverage 80.00 %",
        "passed  staging     tests              2 of 2 passed",
        "passed  production  coverage           80.00 % of lines, 80 % or more are asked for",
        "passed  production  benchmarks         router: 249 ns of at most 500",
        "passed  production  days_in_stage      31 days in staging, 7 or more are asked for",
        "passed  production  sign_off           Ada on 2026-02-01",
        "1 component: 0 in development, 0 in staging, 1 in production; every claim holds",
    ] {
        assert!(ended.stdout.contains(said), "{said}\n{}", ended.stdout);
    }
}

#[tokio::test]
async fn a_gate_is_shut_by_evidence_that_is_missing_broken_empty_stale_or_says_no() {
    for (name, text, gate, why) in [
        ("junit.xml", "", "tests", "junit.xml: not xml: "),
        ("junit.xml", "<testsuites/>", "tests", "junit.xml: it lists no test"),
        (
            "junit.xml",
            "<testsuite name='x'><testcase name='y'/></testsuite>",
            "tests",
            "no test in the reports matches `router *`",
        ),
        (
            "junit.xml",
            "<testsuite name='router'><testcase name='a'/><testcase name='b'><failure/></testcase></testsuite>",
            "tests",
            "1 of 2 passed, 1 failed: router b",
        ),
        (
            "junit.xml",
            "<testsuite name='router'><testcase name='a'><skipped/></testcase></testsuite>",
            "tests",
            "0 of 1 passed, 1 skipped",
        ),
        (
            "junit.xml",
            "<testsuite name='router' timestamp='2020-01-01'><testcase name='a'/></testsuite>",
            "tests",
            "junit.xml: it is ",
        ),
        (
            "junit.xml",
            "<testsuite name='router'><testcase name='a'/></testsuite>",
            "integration_tests",
            "no test in the reports matches `e2e *`",
        ),
        (
            "lcov.info",
            "SF:src/router.rs\nDA:1,1\nDA:2,0\nend_of_record\n",
            "coverage",
            "50.00 % of lines, 80 % or more are asked for",
        ),
        (
            "lcov.info",
            "SF:src/other.rs\nDA:1,1\nend_of_record\n",
            "coverage",
            "`src/router.rs` is not in the reports",
        ),
        ("lcov.info", "", "coverage", "lcov.info: it lists no source file"),
        (
            "audit.json",
            r#"{"lockfile":{"dependency-count":9},"vulnerabilities":{"found":true,"count":1,"list":[{"advisory":{"id":"RUSTSEC-2026-0001"}}]}}"#,
            "advisories",
            "1 open, at most 0 allowed: RUSTSEC-2026-0001",
        ),
        ("audit.json", "{}", "advisories", "audit.json: it is a report neither"),
        (
            "bench.json",
            r#"{"format":"throughline-bench/1","unit":"ns","results":[{"name":"router","value":501}]}"#,
            "benchmarks",
            "router: 501 ns of at most 500",
        ),
        (
            "bench.json",
            r#"{"format":"throughline-bench/1","unit":"ns","results":[{"name":"x","value":1}]}"#,
            "benchmarks",
            "no result is called `router`",
        ),
        ("README.md", "", "runbook", "README.md: it is empty"),
    ] {
        let project = Project::good();
        project.write(name, text);
        let (passed, said) = project.gate(gate).await;
        assert!(!passed && said.starts_with(why), "{gate}: {said}");
        let ended = project.run(&["check"]).await;
        assert_eq!(ended.code, Some(1), "{}", ended.stdout);
        assert_eq!(ended.stderr, "not what they claim to be: router\n");
        assert!(ended.stdout.contains("FAIL router: production, claims production, evidence supports "));
        std::fs::remove_file(project.0.path().join(name)).unwrap();
        let (passed, said) = project.gate(gate).await;
        assert!(!passed && said == format!("{name}: there is no such file"), "{gate}: {said}");
    }
}

#[tokio::test]
async fn a_bad_file_is_refused_with_its_place_and_no_page_is_written() {
    let project = Project::good();
    project.write("maturity.toml", &PRODUCTION.replace("stage = ", "stge = "));
    for args in [&["check"][..], &["report"], &["export"], &["export", "--listen", "127.0.0.1:0"]] {
        let ended = project.run(args).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(
            ended.stderr.contains("maturity.toml:11:1: unknown key `stge`, did you mean `stage`?"),
            "{}",
            ended.stderr
        );
    }
    let ended = Launch::new(&["maturity", "check"]).finish().await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.starts_with("maturity.toml: cannot read the configuration: there is no such file"));
}

#[tokio::test]
async fn a_page_holds_nothing_that_a_browser_would_run() {
    let project = Project::good();
    let html = project.path("page.html");
    let ended = project.run(&["report", "--format", "html", "--output", &html]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended:?}");
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(
        page.contains("Chooses a model &lt;script&gt;alert(1)&lt;/script&gt;")
            && page.contains("Ada &amp; Grace")
    );
    assert!(!page.contains("<script") && !page.contains("http"), "it loads nothing");
    assert!(page.contains("<div style=\"width:80.0%\">"), "{page}");
    let markdown = project.run(&["report"]).await.stdout;
    assert!(markdown.contains("Chooses a model &lt;script\\>alert(1)&lt;/script\\>"), "{markdown}");
    for line in [
        "# Maturity: maturity status",
        "- [x] coverage: 80.00 % of lines, 80 % or more are asked for",
        "**Status**: 7/7 criteria met",
        "* production: 2026-02-01, signed by Ada on 2026-02-01",
    ] {
        assert!(markdown.lines().any(|found| found == line), "{line}\n{markdown}");
    }
}

#[tokio::test]
async fn the_textfile_is_replaced_and_says_what_was_found() {
    let project = Project::good();
    let output = project.path("m.prom");
    let ended = project.run(&["export", "--output", &project.path("m.txt")]).await;
    assert_eq!((ended.code, ended.stderr.contains("names that end in .prom")), (Some(2), true));
    for (coverage, expected, stage) in [("DA:5,0", Some(0.8), "production"), ("DA:5,x", None, "development")]
    {
        let lcov = format!("SF:src/router.rs\nDA:1,4\nDA:2,1\nDA:3,1\nDA:4,1\n{coverage}\nend_of_record\n");
        project.write("lcov.info", &lcov);
        assert_eq!(project.run(&["export", "--output", &output]).await.code, Some(0));
        let page = Scrape::parse(&std::fs::read_to_string(&output).unwrap());
        let router = ("component", "router");
        assert_eq!(page.sum("component_coverage_ratio", &[router]), expected);
        assert_eq!(page.sum("component_stage", &[router]), Some(1.0), "it is in one stage");
        assert_eq!(page.sum("component_stage", &[router, ("stage", stage)]), Some(1.0));
        assert_eq!(
            page.sum("component_claim_holds", &[router]),
            Some(f64::from(u8::from(expected.is_some())))
        );
        let gate = |name| page.sum("component_quality_gate_passed", &[router, ("gate", name)]);
        assert_eq!(gate("production_coverage"), Some(f64::from(u8::from(expected.is_some()))));
        assert_eq!(gate("staging_tests"), Some(1.0));
        assert!(page.sum("component_last_evaluated_timestamp_seconds", &[]) > Some(1.7e9));
    }
    let left: Vec<_> =
        std::fs::read_dir(project.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
}

#[tokio::test]
#[ignore = "run by cargo xtask test"]
async fn promtool_finds_nothing_wrong_with_the_textfile() {
    let page = Project::good().run(&["export"]).await.stdout;
    let promtool = std::env::var_os("THROUGHLINE_E2E_PROMTOOL").expect("cargo xtask test sets it");
    let mut check = tokio::process::Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(page.as_bytes()).await.unwrap();
    let output = check.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}\n{page}");
}

#[tokio::test]
async fn a_page_of_its_own_follows_the_files_until_it_is_told_to_stop() {
    let project = Project::good();
    let ended = project.run(&["export", "--listen", "0.0.0.0:0"]).await;
    assert_eq!((ended.code, ended.stderr.contains("loopback")), (Some(2), true), "{}", ended.stderr);
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_throughline"))
        .args(["maturity", "export", &project.path("maturity.toml"), "--listen", "127.0.0.1:0"])
        .env_clear()
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.next_line().await.unwrap().unwrap();
    let address = said.strip_prefix("metrics http://").unwrap().strip_suffix("/metrics").unwrap();
    let (client, address) = (client::client(), address.parse().unwrap());
    let coverage = async || {
        let answer = client::send(&client, client::request(Method::GET, address, "/metrics", "")).await;
        Scrape::parse(str::from_utf8(&answer.body).unwrap()).sum("component_coverage_ratio", &[])
    };
    until("the first figures", async || (coverage().await == Some(0.8)).then_some(())).await;
    project.write("lcov.info", "SF:src/router.rs\nDA:1,4\nend_of_record\n");
    until("the change to be seen", async || (coverage().await == Some(1.0)).then_some(())).await;
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_gateway_shows_components_and_says_when_their_file_is_broken() {
    let project = Project::good();
    let file = project.path("maturity.toml");
    let config = prompt_config(&format!("[maturity]\nfile = \"{file}\"\n"));
    let gateway = Launch::serve(&config).start().await;
    gateway.settles("component_stage", &[("component", "router"), ("stage", "production")], 1.0).await;
    assert_eq!(gateway.metric("component_coverage_ratio", &[("component", "router")]).await, 0.8);
    let ready = async || gateway.send(Method::GET, "/readyz", "").await.json();
    assert_eq!(ready().await["status"], "ready");

    project.write("maturity.toml", "[components.router]\nstage = 1\n");
    let degraded = until("the broken file to be noticed", async || {
        let said = ready().await;
        (said["status"] == "degraded").then_some(said)
    });
    let degraded = degraded.await;
    assert_eq!(degraded["degraded"][0]["part"], "maturity");
    assert!(
        degraded["degraded"][0]["reason"].as_str().unwrap().contains("maturity.toml:2:9: "),
        "{degraded}"
    );
    assert_eq!(gateway.metric("component_coverage_ratio", &[("component", "router")]).await, 0.8);
    assert_eq!(
        gateway.ask(r#"{"model":"auto","messages":[{"role":"user","content":"hi"}]}"#).await.status,
        200
    );
    let ended = gateway.stop().await;
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.stderr.matches("components are not evaluated").count(), 1, "{}", ended.stderr);
}

#[tokio::test]
async fn a_gateway_serves_though_the_components_are_not_there() {
    let gateway = Launch::serve(&prompt_config("[maturity]\nfile = \"none.toml\"\n")).start().await;
    let reason = until("the missing file to be noticed", async || {
        let said = gateway.send(Method::GET, "/readyz", "").await.json();
        said["degraded"][0]["reason"].as_str().map(ToOwned::to_owned)
    });
    assert!(reason.await.ends_with("none.toml: cannot read the configuration: there is no such file"));
    assert_eq!(
        gateway.ask(r#"{"model":"auto","messages":[{"role":"user","content":"hi"}]}"#).await.status,
        200
    );
}

#[tokio::test]
async fn the_projects_own_file_is_good_and_claims_nothing_that_does_not_hold() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../maturity.toml");
    let ended = Launch::new(&["maturity", "check", own.to_str().unwrap(), "--json"]).finish().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    for component in found["components"].as_array().unwrap() {
        let name = &component["name"];
        for gate in component["gates"].as_array().unwrap() {
            let documents = gate["gate"] == "documentation";
            assert!(!documents || gate["passed"] == true, "{name}: {}", gate["why"]);
        }
    }
}

#[tokio::test]
async fn the_guide_shows_what_is_really_said() {
    let project = Project(tempfile::tempdir().unwrap());
    project.write("junit.xml", block("xml", "<testsuites"));
    project.write("lcov.info", block("text", "SF:"));
    project.write("README.md", "# Router\n");
    project.write("maturity.toml", block("toml", "title"));
    let check = project.run(&["check"]).await;
    assert_eq!(check.code, Some(1));
    assert_eq!(check.stdout, block("text", "FAIL"));
    assert_eq!(check.stderr, block("text", "not what"));
    let report = project.run(&["report"]).await.stdout;
    let dated = report.lines().filter(|line| !line.contains("Evaluated ") && !line.contains("| 20"));
    let shown = block("markdown", "# ");
    let dated: Vec<_> = dated.collect();
    for line in shown.lines() {
        assert!(dated.contains(&line), "the report does not say: {line}\n{report}");
    }
}
