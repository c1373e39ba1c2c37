//! The rules that dashboards are linted by: those of Grafana's `dashboard-linter`, and some of our own.
//!
//! The rules read what is written for Grafana, not the description. Two are excused where they would be wrong: a series
//! that a rule has recorded is of a job and of no instance, and a total of the time that is shown is taken over
//! `$__range`, at one instant.

use std::collections::BTreeSet;

use serde_json::Value;

use super::catalogue::Catalogue;
use super::promql::{self, Query, Window};

/// Grafana's names of units, as far as they are used.
const UNITS: &[&str] = &["bytes", "currencyUSD", "none", "ops", "percentunit", "reqps", "s", "short"];
/// More than this nobody reads.
const MOST_PANELS: usize = 25;

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    DatasourceVariable,
    JobVariable,
    InstanceVariable,
    VariableReload,
    VariableQuery,
    VariableCurrent,
    VariableUsed,
    PanelDatasource,
    PanelTitle,
    PanelDescription,
    PanelUnit,
    PanelTargets,
    PanelPlace,
    PanelIds,
    PanelCount,
    Legend,
    Promql,
    Names,
    RateInterval,
    JobMatcher,
    InstanceMatcher,
    CounterRate,
    Exemplars,
    Editable,
}

/// A rule that is broken, and where.
pub(super) type Finding = (Rule, String);

/// Everything that is wrong with a dashboard.
pub(super) fn findings(page: &Value, catalogue: &Catalogue) -> Vec<Finding> {
    let mut lint = Lint { page, catalogue, findings: Vec::new() };
    lint.require(Rule::Editable, page["editable"] == false, "`editable` is not false");
    lint.variables();
    lint.annotations();
    lint.panels();
    lint.findings
}

struct Lint<'a> {
    page: &'a Value,
    catalogue: &'a Catalogue,
    findings: Vec<Finding>,
}

/// The panels that show something.
fn panels(page: &Value) -> impl Iterator<Item = &Value> {
    list(page, "panels").iter().filter(|panel| panel["type"] != "row")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn is_ours(datasource: &Value) -> bool {
    datasource["uid"] == "$datasource" && datasource["type"] == "prometheus"
}

// === impl Lint ===

impl<'a> Lint<'a> {
    fn require(&mut self, rule: Rule, holds: bool, what: &str) {
        if !holds {
            self.findings.push((rule, what.to_owned()));
        }
    }

    fn variables(&mut self) {
        let all = list(&self.page["templating"], "list");
        let sources: Vec<_> = all.iter().filter(|variable| variable["type"] == "datasource").collect();
        let good = matches!(sources[..], [one] if one["name"] == "datasource" && one["label"] == "Data source" && one["query"] == "prometheus");
        self.require(Rule::DatasourceVariable, good, "not one variable `datasource` for Prometheus");
        for (rule, name) in [(Rule::JobVariable, "job"), (Rule::InstanceVariable, "instance")] {
            let good = all.iter().any(|variable| {
                variable["name"] == name
                    && variable["type"] == "query"
                    && is_ours(&variable["datasource"])
                    && variable["multi"] == true
                    && variable["includeAll"] == true
                    && variable["allValue"] == ".+"
            });
            self.require(rule, good, name);
        }
        let queries: String = panels(self.page)
            .flat_map(|panel| list(panel, "targets"))
            .map(|target| text(target, "expr"))
            .collect();
        for variable in all {
            let name = text(variable, "name");
            let current = &variable["current"]["value"];
            self.require(Rule::VariableCurrent, !current.is_null() && *current != "", name);
            if variable["type"] != "query" {
                continue;
            }
            self.require(Rule::VariableReload, variable["refresh"] == 2, name);
            self.require(Rule::VariableUsed, queries.contains(&format!("${name}")), name);
            self.variable_query(text(variable, "query"));
        }
    }

    fn variable_query(&mut self, query: &str) {
        let values = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let Some((series, label)) = values.and_then(|inside| inside.rsplit_once(", ")) else {
            return self.require(Rule::VariableQuery, false, query);
        };
        match promql::read(&format!("sum by ({label}) ({series})")) {
            Ok(read) => {
                let unknown = self.catalogue.findings(&read);
                self.require(Rule::VariableQuery, unknown.is_empty(), &unknown.join(", "));
            }
            Err(why) => self.require(Rule::VariableQuery, false, &why),
        }
    }

    fn annotations(&mut self) {
        for annotation in list(&self.page["annotations"], "list") {
            self.require(Rule::PanelDatasource, is_ours(&annotation["datasource"]), text(annotation, "name"));
            self.query(text(annotation, "name"), text(annotation, "expr"), false);
        }
    }

    fn panels(&mut self) {
        let shown = panels(self.page).count();
        self.require(Rule::PanelCount, shown <= MOST_PANELS, &format!("{shown} panels"));
        let all = list(self.page, "panels");
        let ids: BTreeSet<_> = all.iter().filter_map(|panel| panel["id"].as_u64()).collect();
        let titles: BTreeSet<_> = panels(self.page).map(|panel| text(panel, "title")).collect();
        let unique = ids.len() == all.len() && titles.len() == shown;
        self.require(Rule::PanelIds, unique, "two panels have the same id or title");
        self.places();
        for panel in panels(self.page) {
            self.panel(panel);
        }
    }

    /// Every cell of the grid belongs to one panel, and none is outside.
    fn places(&mut self) {
        let mut taken = BTreeSet::new();
        for panel in list(self.page, "panels") {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap_or_default();
            let cells = (at("x")..at("x") + at("w"))
                .flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
                .collect::<Vec<_>>();
            let free = !cells.is_empty() && cells.iter().all(|cell| cell.0 < 24 && taken.insert(*cell));
            self.require(Rule::PanelPlace, free, text(panel, "title"));
        }
        let bottom = taken.iter().map(|cell| cell.1 + 1).max().unwrap_or_default();
        self.require(Rule::PanelPlace, taken.len() as u64 == 24 * bottom, "there are gaps");
    }

    fn panel(&mut self, panel: &Value) {
        let title = text(panel, "title");
        self.require(Rule::PanelTitle, !title.is_empty(), "a panel has no title");
        let (shows, good) = text(panel, "description").split_once(" Good: ").unwrap_or_default();
        self.require(Rule::PanelDescription, shows.ends_with('.') && good.len() > 3, title);
        self.require(Rule::PanelDatasource, is_ours(&panel["datasource"]), title);
        let defaults = &panel["fieldConfig"]["defaults"];
        let unit = text(defaults, "unit");
        let worded = !list(defaults, "mappings").is_empty();
        self.require(Rule::PanelUnit, UNITS.contains(&unit) && (unit != "none" || worded), title);
        let targets = list(panel, "targets");
        self.require(Rule::PanelTargets, !targets.is_empty(), title);
        for target in targets {
            self.require(Rule::PanelDatasource, is_ours(&target["datasource"]), title);
            self.require(Rule::Legend, !text(target, "legendFormat").is_empty(), title);
            let expr = text(target, "expr");
            let dots = panel["type"] != "timeseries"
                || !expr.contains("histogram_quantile")
                || target["exemplar"] == true;
            self.require(Rule::Exemplars, dots, title);
            self.query(title, expr, target["instant"] == true);
        }
    }

    fn query(&mut self, place: &str, expr: &str, instant: bool) {
        match promql::read(expr) {
            Ok(query) => self.selectors(place, &query, instant),
            Err(why) => self.require(Rule::Promql, false, &why),
        }
    }

    fn selectors(&mut self, place: &str, query: &Query, instant: bool) {
        let unknown = self.catalogue.findings(query);
        self.require(Rule::Names, unknown.is_empty(), &format!("{place}: {}", unknown.join(", ")));
        for selector in &query.selectors {
            let name = &selector.name;
            let place = format!("{place}: {name}");
            let recorded = self.catalogue.is_recorded(name);
            let of = |label: &str, variable: &str| {
                selector.matchers.iter().any(|(name, value)| name == label && value.starts_with(variable))
            };
            self.require(Rule::JobMatcher, of("job", "$job"), &place);
            self.require(Rule::InstanceMatcher, recorded || of("instance", "$instance"), &place);
            let rate = matches!(selector.over, Some(("rate" | "irate" | "increase", _)));
            if rate {
                let window = selector.over.map(|(_, window)| window);
                let good = window == Some(Window::Rate) || (instant && window == Some(Window::Range));
                self.require(Rule::RateInterval, good, &place);
            }
            self.require(Rule::CounterRate, rate == self.catalogue.is_counter(name), &place);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ops::dashboards::bounds::Bounds;
    use crate::ops::dashboards::{dashboards, render};
    use crate::ops::options::Options;

    fn pages() -> Vec<Value> {
        let options = Options::default();
        let all = dashboards(&Bounds::of(&options));
        all.iter().map(|one| serde_json::from_str(&render::json(one, &options)).unwrap()).collect()
    }

    fn catalogue() -> Catalogue {
        Catalogue::with_recorded_of(&Options::default())
    }

    #[test]
    fn no_dashboard_has_a_finding() {
        let catalogue = catalogue();
        for page in pages() {
            let found = findings(&page, &catalogue);
            assert!(found.is_empty(), "{}: {found:#?}", page["title"]);
        }
    }

    #[test]
    fn dashboards_are_told_apart() {
        let pages = pages();
        for key in ["uid", "title"] {
            let different: BTreeSet<_> = pages.iter().map(|page| text(page, key)).collect();
            assert_eq!(different.len(), 7, "{key}");
        }
    }

    fn sets(page: &mut Value, pointer: &str, value: Value) {
        *page.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is there")) = value;
    }

    /// The first panel that shows something.
    const PANEL: &str = "/panels/1";

    fn asks(page: &mut Value, expr: &str) {
        sets(page, "/panels/1/targets/0/expr", expr.into());
    }

    /// A way to break each rule.
    #[expect(clippy::type_complexity, reason = "a table")]
    const BROKEN: &[(Rule, fn(&mut Value))] = &[
        (Rule::Editable, |page| sets(page, "/editable", true.into())),
        (Rule::DatasourceVariable, |page| sets(page, "/templating/list/0/label", "Source".into())),
        (Rule::DatasourceVariable, |page| {
            let again = page["templating"]["list"][0].clone();
            page["templating"]["list"].as_array_mut().unwrap().push(again);
        }),
        (Rule::JobVariable, |page| sets(page, "/templating/list/1/multi", false.into())),
        (Rule::InstanceVariable, |page| sets(page, "/templating/list/2/allValue", ".*".into())),
        (Rule::VariableReload, |page| sets(page, "/templating/list/3/refresh", 1.into())),
        (Rule::VariableQuery, |page| sets(page, "/templating/list/3/query", "label_values(x{, y)".into())),
        (Rule::VariableQuery, |page| {
            sets(page, "/templating/list/3/query", "label_values(build_info, colour)".into());
        }),
        (Rule::VariableCurrent, |page| sets(page, "/templating/list/3/current", json!({}))),
        (Rule::VariableUsed, |page| sets(page, "/templating/list/3/name", "unheard_of".into())),
        (Rule::PanelDatasource, |page| {
            sets(page, "/panels/1/datasource/uid", "throughline-prometheus".into());
        }),
        (Rule::PanelDatasource, |page| sets(page, "/panels/1/targets/0/datasource/uid", "x".into())),
        (Rule::PanelTitle, |page| sets(page, "/panels/1/title", "".into())),
        (Rule::PanelDescription, |page| sets(page, "/panels/1/description", "A figure.".into())),
        (Rule::PanelUnit, |page| sets(page, "/panels/1/fieldConfig/defaults/unit", "furlongs".into())),
        (Rule::PanelUnit, |page| sets(page, "/panels/1/fieldConfig/defaults/unit", "none".into())),
        (Rule::PanelTargets, |page| sets(page, "/panels/1/targets", json!([]))),
        (Rule::PanelPlace, |page| sets(page, "/panels/2/gridPos/x", 0.into())),
        (Rule::PanelPlace, |page| sets(page, "/panels/1/gridPos/w", 30.into())),
        (Rule::PanelIds, |page| sets(page, "/panels/2/id", 1.into())),
        (Rule::PanelCount, |page| {
            let one = page.pointer(PANEL).unwrap().clone();
            page["panels"].as_array_mut().unwrap().extend(vec![one; 25]);
        }),
        (Rule::Legend, |page| sets(page, "/panels/1/targets/0/legendFormat", "".into())),
        (Rule::Promql, |page| asks(page, "sum(")),
        (Rule::Promql, |page| asks(page, r#"rate(up{job=~"$job",instance=~"$instance"})"#)),
        (Rule::Names, |page| asks(page, r#"upp{job=~"$job",instance=~"$instance"}"#)),
        (Rule::Names, |page| asks(page, r#"up{job=~"$job",instance=~"$instance",colour="red"}"#)),
        (Rule::Names, |page| asks(page, r#"sum by (colour) (up{job=~"$job",instance=~"$instance"})"#)),
        (Rule::RateInterval, |page| {
            asks(page, r#"sum(rate(gateway_requests_total{job=~"$job",instance=~"$instance"}[5m]))"#);
        }),
        (Rule::RateInterval, |page| {
            sets(page, "/panels/1/targets/0/instant", false.into());
            asks(
                page,
                r#"sum(increase(gateway_requests_total{job=~"$job",instance=~"$instance"}[$__range]))"#,
            );
        }),
        (Rule::JobMatcher, |page| asks(page, r#"up{instance=~"$instance"}"#)),
        (Rule::JobMatcher, |page| asks(page, r#"up{job="throughline",instance=~"$instance"}"#)),
        (Rule::JobMatcher, |page| asks(page, "job:gateway_errors:ratio_rate1h")),
        (Rule::InstanceMatcher, |page| asks(page, r#"up{job=~"$job"}"#)),
        (Rule::CounterRate, |page| {
            asks(page, r#"sum(gateway_requests_total{job=~"$job",instance=~"$instance"})"#);
        }),
        (Rule::CounterRate, |page| {
            asks(page, r#"rate(up{job=~"$job",instance=~"$instance"}[$__rate_interval])"#);
        }),
        (Rule::Exemplars, |page| {
            for panel in page["panels"].as_array_mut().unwrap() {
                for target in panel["targets"].as_array_mut().into_iter().flatten() {
                    target["exemplar"] = false.into();
                }
            }
        }),
    ];

    #[test]
    fn every_rule_finds_what_breaks_it() {
        let (page, catalogue) = (&pages()[0], catalogue());
        for (number, (rule, breaks)) in BROKEN.iter().enumerate() {
            let mut broken = page.clone();
            breaks(&mut broken);
            let found = findings(&broken, &catalogue);
            assert!(found.iter().any(|(found, _)| found == rule), "{number}: {rule:?} in {found:?}");
        }
        let tried: BTreeSet<_> = BROKEN.iter().map(|(rule, _)| *rule).collect();
        assert_eq!(tried.len(), 24, "a rule is never broken");
    }

    #[test]
    fn what_is_recorded_has_no_instance_and_totals_are_of_the_time_shown() {
        let (mut page, catalogue) = (pages().remove(0), catalogue());
        asks(&mut page, r#"max(job:gateway_errors:ratio_rate1h{job=~"$job"})"#);
        assert_eq!(findings(&page, &catalogue), []);
        sets(&mut page, "/panels/1/targets/0/instant", true.into());
        asks(
            &mut page,
            r#"sum(increase(gateway_requests_total{job=~"$job",instance=~"$instance"}[$__range]))"#,
        );
        assert_eq!(findings(&page, &catalogue), []);
    }
}
