//! The files of `ops/` that run a gateway, read by those who will read them.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use process::prometheus::program;
use process::{Launch, chat};
use tempfile::TempDir;

const OPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops");
const TOKEN: &str = "/var/run/secrets/throughline/metrics-token";
const UNITS: [&str; 6] = [
    "throughline.service",
    "throughline-redis.service",
    "throughline-prometheus.service",
    "throughline-alertmanager.service",
    "throughline-grafana.service",
    "throughline-traces.service",
];

fn ops(path: &str) -> String {
    fs::read_to_string(Path::new(OPS).join(path)).unwrap()
}

/// A folder with nothing but `file`, in which `from` is replaced by `to`.
fn changed(file: &str, from: &str, to: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = ops(file);
    assert!(text.contains(from), "{file} has no {from}");
    fs::create_dir_all(folder.path().join(file).parent().unwrap()).unwrap();
    fs::write(folder.path().join(file), text.replacen(from, to, 1)).unwrap();
    folder
}

async fn read_by_schemas(folder: &Path, rendered: Option<&Path>) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/deployment_files.py");
    program("THROUGHLINE_E2E_PYTHON").arg(script).arg(folder).args(rendered).output().await.unwrap()
}

/// A program in the path, if it is there: neither is needed to build or to test anything else.
fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("{name} is not in the path: what it would say is not known");
    }
    found
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs the schemas of Python"]
async fn kubernetes_compose_and_the_prometheus_operator_accept_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let rendered = found("kubectl").map(|kubectl| {
        let output =
            Command::new(kubectl).args(["kustomize", &format!("{OPS}/kubernetes/gateway")]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let path = dir.path().join("rendered.yaml");
        fs::write(&path, output.stdout).unwrap();
        path
    });
    let output = read_by_schemas(Path::new(OPS), rendered.as_deref()).await;
    assert!(output.status.success(), "{}", said(&output));
    for kind in [
        "compose",
        "Deployment",
        "Service",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "ServiceMonitor",
        "PrometheusRule",
    ] {
        assert!(said(&output).contains(kind), "{kind} was not read: {}", said(&output));
    }
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs the schemas of Python"]
async fn what_no_orchestrator_knows_is_found() {
    for (file, from, to, why) in [
        ("compose.yaml", "stop_grace_period:", "stop_grace_perio:", "stop_grace_perio"),
        ("compose.yaml", "read_only: true", "read_only: false", "gateway.read_only is False"),
        ("compose.yaml", "redis:7.4-bookworm", "redis", "names no version"),
        ("kubernetes/gateway/deployment.yaml", "readinessProbe:", "readynessProbe:", "readynessProbe"),
        ("kubernetes/gateway/deployment.yaml", "replicas: 3", "replicas: three", "three"),
        ("kubernetes/monitoring/servicemonitor.yaml", "path:", "pat:", "pat is unknown"),
        ("kubernetes/monitoring/rules-slo.yaml", "expr:", "expression:", "expr"),
    ] {
        let folder = changed(file, from, to);
        let output = read_by_schemas(folder.path(), None).await;
        assert!(!output.status.success(), "{to} was accepted: {}", said(&output));
        assert!(said(&output).contains(why), "{to}: {}", said(&output));
    }
}

/// A root in which the programs of the units are, since they need not be installed here.
fn root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("etc/systemd/system");
    fs::create_dir_all(&units).unwrap();
    for name in UNITS.iter().copied().chain(["throughline.target"]) {
        let text = ops(&format!("systemd/{name}"));
        for line in text.lines().filter(|line| line.starts_with("Exec")) {
            let path = line.split_once('=').unwrap().1.split(' ').next().unwrap();
            let path = if path == "kill" { "/usr/bin/kill" } else { path };
            let program = root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(program.parent().unwrap()).unwrap();
            fs::copy("/bin/true", program).unwrap();
        }
        fs::write(units.join(name), text).unwrap();
    }
    for target in ["sysinit", "basic", "shutdown", "network-online", "multi-user"] {
        fs::write(units.join(format!("{target}.target")), "[Unit]\nDescription=A part of every system\n")
            .unwrap();
    }
    root
}

fn verify(root: &TempDir, systemd: &Path) -> (bool, String) {
    let units = UNITS.iter().copied().chain(["throughline.target"]);
    let mut command = Command::new(systemd);
    command.args(["verify", "--man=no"]).arg(format!("--root={}", root.path().display())).args(units);
    let output = command.output().unwrap();
    // What else is missing of a system in that root is no fault of the units.
    let said =
        said(&output).lines().filter(|line| line.contains("throughline")).collect::<Vec<_>>().join("\n");
    (said.is_empty(), said)
}

#[test]
fn systemd_accepts_the_units_and_finds_them_confined() {
    let Some(systemd) = found("systemd-analyze") else { return };
    let root = root();
    let (accepted, said_of_them) = verify(&root, &systemd);
    assert!(accepted, "{said_of_them}");
    for unit in UNITS {
        let output = Command::new(&systemd)
            .args(["security", "--offline=true", "--threshold=15", "--no-pager"])
            .arg(format!("{OPS}/systemd/{unit}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "exposed to more than 1.5: {}", said(&output));
    }
    // It would find a mistake.
    let unit = root.path().join("etc/systemd/system/throughline.service");
    let text = fs::read_to_string(&unit).unwrap();
    for (from, to) in [
        ("Restart=on-failure", "Restart=sometimes"),
        ("/usr/bin/throughline serve", "/usr/bin/nothing serve"),
    ] {
        fs::write(&unit, text.replacen(from, to, 1)).unwrap();
        let (accepted, _) = verify(&root, &systemd);
        assert!(!accepted, "{to} was accepted");
    }
}

#[tokio::test]
async fn the_configurations_beside_them_are_good_and_answer() {
    let token = tempfile::NamedTempFile::new().unwrap();
    fs::write(token.path(), "a-token-for-the-tests").unwrap();
    for (file, address) in
        [("throughline.toml", "127.0.0.1:8080"), ("kubernetes/gateway/throughline.toml", "0.0.0.0:8080")]
    {
        let text = ops(file).replace(TOKEN, token.path().to_str().unwrap());
        assert!(text.contains(&format!("listen = \"{address}\"")), "{file}");
        // There is no Redis, and that costs no answer.
        let text = text.replace("redis:6379", "127.0.0.1:1").replace("127.0.0.1:6379", "127.0.0.1:1");
        let gateway = Launch::serve(&text).start().await;
        let answer = gateway.ask(chat("auto", "hi")).await;
        assert_eq!((answer.status, answer.header("x-throughline-route")), (200, Some("cheap")), "{answer:?}");
        assert_eq!(gateway.stop().await.code, Some(0));
    }
}

#[test]
fn the_pieces_wait_for_each_other_long_enough() {
    // drain_timeout, and what telemetry may take to deliver.
    let needed = 10 + 5;
    let number = |text: &str, key: &str| -> u64 {
        let (_, rest) = text.split_once(key).unwrap_or_else(|| panic!("no {key}"));
        rest.trim_start().chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    let deployment = ops("kubernetes/gateway/deployment.yaml");
    let sleep = number(&deployment, "sleep:\n                seconds:");
    assert!(number(&deployment, "terminationGracePeriodSeconds:") >= sleep + needed);
    assert!(number(&ops("compose.yaml"), "stop_grace_period:") > needed);
    assert!(number(&ops("systemd/throughline.service"), "TimeoutStopSec=") > needed);
}
