//! The command line of `throughline ops`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::options::{Options, Refused, Thresholds};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  throughline ops export ops                               everything, with defaults, into ./ops
  throughline ops export ops --job llm-edge --monthly-budget 2000
  throughline ops export ops --runbook-url https://wiki.example/runbooks --dashboard-url https://grafana.example
  throughline ops check http://127.0.0.1:9090              can every alert and every panel see what it needs?
  throughline ops check http://127.0.0.1:9090 --json | jq '.missing[].name'")]
pub(crate) struct Ops {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write scrape config, rules, routes of alerts, dashboards, runbooks and deployment files
    Export(Box<Export>),
    /// Ask a live Prometheus whether every series is there that alerts and dashboards need
    Check(Check),
}

#[derive(Args, Debug)]
#[command(after_help = "\
A file that is there already is overwritten only if an earlier export wrote it and nobody has changed it since; \
else nothing is written, and the files in question are named. What an earlier export wrote and this one no longer \
has is removed, unless it was changed. DIR/.throughline-ops keeps the sums by which this is known \
(`b3sum --check .throughline-ops` reads it).

Then: prometheus --config.file=DIR/prometheus/prometheus.yml; promtool check config DIR/prometheus/prometheus.yml

Exits with 0 when all is written, with 1 when something cannot be, and with 2 when an option makes no sense or a \
file of somebody else is in the way.")]
pub(crate) struct Export {
    /// The folder to write to; made if it is not there
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// Overwrite files that were changed or that somebody else wrote
    #[arg(long)]
    pub(crate) force: bool,
    /// The label `job` that Prometheus gives the gateways
    #[arg(long, value_name = "NAME", default_value = "throughline")]
    job: String,
    /// Which share of requests must succeed over 30 days, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 99.9)]
    objective: f64,
    /// Where the runbooks can be read: alerts link to URL/ALERT.md [default: the project's repository]
    #[arg(long, value_name = "URL")]
    runbook_url: Option<String>,
    /// Where Grafana is: alerts link to URL/d/DASHBOARD
    #[arg(long, value_name = "URL", default_value = "http://localhost:3000")]
    dashboard_url: String,
    /// Where Alertmanager sends alerts: to URL/critical, URL/warning, URL/info and URL/watchdog
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9095")]
    alert_webhook: String,
    /// Warn when less of the lookups is answered from the cache, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = Thresholds::default().cache_hit_rate)]
    min_cache_hit_rate: f64,
    /// Warn when routing saves less of the baseline's cost, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = Thresholds::default().savings)]
    min_savings: f64,
    /// Call when more of the guarded runs time out, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = Thresholds::default().timeout_rate)]
    max_timeout_rate: f64,
    /// Warn when the gateway's own time is longer than this for one request in a hundred
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = humantime::parse_duration)]
    max_overhead: Duration,
    /// Warn when an hour costs this many times what the same hour cost a week ago
    #[arg(long, value_name = "TIMES", default_value_t = Thresholds::default().cost_spike)]
    cost_spike: f64,
    /// … and not less than this
    #[arg(long, value_name = "USD", default_value_t = Thresholds::default().cost_spike_floor)]
    cost_spike_floor: f64,
    /// What the models may cost in 30 days; without it there is no alert for that
    #[arg(long, value_name = "USD")]
    monthly_budget: Option<f64>,
    /// Warn when more of the monthly budget is spent, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = Thresholds::default().budget_spent)]
    budget_spent: f64,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Give a gateway some traffic first: a series whose event never happened may be absent.

Exits with 0 when nothing is missing, with 1 when something is, and with 2 when Prometheus cannot be asked.")]
pub(crate) struct Check {
    /// The address of Prometheus, such as http://127.0.0.1:9090
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// The label `job` of the gateways
    #[arg(value_name = "JOB", default_value = "throughline")]
    pub(crate) job: String,
    /// Print what was found as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

// === impl Export ===

impl Export {
    /// What the pack is made for.
    ///
    /// # Errors
    /// The first option that makes no sense.
    pub(crate) fn options(&self) -> Result<Options, Refused> {
        let defaults = Options::default();
        let options = Options {
            job: self.job.clone(),
            objective: self.objective,
            runbook_url: self.runbook_url.clone().unwrap_or(defaults.runbook_url),
            dashboard_url: self.dashboard_url.clone(),
            alert_webhook: self.alert_webhook.clone(),
            thresholds: Thresholds {
                cache_hit_rate: self.min_cache_hit_rate,
                savings: self.min_savings,
                timeout_rate: self.max_timeout_rate,
                overhead: self.max_overhead.as_secs_f64(),
                cost_spike: self.cost_spike,
                cost_spike_floor: self.cost_spike_floor,
                budget_spent: self.budget_spent,
            },
            monthly_budget: self.monthly_budget,
        };
        options.validated()
    }
}
