//! LLM Usage & Costs: what models cost, what was saved, and how fast they answer.

use super::Bounds;
use super::describe::{Dashboard, Limits, Panel, Row, Side, Unit, Variable, quantile};
use super::semantic;
use crate::ops::board::Board;

pub(super) fn dashboard(bounds: &Bounds) -> Dashboard {
    Dashboard {
        board: Board::Llm,
        title: "LLM Usage & Costs",
        purpose: "What models cost, what routing and the caches save, how many tokens are used, and how fast answers come.",
        variable: Variable { name: "model", label: "Model", series: "llm_cost_usd_total{@}", of: "model" },
        rows: vec![fine(bounds), costs(bounds), semantic::row(), tokens(), speed()],
    }
}

/// A query of the names that conventions have today, or else of those to come.
fn either(query: impl Fn(&str) -> String, today: &str, to_come: &str) -> String {
    format!("{} or {}", query(today), query(to_come))
}

fn fine(bounds: &Bounds) -> Row {
    let limits = bounds.budget.map(|budget| Limits {
        bad: Side::Above,
        warning: budget * bounds.budget_spent,
        critical: budget,
    });
    let spent = match bounds.budget {
        Some(budget) => {
            format!("Below the budget of {budget} USD; at {} of it is an alert.", Bounds::percent(bounds.budget_spent))
        }
        None => "Below the month's budget. `throughline ops export --monthly-budget` makes it a limit and an alert.".to_owned(),
    };
    let panels = vec![
        Panel::stat("Spend per hour", Unit::Usd)
            .shows("What model calls cost at the pace of now.")
            .good("Near the same hour of the week before: three times as much is an alert.")
            .alert("LlmCostSpike")
            .query("per hour", r#"3600 * sum(rate(llm_cost_usd_total{@,model=~"$model"}[@]))"#),
        Panel::stat("Spent in 30 days", Unit::Usd)
            .shows("What model calls of all models cost in the last 30 days; before the first full hour, in the last hour.")
            .good(spent)
            .limited(limits)
            .alert("LlmBudgetNearlySpent")
            .query("spent", "sum(job:llm_cost_usd:sum30d{#}) or sum(job:llm_cost_usd:increase1h{#})"),
        Panel::stat("30 days at this pace", Unit::Usd)
            .shows("What 30 days would cost at the average pace of the time that is shown.")
            .good("As the plan says. Show a week: a day or a night alone misleads.")
            .limited(limits)
            .alert("LlmBudgetNearlySpent")
            .query("forecast", r#"2592000 * sum(rate(llm_cost_usd_total{@,model=~"$model"}[$__range]))"#),
        Panel::stat("Saved by routing", Unit::Share)
            .shows("What the chosen routes cost less than the baseline's would have, over 6 hours.")
            .good(format!(
                "Above {}. Below 0 routing costs more than always asking the baseline's model.",
                Bounds::percent(bounds.savings)
            ))
            .bad_below(bounds.savings, 0.0)
            .alert("RouterSavingsLow")
            .query(
                "saved",
                "1 - sum(job:router_cost_usd:increase6h{#}) / (sum(job:router_baseline_cost_usd:increase6h{#}) > 0)",
            ),
        Panel::stat("Saved by the cache", Unit::Usd)
            .shows("What the answers from the cache would have cost, in the time that is shown.")
            .good("As much as the hit rate promises; 0 with hits means that models have no price.")
            .alert("CacheHitRateLow")
            .query("saved", "sum(increase(cache_cost_savings_usd_total{@}[$__range]))"),
        Panel::stat("Calls without a price", Unit::Share)
            .shows("Share of the answered calls whose cost is unknown.")
            .good("0 %. Else every figure of this page is too low: add the model to `[prices]`, or find out why its answers lack a usage.")
            .bad_above(0.001, 0.05)
            .query(
                "unpriced",
                either(
                    |calls| format!(
                        r#"sum(rate(llm_unpriced_calls_total{{@,model=~"$model"}}[@])) / (sum(rate({calls}_count{{@,gen_ai_request_model=~"$model",error_type=""}}[@])) > 0)"#
                    ),
                    "gen_ai_client_operation_duration_seconds",
                    "gen_ai_client_inference_duration_seconds",
                ),
            ),
    ];
    Row::new("Is it fine?", panels)
}

fn costs(bounds: &Bounds) -> Row {
    let spent = "sum(rate(router_cost_usd_total{@}[@]))";
    let baseline = "sum(rate(router_baseline_cost_usd_total{@}[@]))";
    let by_route = |family| format!("sum by (route) (increase({family}{{@}}[$__range]))");
    let panels = vec![
        Panel::stacked("Cost by model", Unit::Usd)
            .shows("What each model costs in an hour at the pace of that time.")
            .good("The dear models are the thin layers. A layer that grows alone: look at the decisions of the router.")
            .alert("LlmCostSpike")
            .query(
                "{{provider}} {{model}}",
                r#"3600 * sum by (provider, model) (rate(llm_cost_usd_total{@,model=~"$model"}[@]))"#,
            ),
        Panel::lines("Cost against the baseline", Unit::Usd)
            .shows("What the routes cost in an hour, and what the baseline's model would have for the same answers.")
            .good(format!(
                "The distance is what routing saves: at least {} of the upper line.",
                Bounds::percent(bounds.savings)
            ))
            .alert("RouterSavingsLow")
            .query("cost", format!("3600 * {spent}"))
            .query("baseline", format!("3600 * {baseline}")),
        Panel::lines("Savings", Unit::Usd)
            .shows("What is saved in an hour: net of what dearer routes cost more, gross without that, and by the cache.")
            .good("Net near gross. Net far below: some requests go to routes dearer than the baseline.")
            .alert("RouterSavingsLow")
            .query("net", format!("3600 * ({baseline} - {spent})"))
            .query("gross", "3600 * sum(rate(router_cost_savings_usd_total{@}[@]))")
            .query("cache", "3600 * sum(rate(cache_cost_savings_usd_total{@}[@]))"),
        Panel::table("Routes", Unit::Usd)
            .width(24)
            .shows("Cost, the baseline's cost and gross savings of each route, in the time that is shown.")
            .good("The route with the most cost has a reason for it. A baseline of 0 beside a cost: the baseline has no price.")
            .query("cost", by_route("router_cost_usd_total"))
            .query("baseline", by_route("router_baseline_cost_usd_total"))
            .query("saved", by_route("router_cost_savings_usd_total")),
    ];
    Row::new("Costs", panels)
}

fn tokens() -> Row {
    let read = r#"sum(rate(gen_ai_client_token_usage_sum{@,gen_ai_request_model=~"$model",gen_ai_token_type="input"}[@])) or sum(rate(gen_ai_client_inference_usage_input_tokens_total{@,gen_ai_request_model=~"$model"}[@]))"#;
    let written = r#"sum(rate(gen_ai_client_token_usage_sum{@,gen_ai_request_model=~"$model",gen_ai_token_type="output"}[@])) or sum(rate(gen_ai_client_inference_usage_output_tokens_total{@,gen_ai_request_model=~"$model"}[@]))"#;
    let by_model = r#"sum by (gen_ai_provider_name, gen_ai_request_model) (rate(gen_ai_client_token_usage_sum{@,gen_ai_request_model=~"$model"}[@])) or sum by (gen_ai_provider_name, gen_ai_request_model) (rate(gen_ai_client_inference_usage_input_tokens_total{@,gen_ai_request_model=~"$model"}[@]) + rate(gen_ai_client_inference_usage_output_tokens_total{@,gen_ai_request_model=~"$model"}[@]))"#;
    let panels = vec![
        Panel::stacked("Tokens by type", Unit::PerSecond)
            .width(12)
            .shows("Tokens per second that models read and wrote.")
            .good("A steady proportion. More read for the same requests: prompts or histories grow.")
            .query("read", read)
            .query("written", written),
        Panel::stacked("Tokens by model", Unit::PerSecond)
            .width(12)
            .shows("Tokens per second, read and written, by provider and model.")
            .good("Follows the costs. Tokens without cost: a model without a price.")
            .query("{{gen_ai_provider_name}} {{gen_ai_request_model}}", by_model),
    ];
    Row::new("Tokens", panels)
}

fn speed() -> Row {
    let calls = |matchers: &str| {
        format!(
            r#"sum by (operation) (rate(throughline_primitive_duration_seconds_count{{@,primitive="chat",operation=~".+/$model"{matchers}}}[@]))"#
        )
    };
    let failed = format!("({} or 0 * {all}) / ({all} > 0)", calls(r#",outcome="error""#), all = calls(""));
    let duration = |family: &str| {
        quantile(
            "0.95",
            family,
            r#"{@,gen_ai_request_model=~"$model"}"#,
            "gen_ai_provider_name, gen_ai_request_model",
        )
    };
    let first = |of| quantile(of, "gen_ai_server_time_to_first_token_seconds", "{@}", "");
    let next = |of| quantile(of, "gen_ai_server_time_per_output_token_seconds", "{@}", "");
    let (today, to_come) =
        ("gen_ai_client_operation_duration_seconds", "gen_ai_client_inference_duration_seconds");
    let panels = vec![
        Panel::lines("Time to the first token", Unit::Seconds)
            .width(12)
            .shows("From a streamed request to the first content of its answer. Dots are single requests and lead to their traces.")
            .good("p50 below a second: this is what a person waits. The cache's answers pull p50 down, not p95.")
            .query("p50", first("0.5"))
            .query("p95", first("0.95")),
        Panel::lines("Time per further token", Unit::Seconds)
            .width(12)
            .shows("Time per token after the first one, in complete streams.")
            .good("Below 50 ms a person reads along. A rise is the provider's load.")
            .query("p50", next("0.5"))
            .query("p95", next("0.95")),
        Panel::lines("Model calls, p95", Unit::Seconds)
            .width(12)
            .shows("How long calls to each model took, in nineteen of twenty, to the last chunk.")
            .good("Each model has its own level and keeps it. Dots lead to traces of single calls.")
            .alert("TimeoutRateHigh")
            .query(
                "{{gen_ai_provider_name}} {{gen_ai_request_model}}",
                either(duration, today, to_come),
            ),
        Panel::lines("Failed calls by model", Unit::Share)
            .width(12)
            .shows("Share of the calls to each model of each provider that failed; those whose caller went away are not in it.")
            .good("Below 1 %. Retries and fallbacks hide it from callers until it is large.")
            .bad_above(0.01, 0.1)
            .alert("CircuitOpen")
            .query("{{operation}}", failed),
    ];
    Row::new("Speed and faults of models", panels)
}
