//! The queries of every panel, as Grafana would send them.

use serde_json::Value;

use super::export::Pack;
use super::haste;
use crate::failure::Failure;

/// What Grafana fills in. Its rate interval is four scrapes; at the hastened pace that is too short for a machine that
/// has other things to do, and shorter than the time between two requests.
const HASTENED: [(&str, &str); 3] = [("__rate_interval", "3s"), ("__interval", "1s"), ("__range", "30s")];
const OWN: [(&str, &str); 3] = [("__rate_interval", "1m"), ("__interval", "15s"), ("__range", "1h")];

/// A query of a panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) dashboard: String,
    pub(crate) panel: String,
    /// With everything filled in that Grafana fills in, and hastened as the rules are.
    pub(crate) promql: String,
    /// The same at the pace of the pack.
    unhurried: String,
    /// As it stands in the file.
    pub(crate) written: String,
}

/// How fast time goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Own,
    Hastened,
}

/// Every query of every dashboard of the pack.
///
/// # Errors
/// When a file cannot be read, is no JSON, or there is no query at all.
pub(crate) fn queries(pack: &Pack) -> Result<Vec<Query>, Failure> {
    let mut all = Vec::new();
    for (file, text) in pack.texts("grafana", "json")? {
        let dashboard: Value = serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("{} is no JSON: {error}", file.display())))?;
        all.extend(of_dashboard(&dashboard));
    }
    if all.is_empty() {
        return Err(Failure::new("the dashboards that were exported have no query"));
    }
    Ok(all)
}

/// The queries of a 95th percentile, at Prometheus' own pace.
///
/// # Errors
/// Those of [`queries`], and when there is none.
pub(crate) fn quantiles(pack: &Pack) -> Result<Vec<Query>, Failure> {
    let mut all = queries(pack)?;
    all.retain(|query| query.written.contains("0.95") || query.written.contains("p95"));
    if all.is_empty() {
        return Err(Failure::new("no panel shows a 95th percentile"));
    }
    for query in &mut all {
        query.promql.clone_from(&query.unhurried);
    }
    Ok(all)
}

fn of_dashboard(dashboard: &Value) -> Vec<Query> {
    let variables = variables(dashboard);
    let title = dashboard["title"].as_str().unwrap_or_default();
    let mut found = Vec::new();
    for panel in flat(&dashboard["panels"]) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let Some(written) = target["expr"].as_str() else { continue };
            found.push(Query {
                dashboard: title.to_owned(),
                panel: panel["title"].as_str().unwrap_or_default().to_owned(),
                promql: filled_in(written, &variables, Pace::Hastened),
                unhurried: filled_in(written, &variables, Pace::Own),
                written: written.to_owned(),
            });
        }
    }
    found
}

/// Panels, those of rows that are folded up among them.
fn flat(panels: &Value) -> Vec<&Value> {
    let panels = panels.as_array().into_iter().flatten();
    panels.flat_map(|panel| [vec![panel], flat(&panel["panels"])].concat()).collect()
}

/// Names, longest first, and what stands for "all".
fn variables(dashboard: &Value) -> Vec<(String, String)> {
    let list = dashboard["templating"]["list"].as_array().into_iter().flatten();
    let mut variables: Vec<_> = list
        .filter(|variable| variable["type"] != "datasource")
        .filter_map(|variable| {
            let all = variable["allValue"].as_str().filter(|all| !all.is_empty());
            let value = match variable["type"].as_str() {
                Some("query") => all.unwrap_or(".+").to_owned(),
                _ => variable["current"]["value"].as_str().unwrap_or(".+").to_owned(),
            };
            Some((variable["name"].as_str()?.to_owned(), value))
        })
        .collect();
    variables.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    variables
}

fn filled_in(written: &str, variables: &[(String, String)], pace: Pace) -> String {
    let (mut query, builtin) = match pace {
        Pace::Own => (written.to_owned(), OWN),
        // First the durations that are written, so that those which are filled in stay.
        Pace::Hastened => (haste::query(written), HASTENED),
    };
    let builtin = builtin.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (name, value) in builtin.iter().chain(variables) {
        for form in [format!("${{{name}}}"), format!("${{{name}:regex}}"), format!("${name}")] {
            query = query.replace(&form, value);
        }
    }
    query
}

// === impl Query ===

impl Query {
    pub(crate) fn shown(&self) -> String {
        format!("{} / {}", self.dashboard, self.panel)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_queries_in_rows_too_and_fills_variables_in() {
        let rate = "sum(rate(x_total{job=~\"$job\",route=~\"${route}\"}[$__rate_interval])) / y{z=\"$jobs\"}";
        let dashboard = json!({
            "title": "D",
            "templating": { "list": [
                { "name": "datasource", "type": "datasource" },
                { "name": "job", "type": "query", "allValue": ".+" },
                { "name": "jobs", "type": "custom", "current": { "value": "all" } },
                { "name": "route", "type": "query", "allValue": "" },
            ]},
            "panels": [{ "type": "row", "panels": [
                { "title": "P", "targets": [{ "expr": rate }, { "expr": "increase(x_total[1h])" }] },
            ]}],
        });
        let found = of_dashboard(&dashboard);
        let promql: Vec<_> = found.iter().map(|query| query.promql.as_str()).collect();
        assert_eq!(
            promql,
            [
                "sum(rate(x_total{job=~\".+\",route=~\".+\"}[3s])) / y{z=\"all\"}",
                "increase(x_total[30000ms])"
            ]
        );
        assert_eq!((found[0].dashboard.as_str(), found[0].panel.as_str()), ("D", "P"));
    }
}
