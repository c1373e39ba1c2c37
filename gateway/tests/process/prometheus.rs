//! A real Prometheus, and other programs that `cargo xtask test` provides.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::client::get;
use super::until;

/// A program that the tests need, from the variable that `cargo xtask test` sets.
pub(crate) fn program(variable: &str) -> Command {
    let path = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} names the program"));
    let mut command = Command::new(path);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// A Prometheus that runs. Dropping it kills it.
pub(crate) struct Prometheus {
    address: SocketAddr,
    _child: Child,
    _directory: TempDir,
}

/// The series that Prometheus has now: labels, the name among them, and the value.
pub(crate) struct Series(pub(crate) Vec<(BTreeMap<String, String>, f64)>);

// === impl Prometheus ===

impl Prometheus {
    /// Scrapes `target` as the job `gateway`.
    pub(crate) async fn scraping(target: SocketAddr) -> Self {
        Self::with_jobs(&[("gateway", target, "")], |_| ()).await
    }

    /// Scrapes each target as the job of that name, with these further lines of YAML for the job (each with its line
    /// end), after `files` has put what they name into the directory.
    pub(crate) async fn with_jobs(jobs: &[(&str, SocketAddr, &str)], files: impl FnOnce(&Path)) -> Self {
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|port| port.local_addr())
            .expect("there is a free port");
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        files(directory.path());
        let mut config =
            "global: { scrape_interval: 250ms, scrape_timeout: 250ms }\nscrape_configs:\n".to_owned();
        for (name, target, more) in jobs {
            config += &format!("- job_name: {name}\n  static_configs: [{{ targets: ['{target}'] }}]\n{more}");
        }
        std::fs::write(directory.path().join("prometheus.yml"), config).expect("it can be written to");
        let child = program("THROUGHLINE_E2E_PROMETHEUS")
            .current_dir(directory.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"])
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=exemplar-storage")
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program can be started");
        let prometheus = Self { address, _child: child, _directory: directory };
        let ready = async || tokio::net::TcpStream::connect(address).await.ok();
        until("Prometheus to listen", ready).await;
        until("Prometheus to be ready", async || {
            (get(address, "/-/ready").await.status == 200).then_some(())
        })
        .await;
        prometheus
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it answers to a query, errors included.
    pub(crate) async fn query(&self, query: &str) -> Value {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        get(self.address, &format!("/api/v1/query?query={encoded}")).await.json()
    }

    pub(crate) async fn api(&self, path: &str) -> Value {
        let answer = get(self.address, path).await.json();
        assert_eq!(answer["status"], "success", "{answer}");
        answer["data"].clone()
    }

    /// Every series of the job `gateway`, `up` included.
    pub(crate) async fn series(&self) -> Series {
        self.series_of("gateway").await
    }

    /// Every series of a job.
    pub(crate) async fn series_of(&self, job: &str) -> Series {
        let data = self.api(&format!("/api/v1/query?query=%7Bjob%3D%22{job}%22%7D")).await;
        let series = data["result"].as_array().expect("a vector is asked for").iter().map(|series| {
            let labels = serde_json::from_value(series["metric"].clone()).expect("labels are text");
            let value = series["value"][1].as_str().expect("a value is text");
            (labels, value.parse().expect("it is a number"))
        });
        Series(series.collect())
    }

    /// Waits until the job's target is up, or with `false` until it is known to be down.
    pub(crate) async fn is_up(&self, job: &str, up: bool) {
        let wanted = if up { 1.0 } else { 0.0 };
        until(&format!("`up` of {job} to be {wanted}"), async || {
            (self.series_of(job).await.value("up", &[]) == Some(wanted)).then_some(())
        })
        .await;
    }

    /// Why the last scrape of a job failed; empty when it did not.
    pub(crate) async fn last_error(&self, job: &str) -> String {
        let data = self.api("/api/v1/targets").await;
        let targets = data["activeTargets"].as_array().expect("it is a list").iter();
        let of = |target: &&Value| target["labels"]["job"] == job;
        let error = targets.clone().find(of).map(|target| target["lastError"].as_str().unwrap_or_default());
        error.unwrap_or_else(|| panic!("there is no job {job}")).to_owned()
    }
}

// === impl Series ===

impl Series {
    /// The only series called `name` that has exactly these labels, beside those of Prometheus itself.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: BTreeMap<&str, &str> = labels.iter().copied().chain([("__name__", name)]).collect();
        let own = |key: &&String| !matches!(key.as_str(), "job" | "instance");
        let mut found = self.0.iter().filter(|(labels, _)| {
            labels.keys().filter(own).count() == wanted.len()
                && wanted.iter().all(|(key, value)| labels.get(*key).is_some_and(|found| found == value))
        });
        let value = found.next().map(|(_, value)| *value);
        assert!(found.next().is_none(), "{name} {labels:?} is there twice");
        value
    }
}
