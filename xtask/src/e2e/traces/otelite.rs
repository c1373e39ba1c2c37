//! otelite: a backend in Rust, one program, which takes OTLP over gRPC and HTTP and answers in JSON.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::backend::{Backend, Place, Usage};
use super::span::{Kind, Span, Status, Trace};
use crate::e2e::http;
use crate::e2e::service::{Service, free_port};
use crate::failure::Failure;
use crate::workspace::{Workspace, run};

const VERSION: &str = "0.1.156";
const PATIENCE: Duration = Duration::from_secs(60);

/// A running otelite.
pub(crate) struct Otelite {
    _service: Service,
    client: ureq::Agent,
    grpc: u16,
    http: u16,
    api: u16,
}

/// The program, if it is installed.
pub(crate) fn installed(workspace: &Workspace) -> Option<PathBuf> {
    Some(root(workspace).join("bin/otelite")).filter(|program| program.is_file())
}

/// Builds it, which takes some minutes, unless that is done.
///
/// # Errors
/// When it cannot be built.
pub(crate) fn install(workspace: &Workspace) -> Result<PathBuf, Failure> {
    if let Some(program) = installed(workspace) {
        return Ok(program);
    }
    eprintln!("building otelite {VERSION} into <target>/e2e (3 to 5 minutes, once)");
    run(&mut command(workspace))
        .map_err(|why| Failure::missing(format!("cannot install otelite {VERSION}: {why}")))?;
    // Half a gigabyte that nothing needs again.
    let _kept = std::fs::remove_dir_all(root(workspace).join("build"));
    installed(workspace).ok_or_else(|| Failure::missing("otelite was installed, and is not there"))
}

fn command(workspace: &Workspace) -> Command {
    let root = root(workspace);
    let mut command = workspace.cargo(["install", "--locked", "--debug", "otelite"]);
    // A person sees the progress; a log would only grow by the names of 300 crates.
    command.args((!std::io::stderr().is_terminal()).then_some("--quiet"));
    command.args(["--version", VERSION, "--config", "profile.dev.debug=0", "--root"]).arg(&root);
    command.arg("--target-dir").arg(root.join("build"));
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    command
}

/// A folder a version, so that another version is another installation.
fn root(workspace: &Workspace) -> PathBuf {
    workspace.e2e().join(format!("otelite-{VERSION}"))
}

// === impl Otelite ===

impl Otelite {
    /// Starts it on free ports and waits until it answers.
    pub(crate) fn start(program: &Path, place: &Place) -> Result<Self, Failure> {
        place.clear()?;
        let (grpc, http, api) = (free_port()?, free_port()?, free_port()?);
        let mut command = Command::new(program);
        command.args(["serve", "--no-color", "--log-level", "warn", "--addr", &format!("127.0.0.1:{api}")]);
        command.arg("--storage-path").arg(&place.data).current_dir(&place.data);
        command.env("OTELITE_OTLP_GRPC_PORT", grpc.to_string());
        command.env("OTELITE_OTLP_HTTP_PORT", http.to_string()).env("HOME", &place.data);
        let mut service = Service::start("otelite", &mut command, &place.log)?;
        let (client, health) = (http::client(), format!("http://127.0.0.1:{api}/api/health"));
        service.wait(&place.interrupt, PATIENCE, |_| http::get_json(&client, &health))?;
        Ok(Self { _service: service, client, grpc, http, api })
    }

    /// Where it takes spans over gRPC.
    pub(crate) fn grpc_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    fn get(&self, path: &str) -> Option<Value> {
        let (status, answer) =
            http::get_json(&self.client, &format!("http://127.0.0.1:{}/api/{path}", self.api))?;
        (status == 200).then_some(answer)
    }
}

impl Backend for Otelite {
    fn name(&self) -> &'static str {
        "otelite"
    }

    fn traces_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1/traces", self.http)
    }

    fn trace(&self, id: &str) -> Option<Trace> {
        let answer = self.get(&format!("traces/{id}"))?;
        answer["spans"].as_array().map(|spans| Trace(spans.iter().map(span).collect()))
    }

    fn ids(&self) -> Option<Vec<String>> {
        let answer = self.get("traces?limit=1000")?;
        let ids = answer["traces"].as_array()?.iter().map(|trace| text(&trace["trace_id"]));
        Some(ids.collect())
    }

    /// It sums up all that it has: what is asked for must be all.
    fn usage(&self, _: &[&str]) -> Option<Usage> {
        let answer = self.get("genai/usage")?;
        let total = |what: &str| answer["summary"][format!("total_{what}_tokens")].as_u64();
        Some(Usage { input: total("input")?, output: total("output")? })
    }

    fn raw(&self, id: &str) -> Value {
        self.get(&format!("traces/{id}")).unwrap_or_default()
    }

    fn visit(&self) -> String {
        format!("look at http://127.0.0.1:{}", self.api)
    }
}

fn span(span: &Value) -> Span {
    let attributes = span["attributes"].as_object().into_iter().flatten();
    let attributes: BTreeMap<_, _> = attributes.map(|(key, value)| (key.clone(), text(value))).collect();
    Span {
        id: text(&span["span_id"]),
        parent: text(&span["parent_span_id"]),
        name: text(&span["name"]),
        kind: Some(Kind::named(&text(&span["kind"]))),
        begun: span["start_time"].as_u64().unwrap_or_default(),
        status: Status::coded(&text(&span["status"]["code"]), &text(&span["status"]["message"])),
        attributes,
    }
}

/// A value as text, nothing for none.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_a_span_as_otelite_tells_it() {
        let told = json!({
            "span_id": "15da8a4baa662e82", "trace_id": "75ac5bbdc501d759d54a432e41223548",
            "parent_span_id": null, "name": "chat gpt-4o-mini", "kind": "Client", "start_time": 17,
            "end_time": 18, "attributes": { "gen_ai.usage.input_tokens": "4" },
            "status": { "code": "Error", "message": "upstream" }, "events": []
        });
        let span = span(&told);
        assert_eq!((span.id.as_str(), span.parent.as_str(), span.begun), ("15da8a4baa662e82", "", 17));
        assert_eq!(span.kind, Some(Kind::Client));
        assert_eq!(span.status, Status::Error("upstream".to_owned()));
        assert_eq!(span.attributes["gen_ai.usage.input_tokens"], "4");
    }

    #[test]
    fn is_installed_beside_the_build_in_one_version() {
        let command = command(&Workspace::find().unwrap());
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        let args = args.join(" ");
        assert!(args.starts_with("install --locked --debug otelite ") && args.contains(VERSION), "{args}");
    }
}
