//! What Grafana reads when it starts: where Prometheus is, and where the dashboards are.
//!
//! Addresses come from Grafana's environment, so that the same files serve a machine, containers and a cluster.

use crate::ops::pack::File;

const DATASOURCE: &str = r#"# Where Grafana asks. Two variables of Grafana's environment:
#   PROMETHEUS_URL  the address of Prometheus, such as http://localhost:9090
#   TRACES_URL      the address of a trace in your trace store, up to its id, such as http://localhost:6006/traces/
apiVersion: 1
datasources:
  - name: Prometheus
    uid: throughline-prometheus
    type: prometheus
    access: proxy
    url: ${PROMETHEUS_URL}
    isDefault: true
    editable: false
    jsonData:
      httpMethod: POST
      prometheusType: Prometheus
      # The scrape interval: rates are taken over four of them at least.
      timeInterval: 15s
      # The dots in pictures of latency lead to traces.
      exemplarTraceIdDestinations:
        - name: trace_id
          url: ${TRACES_URL}$${__value.raw}
          urlDisplayLabel: Trace
"#;

const PROVIDER: &str = r#"# The dashboards of the pack. Mount its folder grafana/dashboards where `path` says.
apiVersion: 1
providers:
  - name: throughline
    folder: Throughline
    type: file
    disableDeletion: true
    allowUiUpdates: false
    updateIntervalSeconds: 30
    options:
      path: /etc/grafana/dashboards/throughline
"#;

/// The files below `grafana/provisioning/`.
pub(super) fn files() -> Vec<File> {
    vec![
        File::new("grafana/provisioning/datasources/throughline.yaml", DATASOURCE),
        File::new("grafana/provisioning/dashboards/throughline.yaml", PROVIDER),
    ]
}
