//! The gateway as people run it, and the program that uses the library, both sending spans to one place.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::case::{Ask, CLIENT_KEY, Case, MODELS, UPSTREAM_KEY};
use super::upstream::Upstream;
use crate::e2e::http;
use crate::e2e::interrupt::Interrupt;
use crate::e2e::service::Service;
use crate::failure::Failure;
use crate::workspace::{Workspace, run};

const PATIENCE: Duration = Duration::from_secs(60);
const EXAMPLE: &str = "two_models";

/// Where spans go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) protocol: &'static str,
    pub(crate) endpoint: String,
}

/// A running gateway.
pub(crate) struct Gateway {
    service: Service,
    address: String,
}

/// Builds both programs, with the features that the tests are built with, so that nothing is built twice.
///
/// # Errors
/// When they do not build.
pub(crate) fn build(workspace: &Workspace) -> Result<(), Failure> {
    let what = ["build", "--workspace", "--all-features", "--bin", "throughline", "--example", EXAMPLE];
    run(workspace.cargo(what).stdout(std::io::stderr()))
}

// === impl Target ===

impl Target {
    fn variables(&self) -> [(&'static str, &str); 5] {
        [
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &self.endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", self.protocol),
            ("OTEL_EXPORTER_OTLP_HEADERS", super::mlflow::HEADERS),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ]
    }
}

// === impl Gateway ===

impl Gateway {
    /// In front of `upstream`, with nothing else in its environment.
    pub(crate) fn start(
        workspace: &Workspace,
        folder: &Path,
        upstream: &Upstream,
        target: &Target,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let config = folder.join("throughline.toml");
        let provider = format!(
            "[providers.up.openai]\nbase_url = \"http://{}/v1\"\napi_key = \"env:UPSTREAM_KEY\"\n",
            upstream.address
        );
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&config, provider + MODELS))
            .map_err(|error| Failure::missing(format!("cannot write {}: {error}", config.display())))?;
        let mut command = Command::new(workspace.target().join("debug/throughline"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--config"]);
        command.arg(&config).current_dir(folder);
        command.env_clear().env("UPSTREAM_KEY", UPSTREAM_KEY).envs(target.variables());
        let mut service = Service::start("the gateway", &mut command, &folder.join("gateway.log"))?;
        let address = service.wait(interrupt, PATIENCE, |service| address(&service.said()))?;
        Ok(Self { service, address })
    }

    /// Sends a request as a client does, and gives the id of its trace.
    ///
    /// # Errors
    /// When the answer is not as it must be.
    pub(crate) fn send(&self, case: Case, ask: &Ask) -> Result<String, Failure> {
        let wrong = |what: String| Failure::new(format!("the gateway's answer to `{}`: {what}", case.name()));
        let message = json!([{ "role": "user", "content": ask.prompt }]);
        let body = json!({ "model": ask.model, "messages": message, "stream": ask.stream });
        // A client for each: one that has left takes its connection along.
        let sent = http::client()
            .post(format!("{}/v1/chat/completions", self.address))
            .header("authorization", format!("Bearer {CLIENT_KEY}"))
            .header("content-type", "application/json")
            .send(body.to_string());
        let mut answer = sent.map_err(|error| wrong(error.to_string()))?;
        let id = answer.headers().get("x-throughline-trace-id").and_then(|id| id.to_str().ok());
        let id = id.ok_or_else(|| wrong("no x-throughline-trace-id".to_owned()))?.to_owned();
        let status = answer.status().as_u16();
        let mut reader = answer.body_mut().as_reader();
        let read = if ask.leave {
            reader.read(&mut [0; 16]).map(drop)
        } else {
            reader.read_to_end(&mut Vec::new()).map(drop)
        };
        read.map_err(|error| wrong(error.to_string()))?;
        if status == ask.status { Ok(id) } else { Err(wrong(format!("{status} instead of {}", ask.status))) }
    }

    /// Tells it to stop; its last spans go out before it has.
    pub(crate) fn stop(self) {
        self.service.stop();
    }
}

/// The first line that a gateway says, once it is whole.
fn address(said: &str) -> Option<String> {
    let (lines, _) = said.rsplit_once('\n')?;
    lines.lines().find_map(|line| line.strip_prefix("gateway ")).map(|rest| rest.trim().to_owned())
}

/// Runs the program that asks two models at once, and gives the id of its trace.
///
/// # Errors
/// When it fails, or says none.
pub(crate) fn ask_two_models(
    workspace: &Workspace,
    folder: &Path,
    upstream: &Upstream,
    target: &Target,
    interrupt: &Interrupt,
) -> Result<String, Failure> {
    let mut command = Command::new(workspace.target().join("debug/examples").join(EXAMPLE));
    command.arg(format!("http://{}/v1", upstream.address)).arg(Case::Parallel.prompt(""));
    command.env_clear().env("UPSTREAM_KEY", UPSTREAM_KEY).envs(target.variables()).current_dir(folder);
    let log = folder.join("two_models.log");
    let said = Service::start("the example", &mut command, &log)?.finish(interrupt, PATIENCE)?;
    let id = said.lines().find_map(|line| line.strip_prefix("trace ")).map(str::to_owned);
    id.ok_or_else(|| Failure::new(format!("the example names no trace in {}", log.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_address_from_whole_lines_only() {
        assert_eq!(address("gateway http://127.0.0.1:80"), None);
        let said = "gateway http://127.0.0.1:8080\nmetrics http://127.0.0.1:1/metrics\n";
        assert_eq!(address(said).as_deref(), Some("http://127.0.0.1:8080"));
    }
}
