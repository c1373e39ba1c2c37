//! Answers to similar questions: a row of the dashboard on costs. How many there are, whether they are right, and what they save.

use super::describe::{Panel, Row, Unit};

pub(super) fn row() -> Row {
    let compared = |matchers: &str| {
        format!(
            "sum by (operation, mode) (increase(semantic_cache_comparisons_total{{@,{matchers}}}[$__range]))"
        )
    };
    let all = compared(r#"verdict!="unknown""#);
    let different = format!("({} or 0 * {all}) / ({all} > 0)", compared(r#"verdict="different""#));
    let spent = |family: &str| format!("3600 * sum(rate({family}{{@}}[@]))");
    let panels = vec![
        Panel::stacked("Similar questions", Unit::PerSecond)
            .width(12)
            .shows("Questions per second that the exact cache had nothing for, by what the semantic cache had; with `shadow` it answered nobody.")
            .good("`hit` steady. `guarded`: the rules kept an answer back; `error`: the embedder or the store fails.")
            .query("{{mode}} {{outcome}}", "sum by (mode, outcome) (rate(semantic_cache_lookups_total{@}[@]))"),
        Panel::stacked("Answers compared with the provider's", Unit::PerSecond)
            .width(12)
            .shows("Answers to similar questions per second that were compared: `shadow` would have been given, `answer` were given and audited.")
            .good("`same` and `alike` nearly all. None with `answer` beside hits: `audit` is 0, or hits are few.")
            .query(
                "{{mode}} {{verdict}}",
                "sum by (mode, verdict) (rate(semantic_cache_comparisons_total{@}[@]))",
            ),
        Panel::bars("Answers that differ", Unit::Share)
            .width(12)
            .shows("Share of the compared answers that say something else than the provider, by model, in the time that is shown.")
            .good("Below the `max_error` of the model. Above it with few comparisons: show more days; else back to `shadow`, and learn anew.")
            .query("{{operation}} ({{mode}})", different),
        Panel::lines("Saved by similar questions", Unit::Usd)
            .width(12)
            .shows("In an hour: what the given answers would have cost, and what embeddings and audits cost for them.")
            .good("The first line above the sum of the others: else it costs more than it saves.")
            .query("saved", spent("semantic_cache_saved_usd_total"))
            .query("embeddings", spent("semantic_cache_embedding_usd_total"))
            .query("audits", spent("semantic_cache_audit_usd_total")),
    ];
    Row::new("Answers to similar questions", panels)
}
