//! A dashboard as Grafana's JSON: the same bytes for the same description, whatever Grafana would add by itself left out.

use serde_json::{Value, json};

use super::describe::{Dashboard, Draw, Limits, Panel, Row, Side, Target, Unit, Variable, expanded};
use crate::ops::options::Options;

/// The version of Grafana's format: that of Grafana 10.4, which every later one reads.
const SCHEMA: u8 = 39;
/// Columns of a page.
const COLUMNS: u8 = 24;
/// What links dashboards with each other.
const TAG: &str = "throughline";

/// Pretty, keys in order, with a line end.
pub(super) fn json(dashboard: &Dashboard, options: &Options) -> String {
    format!("{:#}\n", page(dashboard, options))
}

fn page(dashboard: &Dashboard, options: &Options) -> Value {
    json!({
        "uid": dashboard.board.uid(),
        "title": format!("Throughline / {}", dashboard.title),
        "description": dashboard.purpose,
        "tags": [TAG],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": false,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": "now-3h", "to": "now"},
        "timepicker": {},
        "refresh": "30s",
        "templating": {"list": variables(&dashboard.variable, options)},
        "annotations": {"list": annotations()},
        "links": [{
            "type": "dashboards", "title": "Throughline", "tags": [TAG], "icon": "external link", "tooltip": "", "url": "",
            "asDropdown": true, "includeVars": true, "keepTime": true, "targetBlank": false,
        }],
        "panels": panels(&dashboard.rows, options),
    })
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "$datasource"})
}

fn variables(own: &Variable, options: &Options) -> Value {
    let choice = |name: &str, label: &str, query: String, current: Value| {
        json!({
            "name": name, "label": label, "type": "query", "query": query, "datasource": source(), "current": current,
            "multi": true, "includeAll": true, "allValue": ".+", "refresh": 2, "sort": 1, "hide": 0, "regex": "",
            "options": [], "skipUrlSync": false,
        })
    };
    let all = || json!({"selected": true, "text": ["All"], "value": ["$__all"]});
    let job = json!({"selected": true, "text": [options.job], "value": [options.job]});
    let values = |series: &str, of: &str| format!("label_values({}, {of})", expanded(series));
    json!([
        {
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0,
            "current": {"selected": true, "text": "Prometheus", "value": "throughline-prometheus"},
            "multi": false, "includeAll": false, "regex": "", "options": [], "skipUrlSync": false,
        },
        choice("job", "Job", values("build_info", "job"), job),
        choice("instance", "Instance", values("build_info{#}", "instance"), all()),
        choice(own.name, own.label, values(own.series, own.of), all()),
    ])
}

/// What happened beside the figures, drawn across every picture.
fn annotations() -> Value {
    let mark = |name: &str, colour: &str, title: &str, expr: &str| {
        json!({
            "name": name, "datasource": source(), "enable": true, "hide": false, "iconColor": colour,
            "expr": expanded(expr), "titleFormat": title,
        })
    };
    json!([
        mark(
            "Restarts",
            "orange",
            "{{instance}} was started",
            "changes(process_start_time_seconds{@}[5m]) > 0"
        ),
        mark(
            "Versions",
            "blue",
            "{{instance}} runs {{version}}",
            "build_info{@} unless build_info{@} offset 5m"
        ),
        mark(
            "Alerts",
            "red",
            "{{alertname}} ({{severity}})",
            r#"max by (alertname, severity) (ALERTS{#,alertstate="firing",severity=~"critical|warning"})"#
        ),
    ])
}

/// Rows from top to bottom, the panels of each from left to right. Numbers count up.
fn panels(rows: &[Row], options: &Options) -> Vec<Value> {
    let mut all = Vec::new();
    let mut y = 0;
    for row in rows {
        let id = all.len() + 1;
        all.push(json!({
            "id": id, "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        }));
        y += 1;
        let height = if row.panels.iter().all(|panel| panel.draw == Draw::Stat) { 4 } else { 8 };
        let mut x = 0;
        for drawn in &row.panels {
            if x + drawn.width > COLUMNS {
                (x, y) = (0, y + height);
            }
            let place = json!({"x": x, "y": y, "w": drawn.width, "h": height});
            all.push(panel(drawn, all.len() + 1, &place, options));
            x += drawn.width;
        }
        y += height;
    }
    all
}

fn panel(panel: &Panel, id: usize, place: &Value, options: &Options) -> Value {
    let targets: Vec<_> =
        panel.targets.iter().zip('A'..).map(|(query, letter)| target(panel, query, letter)).collect();
    let mut text = format!("{} Good: {}", panel.shows, panel.good);
    let mut links = Vec::new();
    if let Some(alert) = panel.alert {
        let url = format!("{}/{alert}.md", options.runbook_url);
        text = format!("{text} [Runbook]({url})");
        links.push(json!({
            "title": format!("Runbook: {alert}"), "type": "link", "url": url, "icon": "doc", "tooltip": "", "tags": [],
            "asDropdown": false, "includeVars": false, "keepTime": false, "targetBlank": true,
        }));
    }
    json!({
        "id": id, "type": kind(panel.draw), "title": panel.title, "description": text, "datasource": source(),
        "gridPos": place, "links": links, "targets": targets, "transparent": false,
        "fieldConfig": {"defaults": defaults(panel), "overrides": []},
        "options": look(panel.draw),
        "transformations": if panel.draw == Draw::Table { columns(&panel.targets) } else { json!([]) },
    })
}

fn kind(draw: Draw) -> &'static str {
    match draw {
        Draw::Lines | Draw::Stacked | Draw::Steps => "timeseries",
        Draw::Stat => "stat",
        Draw::Bars => "bargauge",
        Draw::Table => "table",
    }
}

fn target(panel: &Panel, target: &Target, letter: char) -> Value {
    let now = matches!(panel.draw, Draw::Bars | Draw::Table) || target.query.contains("$__range");
    json!({
        "refId": letter.to_string(), "datasource": source(), "expr": target.promql(), "legendFormat": target.legend,
        "editorMode": "code", "instant": now, "range": !now,
        "exemplar": panel.draw == Draw::Lines && target.query.starts_with("histogram_quantile"),
        "format": if panel.draw == Draw::Table { "table" } else { "time_series" },
    })
}

fn defaults(panel: &Panel) -> Value {
    let mut defaults = json!({
        "unit": panel.unit.id(),
        "mappings": mappings(panel),
        "thresholds": thresholds(panel.limits),
        "color": {"mode": if panel.draw == Draw::Stat || panel.draw == Draw::Bars { "thresholds" } else { "palette-classic" }},
        "custom": custom(panel),
    });
    // A share of nothing is nothing, also where it is never more than that.
    if matches!(panel.draw, Draw::Lines | Draw::Stacked) && panel.unit != Unit::Usd {
        defaults["min"] = json!(0);
    }
    defaults
}

fn mappings(panel: &Panel) -> Value {
    if panel.words.is_empty() {
        return json!([]);
    }
    let words: serde_json::Map<_, _> = panel
        .words
        .iter()
        .enumerate()
        .map(|(index, word)| {
            (word.value.to_string(), json!({"text": word.text, "color": word.colour, "index": index}))
        })
        .collect();
    json!([{"type": "value", "options": words}])
}

fn thresholds(limits: Option<Limits>) -> Value {
    let step = |colour: &str, value: Option<f64>| json!({"color": colour, "value": value});
    let steps = match limits {
        None => vec![step("text", None)],
        Some(Limits { bad: Side::Above, warning, critical }) if warning < critical => {
            vec![step("green", None), step("orange", Some(warning)), step("red", Some(critical))]
        }
        Some(Limits { bad: Side::Above, critical, .. }) => {
            vec![step("green", None), step("red", Some(critical))]
        }
        Some(Limits { bad: Side::Below, warning, critical }) => {
            vec![step("red", None), step("orange", Some(critical)), step("green", Some(warning))]
        }
    };
    json!({"mode": "absolute", "steps": steps})
}

fn custom(panel: &Panel) -> Value {
    let limits = if panel.limits.is_some() { "dashed" } else { "off" };
    match panel.draw {
        Draw::Lines => json!({
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 0, "showPoints": "never", "spanNulls": false,
            "thresholdsStyle": {"mode": limits},
        }),
        Draw::Stacked => json!({
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 30, "showPoints": "never", "spanNulls": false,
            "stacking": {"mode": "normal", "group": "A"},
        }),
        Draw::Steps => json!({
            "drawStyle": "line", "lineInterpolation": "stepAfter", "lineWidth": 2, "fillOpacity": 0, "showPoints": "never",
            "spanNulls": false, "axisSoftMin": 0,
        }),
        Draw::Table => json!({"align": "auto", "cellOptions": {"type": "color-text"}, "inspect": false}),
        Draw::Stat | Draw::Bars => json!({}),
    }
}

fn look(draw: Draw) -> Value {
    let last = json!({"calcs": ["lastNotNull"], "fields": "", "values": false});
    match draw {
        Draw::Lines | Draw::Stacked | Draw::Steps => json!({
            "legend": {"displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }),
        Draw::Stat => json!({
            "reduceOptions": last, "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "textMode": "auto",
            "orientation": "auto",
        }),
        Draw::Bars => json!({
            "reduceOptions": last, "displayMode": "basic", "orientation": "horizontal", "showUnfilled": true,
            "valueMode": "color", "minVizWidth": 8, "minVizHeight": 16,
        }),
        Draw::Table => json!({
            "showHeader": true, "cellHeight": "sm", "frameIndex": 0,
            "footer": {"show": false, "reducer": ["sum"], "countRows": false},
        }),
    }
}

/// The queries side by side, under their own names and without the time.
fn columns(targets: &[Target]) -> Value {
    let value = |letter: char| match targets {
        [_] => "Value".to_owned(),
        _ => format!("Value #{letter}"),
    };
    let names: serde_json::Map<_, _> =
        targets.iter().zip('A'..).map(|(target, letter)| (value(letter), json!(target.legend))).collect();
    json!([
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": {"Time": true}, "indexByName": {}, "renameByName": names}},
    ])
}
