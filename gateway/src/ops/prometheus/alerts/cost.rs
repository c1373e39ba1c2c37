//! What the cache and the router should save, and what models cost.

use crate::ops::board::Board;
use crate::ops::options::{Options, plain, share};
use crate::ops::prometheus::rule::{Alert, Severity, Words};

pub(super) fn alerts(options: &Options) -> Vec<Alert> {
    let mut alerts = vec![hit_rate(options), savings(options), spike(options)];
    alerts.extend(options.monthly_budget.map(|usd| budget(options, usd)));
    alerts
}

fn hit_rate(options: &Options) -> Alert {
    let limit = options.thresholds.cache_hit_rate;
    let expr = format!(
        "job_operation:cache_hit:ratio30m{{$job}} < {}
  and job_operation:cache_lookups:increase30m{{$job}} >= 50",
        share(limit)
    );
    let words = Words {
        summary: format!("Less than {limit}% of the lookups is answered from the cache."),
        description: "{{ $labels.job }} / {{ $labels.operation }}: {{ $value | humanizePercentage }} of the lookups of the last 30 minutes were hits.",
        board: Board::Overview,
    };
    Alert::new(options, "CacheHitRateLow", Severity::Warning, Some("cache"), ("15m", &expr), words)
        .keep_firing_for("10m")
}

fn savings(options: &Options) -> Alert {
    let limit = options.thresholds.savings;
    let expr = format!(
        "job:router_savings:ratio6h{{$job}} < {}
  and on (job) sum by (job) (increase(router_decisions_total{{$job}}[6h])) >= 100",
        share(limit)
    );
    let words = Words {
        summary: format!("Routing saves less than {limit}% of what the baseline would have cost."),
        description: "{{ $labels.job }}: answers of the last 6 hours cost {{ $value | humanizePercentage }} less than on the baseline routes; below zero they cost more.",
        board: Board::Llm,
    };
    Alert::new(options, "RouterSavingsLow", Severity::Warning, Some("router"), ("30m", &expr), words)
}

/// Without a figure of a week ago there is nothing to compare with; a figure of zero is one.
fn spike(options: &Options) -> Alert {
    let (times, floor) = (plain(options.thresholds.cost_spike), plain(options.thresholds.cost_spike_floor));
    let expr = format!(
        "job:llm_cost_usd:increase1h{{$job}} > {times} * (job:llm_cost_usd:increase1h{{$job}} offset 1w)
  and job:llm_cost_usd:increase1h{{$job}} >= {floor}"
    );
    let words = Words {
        summary: format!("Models cost more than {times} times what they did a week ago."),
        description: "{{ $labels.job }}: models cost {{ $value | printf \"%.2f\" }} USD in the last hour.",
        board: Board::Llm,
    };
    Alert::new(options, "LlmCostSpike", Severity::Warning, Some("llm"), ("15m", &expr), words)
}

fn budget(options: &Options, usd: f64) -> Alert {
    let percent = options.thresholds.budget_spent;
    let expr = format!("job:llm_cost_usd:sum30d{{$job}} > {} * {}", share(percent), plain(usd));
    let words = Words {
        summary: format!("More than {percent}% of the monthly budget of {} USD is spent.", plain(usd)),
        description: "{{ $labels.job }}: models cost {{ $value | printf \"%.2f\" }} USD in the last 30 days.",
        board: Board::Llm,
    };
    Alert::new(options, "LlmBudgetNearlySpent", Severity::Warning, Some("llm"), ("5m", &expr), words)
}
