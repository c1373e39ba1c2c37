//! MLflow: a backend in Python, which takes OTLP over HTTP and makes of GenAI spans what it shows of its own.
//!
//! Installed without what trains and evaluates models, which is most of it. It keeps no span kinds.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::backend::{Backend, Place, Usage};
use super::span::{Span, Status, Trace};
use crate::e2e::http;
use crate::e2e::service::{Service, free_port};
use crate::failure::Failure;
use crate::venv::Recipe;

/// What it is made of, and where it goes.
pub(crate) const RECIPE: Recipe =
    Recipe { requirements: "xtask/src/e2e/traces/mlflow.txt", folder: "mlflow" };

/// What an exporter must say beside the address: MLflow files every trace under an experiment.
pub(crate) const HEADERS: &str = "x-mlflow-experiment-id=0";

/// The first start makes the database and compiles the Python, on a busy machine for a minute.
const PATIENCE: Duration = Duration::from_secs(240);

/// A running MLflow.
pub(crate) struct MlFlow {
    _service: Service,
    client: ureq::Agent,
    port: u16,
}

// === impl MlFlow ===

impl MlFlow {
    /// Starts it on a free port and waits until it answers.
    pub(crate) fn start(python: &Path, place: &Place) -> Result<Self, Failure> {
        place.clear()?;
        let port = free_port()?;
        let mut command = Command::new(python);
        command.args(["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--workers", "1", "--backend-store-uri", "sqlite:///mlflow.db"]);
        command.current_dir(&place.data);
        // It would tell its makers of its use, and start queues for work that needs what is not installed.
        command.env("MLFLOW_DISABLE_TELEMETRY", "true").env("DO_NOT_TRACK", "true");
        command.env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false");
        let mut service = Service::start("MLflow", &mut command, &place.log)?;
        let (client, health) = (http::client(), format!("http://127.0.0.1:{port}/health"));
        let healthy = || client.get(&health).call().ok().filter(|answer| answer.status().is_success());
        service.wait(&place.interrupt, PATIENCE, |_| healthy())?;
        Ok(Self { _service: service, client, port })
    }

    fn api(&self) -> String {
        format!("http://127.0.0.1:{}/api/3.0/mlflow/traces", self.port)
    }

    fn get(&self, id: &str) -> Option<Value> {
        let url = format!("{}/get?trace_id=tr-{id}", self.api());
        let (status, mut answer) = http::get_json(&self.client, &url)?;
        (status == 200).then(|| answer["trace"].take())
    }
}

impl Backend for MlFlow {
    fn name(&self) -> &'static str {
        "mlflow"
    }

    fn traces_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1/traces", self.port)
    }

    fn trace(&self, id: &str) -> Option<Trace> {
        let answer = self.get(id)?;
        answer["spans"].as_array().map(|spans| Trace(spans.iter().map(span).collect()))
    }

    fn ids(&self) -> Option<Vec<String>> {
        let experiment =
            json!({ "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": { "experiment_id": "0" } });
        let wanted = json!({ "locations": [experiment], "max_results": 500 });
        let answer = http::post_json(&self.client, &format!("{}/search", self.api()), &wanted)?;
        // Without traces there is no such key.
        let traces = answer["traces"].as_array().into_iter().flatten();
        let ids = traces.map(|trace| trace["trace_id"].as_str().unwrap_or_default());
        Some(ids.map(|id| id.trim_start_matches("tr-").to_owned()).collect())
    }

    fn usage(&self, ids: &[&str]) -> Option<Usage> {
        ids.iter().try_fold(Usage::default(), |sum, id| {
            let of_trace = usage(&self.get(id)?)?;
            Some(Usage { input: sum.input + of_trace.input, output: sum.output + of_trace.output })
        })
    }

    fn raw(&self, id: &str) -> Value {
        self.get(id).unwrap_or_default()
    }

    fn visit(&self) -> String {
        format!("has no pages in this installation; curl '{}/get?trace_id=tr-ID'", self.api())
    }
}

/// What it makes of the tokens of a trace, none if there was no model call.
fn usage(trace: &Value) -> Option<Usage> {
    let Some(told) = trace["trace_info"]["trace_metadata"]["mlflow.trace.tokenUsage"].as_str() else {
        return Some(Usage::default());
    };
    let told: Value = serde_json::from_str(told).ok()?;
    Some(Usage { input: told["input_tokens"].as_u64()?, output: told["output_tokens"].as_u64()? })
}

fn span(span: &Value) -> Span {
    let attributes = span["attributes"].as_array().into_iter().flatten();
    let attribute = |pair: &Value| (plain(&pair["key"]), value(&pair["value"]));
    Span {
        id: hex(&span["span_id"]),
        parent: hex(&span["parent_span_id"]),
        name: plain(&span["name"]),
        kind: None,
        begun: span["start_time_unix_nano"].as_u64().unwrap_or_default(),
        status: Status::coded(&plain(&span["status"]["code"]), &plain(&span["status"]["message"])),
        attributes: attributes.map(attribute).collect(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An attribute's value, the only one in an object that names its type.
fn value(typed: &Value) -> String {
    match typed.as_object().and_then(|object| object.values().next()) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// Ids come as the bytes that they are.
fn hex(id: &Value) -> String {
    let bytes = STANDARD.decode(plain(id)).unwrap_or_default();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    #[test]
    fn reads_a_span_as_mlflow_tells_it() {
        let told = json!({
            "trace_id": "U/pXYu2vFku12jvEvjQGtA==", "span_id": "WS939kOfrDE=", "parent_span_id": "en3WiU5p0z8=",
            "name": "chat gpt-4o-mini", "start_time_unix_nano": 17, "end_time_unix_nano": 18,
            "attributes": [
                { "key": "gen_ai.operation.name", "value": { "string_value": "chat" } },
                { "key": "gen_ai.usage.input_tokens", "value": { "int_value": 4 } },
            ],
            "status": { "code": "STATUS_CODE_ERROR", "message": "timeout" }
        });
        let span = span(&told);
        assert_eq!((span.id.as_str(), span.parent.as_str()), ("592f77f6439fac31", "7a7dd6894e69d33f"));
        assert_eq!((span.kind, span.begun), (None, 17));
        assert_eq!(span.status, Status::Error("timeout".to_owned()));
        assert_eq!(span.attributes["gen_ai.operation.name"], "chat");
        assert_eq!(span.attributes["gen_ai.usage.input_tokens"], "4");
    }

    #[test]
    fn what_it_is_made_of_is_pinned() {
        let list = Workspace::find().unwrap().root().join(RECIPE.requirements);
        let list = std::fs::read_to_string(list).unwrap();
        let loose: Vec<_> =
            list.lines().filter(|line| !line.starts_with('#') && !line.contains("==")).collect();
        assert_eq!(loose, [""; 0]);
    }

    #[test]
    fn sums_up_only_what_it_was_told() {
        let told = r#"{"input_tokens": 4, "output_tokens": 7, "total_tokens": 11}"#;
        let with = json!({ "trace_info": { "trace_metadata": { "mlflow.trace.tokenUsage": told } } });
        assert_eq!(usage(&with), Some(Usage { input: 4, output: 7 }));
        assert_eq!(usage(&json!({ "trace_info": {} })), Some(Usage::default()));
    }
}
