//! What a pack is made for: validated once, here; nothing else checks it again.

use std::fmt;

/// The job that the files of the repository speak of.
const JOB: &str = "throughline";
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

/// Decides every text of a pack.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    /// The label `job` of every series.
    pub(crate) job: String,
    /// Which share of requests must succeed, in percent: 99.9.
    pub(crate) objective: f64,
    /// The address of the folder of the runbooks, without a slash at its end.
    pub(crate) runbook_url: String,
    /// The address of Grafana, without a slash at its end.
    pub(crate) dashboard_url: String,
    /// The address that Alertmanager posts alerts to, without a slash at its end.
    pub(crate) alert_webhook: String,
    pub(crate) thresholds: Thresholds,
    /// What the models may cost in 30 days, in USD. Without one nothing watches it.
    pub(crate) monthly_budget: Option<f64>,
}

/// Where alerts begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Thresholds {
    /// A smaller share of cache hits warns, in percent.
    pub(crate) cache_hit_rate: f64,
    /// A smaller share of saved cost warns, in percent.
    pub(crate) savings: f64,
    /// A larger share of timeouts is critical, in percent.
    pub(crate) timeout_rate: f64,
    /// A larger 99th percentile of the gateway's own time warns, in seconds.
    pub(crate) overhead: f64,
    /// An hour that costs so many times what it did a week ago warns.
    pub(crate) cost_spike: f64,
    /// … unless it costs less than this, in USD.
    pub(crate) cost_spike_floor: f64,
    /// A larger share of the monthly budget that is spent warns, in percent.
    pub(crate) budget_spent: f64,
}

/// What is wrong with an option.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    option: &'static str,
    why: String,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            job: JOB.to_owned(),
            objective: 99.9,
            runbook_url: format!("{REPOSITORY}/blob/main/ops/runbooks"),
            dashboard_url: "http://localhost:3000".to_owned(),
            alert_webhook: "http://127.0.0.1:9095".to_owned(),
            thresholds: Thresholds::default(),
            monthly_budget: None,
        }
    }
}

impl Options {
    /// The same, if every value makes sense.
    ///
    /// # Errors
    /// The first value that does not.
    pub(crate) fn validated(mut self) -> Result<Self, Refused> {
        let limits = &self.thresholds;
        job("--job", &self.job)?;
        // At less than 95 % the fastest burn would be more than every request.
        within("--objective", self.objective, 95.0, 99.999)?;
        within("--min-cache-hit-rate", limits.cache_hit_rate, 0.1, 99.9)?;
        within("--min-savings", limits.savings, 0.1, 99.9)?;
        within("--max-timeout-rate", limits.timeout_rate, 0.1, 99.9)?;
        // The histogram ends at 1 s: no quantile is above.
        within("--max-overhead", limits.overhead, 0.0001, 0.5)?;
        within("--cost-spike", limits.cost_spike, 1.1, 1000.0)?;
        within("--cost-spike-floor", limits.cost_spike_floor, 0.0001, 1e9)?;
        within("--budget-spent", limits.budget_spent, 1.0, 100.0)?;
        if let Some(budget) = self.monthly_budget {
            within("--monthly-budget", budget, 0.01, 1e9)?;
        }
        self.runbook_url = address("--runbook-url", &self.runbook_url)?;
        self.dashboard_url = address("--dashboard-url", &self.dashboard_url)?;
        self.alert_webhook = address("--alert-webhook", &self.alert_webhook)?;
        Ok(self)
    }

    /// A PromQL expression with `$job` for the matcher of the job, for this job.
    pub(crate) fn selecting(&self, expr: &str) -> String {
        expr.replace("$job", &format!("job=\"{}\"", self.job))
    }

    /// Which share of requests may fail, 0 to 1, as PromQL writes it.
    pub(crate) fn error_budget(&self) -> String {
        share(100.0 - self.objective)
    }

    /// A text that was written by hand for the default job, for this one.
    pub(crate) fn for_job(&self, text: &str) -> String {
        text.replace(&format!("job=\"{JOB}\""), &format!("job=\"{}\"", self.job))
            .replace(&format!("job_name: {JOB}\n"), &format!("job_name: {}\n", self.job))
    }
}

/// A percentage as a share from 0 to 1, without the dust of binary fractions.
pub(crate) fn share(percent: f64) -> String {
    plain(percent / 100.0)
}

/// A number with at most nine digits behind the point, without the dust of binary fractions.
pub(crate) fn plain(number: f64) -> String {
    ((number * 1e9).round() / 1e9).to_string()
}

// === impl Thresholds ===

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            cache_hit_rate: 40.0,
            savings: 20.0,
            timeout_rate: 10.0,
            overhead: 0.05,
            cost_spike: 3.0,
            cost_spike_floor: 1.0,
            budget_spent: 80.0,
        }
    }
}

// === impl Refused ===

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.why)
    }
}

/// A job stands in selectors, in YAML and in addresses: it gets by everywhere without quoting.
fn job(option: &'static str, name: &str) -> Result<(), Refused> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    if plain && first && name.len() <= 63 {
        return Ok(());
    }
    let why = format!(
        "`{name}` is not a name of a job here: write 1 to 63 letters, digits, `_`, `-` and `.`, a letter first, as \
         `job_name` in Prometheus' configuration"
    );
    Err(Refused { option, why })
}

fn within(option: &'static str, value: f64, least: f64, most: f64) -> Result<(), Refused> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Refused { option, why: format!("{value} is out of range: write a number from {least} to {most}") })
}

fn address(option: &'static str, url: &str) -> Result<String, Refused> {
    let trimmed = url.trim_end_matches('/');
    let refused = |why: &str| Refused { option, why: format!("`{url}` {why}") };
    if trimmed.contains(['"', '\'', '\\', '{', '}', '<', '>', ' ']) || trimmed.contains(char::is_control) {
        return Err(refused("has characters that no address has: encode them"));
    }
    let parsed: http::Uri =
        trimmed.parse().map_err(|_| refused("is not an address: write https://HOST/PATH"))?;
    if !matches!(parsed.scheme_str(), Some("http" | "https")) || parsed.host().is_none_or(str::is_empty) {
        return Err(refused("is not an address: write https://HOST/PATH"));
    }
    if parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(refused("holds a password, which every reader of an alert would see: leave it out"));
    }
    if parsed.query().is_some() || trimmed.contains('#') {
        return Err(refused("must end with its path: a name is put behind it"));
    }
    Ok(trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Options)) -> String {
        let mut options = Options::default();
        change(&mut options);
        options.validated().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_make_sense() {
        assert_eq!(Options::default().validated(), Ok(Options::default()));
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_with_what_would() {
        assert_eq!(
            refused(|options| options.objective = 100.0),
            "--objective: 100 is out of range: write a number from 95 to 99.999"
        );
        assert_eq!(
            refused(|options| options.thresholds.overhead = f64::NAN),
            "--max-overhead: NaN is out of range: write a number from 0.0001 to 0.5"
        );
        assert!(
            refused(|options| options.monthly_budget = Some(-1.0)).starts_with("--monthly-budget: -1 is")
        );
        let job = refused(|options| options.job = "a\"} or vector(1)".to_owned());
        assert!(
            job.starts_with("--job: `a\"} or vector(1)` is not a name of a job here: write 1 to 63"),
            "{job}"
        );
    }

    #[test]
    fn an_address_is_one_that_a_name_can_be_put_behind() {
        let url = |url: &str| refused(|options| options.runbook_url = url.to_owned());
        assert_eq!(url("runbooks"), "--runbook-url: `runbooks` is not an address: write https://HOST/PATH");
        assert_eq!(url("file:///x"), "--runbook-url: `file:///x` is not an address: write https://HOST/PATH");
        assert!(url("https://a:b@c.example").contains("holds a password"));
        assert!(url("https://c.example/?page=").contains("must end with its path"));
        assert!(url("https://c.example/{{ x }}").contains("encode them"));
        let fine = Options { runbook_url: "https://wiki.example/runbooks/".to_owned(), ..Options::default() };
        assert_eq!(fine.validated().unwrap().runbook_url, "https://wiki.example/runbooks");
    }

    #[test]
    fn shares_are_written_as_people_would() {
        assert_eq!(Options::default().error_budget(), "0.001");
        assert_eq!(Options { objective: 99.99, ..Options::default() }.error_budget(), "0.0001");
        assert_eq!(share(40.0), "0.4");
        assert_eq!(plain(100.0 - 99.9), "0.1");
    }

    #[test]
    fn texts_that_are_written_by_hand_follow_the_job() {
        let options = Options { job: "edge".to_owned(), ..Options::default() };
        let text = "up{job=\"throughline\"} and job=\"throughline-other\"\n- job_name: throughline\n";
        assert_eq!(
            options.for_job(text),
            "up{job=\"edge\"} and job=\"throughline-other\"\n- job_name: edge\n"
        );
    }
}
