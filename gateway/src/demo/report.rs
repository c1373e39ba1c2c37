//! The report: every figure comes from the page that /metrics serves.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use throughline::telemetry::Scrape;

const CHAT: [(&str, &str); 1] = [("route", "/v1/chat/completions")];

/// What a run of the demonstration did. Times in milliseconds, money in USD.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    requests: u64,
    errors: u64,
    /// Answers by status code.
    codes: BTreeMap<String, u64>,
    latency_ms: Quantiles,
    overhead_ms: Quantiles,
    routes: BTreeMap<String, u64>,
    cache: BTreeMap<String, u64>,
    /// Hits among lookups, 0 to 1.
    cache_hit_rate: Option<f64>,
    timeouts: u64,
    unpriced_calls: u64,
    money: Money,
}

/// Quantiles of a duration in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Quantiles {
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
}

/// What it cost and what it would have.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Money {
    /// What the answered calls cost.
    spend_usd: f64,
    /// What the same calls would have cost on the baseline route.
    baseline_usd: f64,
    /// The difference.
    saved_by_routing_usd: f64,
    /// What the answers from the cache would have cost.
    saved_by_cache_usd: f64,
    saved_usd: f64,
    /// Of spend and saved together: what it would have cost without routing and cache.
    saved_percent: Option<f64>,
}

// === impl Report ===

impl Report {
    /// Reads the figures off a page.
    pub(super) fn read(page: &Scrape) -> Self {
        let codes: BTreeMap<_, _> = page
            .select("gateway_requests_total", &CHAT)
            .filter(|sample| sample.value > 0.0)
            .map(|sample| (sample.labels.get("code").cloned().unwrap_or_default(), whole(sample.value)))
            .collect();
        let requests = codes.values().sum();
        // A stream that fails half-way has the code 200 all the same; its run has not succeeded.
        let runs = |outcome| {
            let labels = [("primitive", "gateway"), ("operation", CHAT[0].1), ("outcome", outcome)];
            whole(page.sum("throughline_primitive_duration_seconds_count", &labels).unwrap_or_default())
        };
        let refused: u64 =
            codes.iter().filter(|(code, _)| code.starts_with('4')).map(|(_, count)| count).sum();
        let errors = runs("error") + refused;
        let total = |name: &str| page.sum(name, &[]).unwrap_or_default();
        let (hits, misses) = (total("cache_hits_total"), total("cache_misses_total"));
        Self {
            requests,
            errors,
            codes,
            latency_ms: Quantiles::read(page, "gateway_request_duration_seconds"),
            overhead_ms: Quantiles::read(page, "gateway_overhead_seconds"),
            routes: counts(page, "router_decisions_total", "route"),
            cache: counts(page, "cache_outcomes_total", "outcome"),
            cache_hit_rate: (hits + misses > 0.0).then(|| hits / (hits + misses)),
            timeouts: whole(total("timeout_failures_total")),
            unpriced_calls: whole(total("llm_unpriced_calls_total")),
            money: Money::read(page),
        }
    }
}

fn counts(page: &Scrape, name: &str, by: &str) -> BTreeMap<String, u64> {
    page.sum_by(name, by).into_iter().map(|(key, value)| (key, whole(value))).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a counter is whole and not negative"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

// === impl Quantiles ===

impl Quantiles {
    fn read(page: &Scrape, histogram: &str) -> Self {
        let quantile = |q| page.quantile(q, histogram, &CHAT).map(|seconds| seconds * 1e3);
        Self { p50: quantile(0.5), p95: quantile(0.95), p99: quantile(0.99) }
    }
}

// === impl Money ===

impl Money {
    fn read(page: &Scrape) -> Self {
        let total = |name: &str| page.sum(name, &[]).unwrap_or_default();
        let (spend, baseline) = (total("router_cost_usd_total"), total("router_baseline_cost_usd_total"));
        let by_routing = baseline - spend;
        let by_cache = total("cache_cost_savings_usd_total");
        let saved = by_routing + by_cache;
        let without = baseline + by_cache;
        Self {
            spend_usd: spend,
            baseline_usd: baseline,
            saved_by_routing_usd: by_routing,
            saved_by_cache_usd: by_cache,
            saved_usd: saved,
            saved_percent: (without > 0.0).then(|| 100.0 * saved / without),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes: Vec<_> = self.codes.iter().map(|(code, count)| format!("{code}: {count}")).collect();
        let share = percent(self.errors, self.requests);
        writeln!(f, "\n  Requests    {:>8}   {} errors ({share})", self.requests, self.errors)?;
        writeln!(f, "  Answers                {}", codes.join(", "))?;
        writeln!(f, "  Latency                {}", self.latency_ms)?;
        writeln!(f, "  Overhead               {}   (the gateway's own share)", self.overhead_ms)?;
        writeln!(f, "\n  Routes")?;
        split(f, &self.routes)?;
        let hits = |rate: f64| format!("{:.1} % of its lookups were hits", rate * 100.0);
        writeln!(
            f,
            "  Cache                  {}",
            self.cache_hit_rate.map_or("no lookups".to_owned(), hits)
        )?;
        split(f, &self.cache)?;
        writeln!(f, "  Timeouts    {:>8}\n", self.timeouts)?;
        self.money.fmt(f)?;
        if self.unpriced_calls > 0 {
            let calls = self.unpriced_calls;
            writeln!(
                f,
                "  Unpriced    {calls:>8}   calls of unknown cost, such as broken streams: in none of these sums"
            )?;
        }
        Ok(())
    }
}

/// How many went which way.
fn split(f: &mut fmt::Formatter<'_>, ways: &BTreeMap<String, u64>) -> fmt::Result {
    let all = ways.values().sum();
    for (way, count) in ways.iter().filter(|(_, count)| **count > 0) {
        writeln!(f, "    {way:<10}{count:>8}   {:>6}  {}", percent(*count, all), bar(*count, all))?;
    }
    Ok(())
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spend_usd, baseline_usd, saved_by_routing_usd, saved_by_cache_usd, saved_usd, .. } = self;
        let share = self.saved_percent.map(|percent| format!("({percent:.1} % of spend and saved together)"));
        writeln!(f, "  Spend       {spend_usd:>12.6} USD")?;
        writeln!(f, "  Baseline    {baseline_usd:>12.6} USD   (the same calls, all on the baseline route)")?;
        writeln!(f, "  Saved       {saved_usd:>12.6} USD   {}", share.unwrap_or_default())?;
        writeln!(f, "    routing   {saved_by_routing_usd:>12.6} USD   (baseline less spend)")?;
        writeln!(f, "    cache     {saved_by_cache_usd:>12.6} USD   (what its answers had cost)")
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |value: Option<f64>| {
            value.map_or("-".to_owned(), |ms| format!("{ms:.*} ms", usize::from(ms < 10.0) * 2))
        };
        write!(f, "p50 {:<9} p95 {:<9} p99 {}", ms(self.p50), ms(self.p95), ms(self.p99))
    }
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

fn bar(part: u64, whole: u64) -> String {
    "█".repeat(usize::try_from(part * 24 / whole.max(1)).unwrap_or(24))
}
