//! Prometheus' own configuration, without and with TLS and a password.
//!
//! Which gateways and which Alertmanagers there are stands in files of its own: Prometheus reads them again when they
//! change, and the rest need not be edited.

use crate::ops::options::Options;
use crate::ops::pack::File;

const HEAD: &str = "\
# Written by `throughline ops export`; its options change it.
#
#   prometheus --config.file=prometheus.yml --storage.tsdb.retention.time=40d --enable-feature=exemplar-storage
#
# Retention: the error budget and the monthly budget look back 30 days, the cost spike a week.
# Exemplars: from a slow bucket to the trace behind it.
global:
  scrape_interval: 15s
  scrape_timeout: 10s
  evaluation_interval: 30s

rule_files:
  - rules/*.yml

alerting:
  alertmanagers:
    - file_sd_configs:
        - files: [alertmanagers.yml]

scrape_configs:
";

const TLS: &str = "\
    # The metrics port has `metrics_listen = \"0.0.0.0:9464\"` and a `web_config_file` with a certificate and users.
    scheme: https
    tls_config:
      # Whose signature the gateways' certificates carry.
      ca_file: throughline-ca.crt
      min_version: TLS12
    basic_auth:
      username: prometheus
      # One line; readable by Prometheus only. With a bearer token in place of a user:
      #   authorization: { credentials_file: throughline.token }
      password_file: throughline.password
";

const TARGETS: &str = "\
# The metrics ports of the gateways. Prometheus reads this file again when it changes.
- targets:
    - 127.0.0.1:9464
";

const ALERTMANAGERS: &str = "\
# Where alerts go. Prometheus reads this file again when it changes.
- targets:
    - 127.0.0.1:9093
";

/// The files that Prometheus is started with.
pub(super) fn files(options: &Options) -> [File; 4] {
    [
        File::new("prometheus/prometheus.yml", config(options, "")),
        File::new("prometheus/prometheus-tls.yml", config(options, TLS)),
        File::new("prometheus/targets.yml", TARGETS),
        File::new("prometheus/alertmanagers.yml", ALERTMANAGERS),
    ]
}

fn config(options: &Options, more: &str) -> String {
    let head =
        if more.is_empty() { HEAD.to_owned() } else { HEAD.replace("prometheus.yml", "prometheus-tls.yml") };
    format!("{head}  - job_name: {}\n    file_sd_configs:\n      - files: [targets.yml]\n{more}", options.job)
}
