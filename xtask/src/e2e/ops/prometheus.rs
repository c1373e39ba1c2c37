//! Prometheus and Alertmanager as Debian has them, and the questions that are asked of the former.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::e2e::http;
use crate::e2e::interrupt::Interrupt;
use crate::e2e::service::{Service, free_port};
use crate::failure::Failure;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running Prometheus.
pub(crate) struct Prometheus {
    pub(crate) service: Service,
    pub(crate) api: Api,
}

/// The API of a Prometheus.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    client: ureq::Agent,
    pub(crate) url: String,
}

/// A series of an answer, with its values at some times.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: BTreeMap<String, String>,
    /// Seconds since the epoch, and what it was then.
    pub(crate) points: Vec<(f64, f64)>,
}

/// An alert that Prometheus knows of now.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Active {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) state: String,
}

/// A stretch of time, in seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) from: f64,
    pub(crate) to: f64,
}

/// Where a program is to listen and keep its data, and what it is to read.
pub(crate) struct Place {
    pub(crate) port: u16,
    pub(crate) config: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
}

// === impl Prometheus ===

impl Prometheus {
    /// # Errors
    /// When it does not start, which is also when its configuration is not good.
    pub(crate) fn start(program: &Path, place: &Place, interrupt: &Interrupt) -> Result<Self, Failure> {
        let mut command = Command::new(program);
        command.arg(option("--config.file", &place.config)).arg(option("--storage.tsdb.path", &place.data));
        command.arg(format!("--web.listen-address=127.0.0.1:{}", place.port)).args([
            "--enable-feature=exemplar-storage",
            "--web.enable-lifecycle",
            "--log.level=warn",
        ]);
        let mut service = Service::start("Prometheus", &mut command, &place.log)?;
        let api = Api::at(place.port);
        service.wait(interrupt, PATIENCE, |_| api.is_ready().then_some(()))?;
        Ok(Self { service, api })
    }
}

/// Starts an Alertmanager by itself, without a cluster.
///
/// # Errors
/// When it does not start, which is also when its configuration is not good.
pub(crate) fn alertmanager(program: &Path, place: &Place, interrupt: &Interrupt) -> Result<Service, Failure> {
    let mut command = Command::new(program);
    command.arg(option("--config.file", &place.config)).arg(option("--storage.path", &place.data));
    command.arg(format!("--web.listen-address=127.0.0.1:{}", place.port));
    command.args(["--cluster.listen-address=", "--log.level=warn"]);
    let mut service = Service::start("Alertmanager", &mut command, &place.log)?;
    let api = Api::at(place.port);
    service.wait(interrupt, PATIENCE, |_| api.is_ready().then_some(()))?;
    Ok(service)
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

/// The seconds since the epoch, as both programs count them.
#[expect(clippy::disallowed_methods, reason = "samples are stored by wall time")]
pub(crate) fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map(|since| since.as_secs_f64()).unwrap_or_default()
}

// === impl Place ===

impl Place {
    /// Of `name` below `folder`, on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn of(name: &str, folder: &Path, config: PathBuf) -> Result<Self, Failure> {
        let (data, log) =
            (folder.join("data").join(name), folder.join("logs").join(name).with_extension("log"));
        Ok(Self { port: free_port()?, config, data, log })
    }
}

// === impl Api ===

impl Api {
    pub(crate) fn at(port: u16) -> Self {
        Self { client: http::client(), url: format!("http://127.0.0.1:{port}") }
    }

    fn is_ready(&self) -> bool {
        self.client.get(format!("{}/-/ready", self.url)).call().is_ok_and(|answer| answer.status() == 200)
    }

    /// The value of `query` now.
    ///
    /// # Errors
    /// What Prometheus has against it.
    pub(crate) fn instant(&self, query: &str) -> Result<Vec<Series>, String> {
        let data = self.ask("query", &[("query", query.to_owned())])?;
        series(&data)
    }

    /// The values of `query` in a stretch of time, every `step` seconds.
    ///
    /// # Errors
    /// What Prometheus has against it.
    pub(crate) fn range(&self, query: &str, span: Span, step: f64) -> Result<Vec<Series>, String> {
        let (from, to) = (format!("{:.3}", span.from), format!("{:.3}", span.to));
        let asked =
            [("query", query.to_owned()), ("start", from), ("end", to), ("step", format!("{step:.3}"))];
        series(&self.ask("query_range", &asked)?)
    }

    /// What fires or is about to.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub(crate) fn alerts(&self) -> Result<Vec<Active>, String> {
        let data = self.ask("alerts", &[])?;
        serde_json::from_value(data["alerts"].clone()).map_err(|error| error.to_string())
    }

    /// Problems of rules that are loaded, one a line.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub(crate) fn unhealthy_rules(&self) -> Result<Vec<String>, String> {
        let data = self.ask("rules", &[])?;
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
        let bad = rules.filter(|rule| rule["health"] == "err");
        Ok(bad.map(|rule| format!("rule {}: {}", rule["name"], rule["lastError"])).collect())
    }

    fn ask(&self, what: &str, parameters: &[(&str, String)]) -> Result<Value, String> {
        let mut request = self.client.get(format!("{}/api/v1/{what}", self.url));
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        let mut answer = request.call().map_err(|error| error.to_string())?;
        let text = answer.body_mut().with_config().limit(1 << 30).read_to_string();
        let text = text.map_err(|error| error.to_string())?;
        let mut json: Value = serde_json::from_str(&text).map_err(|_| text)?;
        match json["status"].as_str() {
            Some("success") => Ok(json["data"].take()),
            _ => Err(json["error"].as_str().unwrap_or("no reason was given").to_owned()),
        }
    }
}

fn series(data: &Value) -> Result<Vec<Series>, String> {
    let kind = data["resultType"].as_str().unwrap_or_default();
    let result = &data["result"];
    if kind == "scalar" {
        return Ok(vec![Series { labels: BTreeMap::new(), points: point(result).into_iter().collect() }]);
    }
    let list = result.as_array().ok_or_else(|| format!("an answer of the kind `{kind}`, not of series"))?;
    Ok(list
        .iter()
        .map(|series| Series {
            labels: serde_json::from_value(series["metric"].clone()).unwrap_or_default(),
            points: match series["values"].as_array() {
                Some(values) => values.iter().filter_map(point).collect(),
                None => point(&series["value"]).into_iter().collect(),
            },
        })
        .collect())
}

fn point(value: &Value) -> Option<(f64, f64)> {
    // Values are text, so that there can be `NaN` and `+Inf`.
    Some((value[0].as_f64()?, value[1].as_str()?.parse().ok()?))
}

// === impl Series ===

impl Series {
    pub(crate) fn last(&self) -> Option<f64> {
        self.points.last().map(|(_, value)| *value)
    }
}

// === impl Span ===

impl Span {
    /// From the earlier beginning to the later end.
    pub(crate) fn hull(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.max(other.to) }
    }

    pub(crate) fn since(from: f64) -> Self {
        Self { from, to: now() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_vectors_matrices_and_scalars() {
        let vector = json!({ "resultType": "vector", "result": [{ "metric": { "job": "a" }, "value": [1.5, "+Inf"] }] });
        let read = series(&vector).unwrap();
        assert_eq!(read[0].labels["job"], "a");
        assert_eq!(read[0].last(), Some(f64::INFINITY));
        let matrix =
            json!({ "resultType": "matrix", "result": [{ "metric": {}, "values": [[1, "2"], [2, "3"]] }] });
        assert_eq!(series(&matrix).unwrap()[0].points, [(1.0, 2.0), (2.0, 3.0)]);
        let scalar = json!({ "resultType": "scalar", "result": [1, "4"] });
        assert_eq!(series(&scalar).unwrap()[0].points, [(1.0, 4.0)]);
        assert_eq!(
            series(&json!({ "resultType": "string", "result": "x" })).unwrap_err(),
            "an answer of the kind `string`, not of series"
        );
    }
}
