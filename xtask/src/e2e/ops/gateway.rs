//! The gateway as people run it, in front of providers and a store that can be made to fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::e2e::interrupt::Interrupt;
use crate::e2e::service::{Service, free_port};
use crate::failure::Failure;
use crate::workspace::{Workspace, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// How a gateway is started, as often as it takes.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
    pub(crate) metrics_port: u16,
    pub(crate) collector: String,
}

/// What the gateway's configuration points at.
pub(crate) struct Around<'a> {
    pub(crate) cheap: &'a str,
    pub(crate) premium: &'a str,
    pub(crate) plain: &'a str,
    pub(crate) redis_port: u16,
}

/// A running gateway.
pub(crate) struct Gateway {
    service: Service,
}

/// Builds it, with the features that the tests are built with, so that nothing is built twice.
///
/// # Errors
/// When it does not build.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf, Failure> {
    let what = ["build", "--workspace", "--all-features", "--bin", "throughline"];
    run(workspace.cargo(what).stdout(std::io::stderr()))?;
    Ok(workspace.target().join("debug/throughline"))
}

// === impl Setup ===

impl Setup {
    /// On free ports, with its configuration written.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub(crate) fn write(
        program: &Path,
        folder: &Path,
        collector: String,
        around: &Around<'_>,
    ) -> Result<Self, Failure> {
        let setup = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            port: free_port()?,
            metrics_port: free_port()?,
            collector,
        };
        setup.write_config(&config(&setup, around))?;
        setup.put("maturity.toml", MATURITY)?;
        setup.put("junit.xml", JUNIT)?;
        setup.put("lcov.info", &lcov(9))?;
        setup.put("README.md", README)?;
        Ok(setup)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("throughline.toml")
    }

    pub(crate) fn write_config(&self, text: &str) -> Result<(), Failure> {
        self.put("throughline.toml", text)
    }

    /// Writes a file beside the configuration.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(crate) fn put(&self, name: &str, text: &str) -> Result<(), Failure> {
        let file = self.folder.join(name);
        fs::create_dir_all(&self.folder)
            .and_then(|()| fs::write(&file, text))
            .map_err(|error| Failure::missing(format!("cannot write {}: {error}", file.display())))
    }

    /// Starts it, with nothing else in its environment.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(&self, interrupt: &Interrupt) -> Result<Gateway, Failure> {
        let mut command = Command::new(&self.program);
        command.args(["serve", "--config"]).arg(self.config()).current_dir(&self.folder).env_clear();
        command.envs([
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", self.collector.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.3"),
            // So that there is something to redact.
            ("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true"),
        ]);
        let mut service = Service::start("the gateway", &mut command, &self.folder.join("gateway.log"))?;
        service.wait(interrupt, PATIENCE, |service| {
            service
                .said()
                .contains("\ngateway ")
                .then_some(())
                .or_else(|| service.said().starts_with("gateway ").then_some(()))
        })?;
        Ok(Gateway { service })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

// === impl Gateway ===

impl Gateway {
    pub(crate) fn stop(self) {
        self.service.stop();
    }

    pub(crate) fn reload(&self) {
        self.service.signal(Signal::HUP);
    }
}

/// Four models: `auto` routes and keeps its answers in Redis, `memo` keeps them in memory, `faq` gives them to similar questions
/// as well and has all of these audited, and `plain` has no cache.
pub(crate) fn config(setup: &Setup, around: &Around<'_>) -> String {
    let (port, metrics_port) = (setup.port, setup.metrics_port);
    let Around { cheap, premium, plain, redis_port } = around;
    format!(
        r#"
[server]
listen = "127.0.0.1:{port}"
drain_timeout = "1s"

[telemetry]
metrics_listen = "127.0.0.1:{metrics_port}"
keep_errors = true

[maturity]
file = "maturity.toml"

[stores.shared.redis]
url = "redis://127.0.0.1:{redis_port}/0"
deadline = "100ms"

[providers.cheap.openai]
base_url = "{cheap}"

[providers.premium.openai]
base_url = "{premium}"

[providers.plain.openai]
base_url = "{plain}"

[prices.small]
input = 400.0
output = 400.0
source = "made up, and large enough to be seen"
date = "2026-11-01"

[prices.large]
input = 1000.0
output = 1000.0
source = "made up, and large enough to be seen"
date = "2026-11-01"

[models.auto]
default_route = "cheap"
baseline = "premium"
route_header = "x-route"
cache = {{ ttl = "10m", store = "shared" }}
timeout = {{ limit = "4s", grace = "500ms" }}
fallback = ["premium"]

[models.auto.routes.cheap]
provider = "cheap"
model = "small"
timeout = {{ limit = "800ms", grace = "200ms" }}
retry = {{ attempts = 2, first_delay = "5ms", longest_delay = "20ms" }}
hedge = {{ after = "250ms" }}
circuit_breaker = {{ failure_rate = 0.5, min_calls = 10, open_for = "3s" }}

[models.auto.routes.premium]
provider = "premium"
model = "large"
timeout = {{ limit = "800ms", grace = "200ms" }}

[models.memo]
cache = {{ ttl = "10m", max_bytes = "1MiB" }}

[models.memo.routes.only]
provider = "premium"
model = "large"

[models.faq]
cache = {{ ttl = "10m", semantic = {{ mode = "answer", threshold = 0.8, max_error = 0.5, learned = "ngrams-1", audit = 1 }} }}

[models.faq.routes.only]
provider = "premium"
model = "gpt-4o-mini"

[models.plain]
default_route = "main"
fallback = ["spare"]

[models.plain.routes.main]
provider = "plain"
model = "unpriced"
timeout = {{ limit = "250ms", grace = "50ms" }}

[models.plain.routes.spare]
provider = "premium"
model = "large"
timeout = {{ limit = "800ms", grace = "200ms" }}
"#
    )
}

/// A component that is where it says.
const MATURITY: &str = r#"
title = "The stand"

[evidence]
tests = ["junit.xml"]
coverage = ["lcov.info"]

[criteria.staging]
checks = false
advisories = false

[components.part]
description = "What the stand stands for"
stage = "development"
tests = ["part *"]
documentation = ["README.md"]
"#;

/// A report of ten lines, of which so many are covered.
pub(crate) fn lcov(covered: usize) -> String {
    let lines = (1..=10).map(|line| format!("DA:{line},{}\n", usize::from(line <= covered)));
    format!("SF:src/part.rs\n{}end_of_record\n", lines.collect::<String>())
}

/// The same, a stage further.
pub(crate) fn promoted() -> String {
    MATURITY.replace("\"development\"", "\"staging\"")
}

pub(crate) const fn not_promoted() -> &'static str {
    MATURITY
}

pub(crate) const README: &str = "# The part\n";
pub(crate) const JUNIT: &str =
    "<testsuites><testsuite name=\"part\" tests=\"1\"><testcase name=\"works\"/></testsuite></testsuites>\n";
