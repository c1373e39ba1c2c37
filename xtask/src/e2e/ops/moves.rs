//! What must move which queries.

use std::collections::BTreeSet;

/// The causes that must move a query.
enum Cause {
    /// Each of these.
    All(&'static [&'static str]),
    /// It says what is so, which no fault changes: the reason is for who reads the table.
    Still(#[cfg_attr(not(test), expect(dead_code, reason = "for who reads the table"))] &'static str),
}

/// A query with this text in it, and what must move it. The first that fits holds.
const MOVES: &[(&str, Cause)] = &[
    (
        "telemetry_series_overflow",
        Cause::Still("it takes 2,000 label sets of one family, which nothing here has"),
    ),
    ("stage=\"production\"}))", Cause::Still("nothing here is promoted as far")),
    ("count(max by (component)", Cause::Still("there is one component, all the time")),
    ("verdict=\"different\"", Cause::Still("its providers always say the same")),
    ("semantic_cache_embedding_usd_total", Cause::Still("the built-in embedder costs nothing")),
    ("event=\"overrun\"", Cause::Still("it takes work that blocks its thread, which the gateway has not")),
    (
        "primitive=\"timeout\",outcome=\"timeout\"",
        Cause::Still("it is the limit that is configured, as long as nothing blocks a worker"),
    ),
    ("histogram_quantile(0.5, sum by (le) (rate(gateway_request", Cause::All(&["nobody asks twice"])),
    // Of 180 requests one is late while nothing is wrong, which this shows at once.
    ("histogram_quantile(0.99, sum by (le) (rate(gateway_request", Cause::All(&["traffic"])),
    ("build_info", Cause::All(&["exporter port taken"])),
    ("apm_init_success", Cause::All(&["exporter port taken"])),
    ("apm_log_lines_dropped", Cause::All(&["log disk full"])),
    ("apm_export_failures", Cause::All(&["collector away"])),
    ("apm_spans_dropped", Cause::All(&["collector away"])),
    ("apm_queue_spans", Cause::All(&["collector away"])),
    ("redactions_total", Cause::All(&["traffic"])),
    ("component_stage", Cause::All(&["component promoted"])),
    ("component_claim_holds", Cause::All(&["component neglected"])),
    ("component_quality_gate_passed", Cause::All(&["component neglected"])),
    ("component_coverage_ratio", Cause::All(&["component neglected"])),
    ("config_last_reload_successful", Cause::All(&["bad configuration"])),
    ("cache_store_up", Cause::All(&["Redis stopped"])),
    ("cache_outcomes_total", Cause::All(&["Redis stopped", "nobody asks twice"])),
    ("job_operation:cache_", Cause::All(&["nobody asks twice"])),
    ("job:router_", Cause::All(&["cheap route broken"])),
    ("router_errors_total", Cause::All(&["providers down"])),
    ("circuit_breaker_", Cause::All(&["cheap route broken", "providers down"])),
    ("primitive=\"retry\"", Cause::All(&["cheap route broken"])),
    ("llm_unpriced_calls_total", Cause::All(&["slow provider"])),
    ("error_type", Cause::All(&["cheap route broken"])),
    ("job_operation:timeout", Cause::All(&["slow provider"])),
    ("primitive=\"timeout\"", Cause::All(&["slow provider"])),
    ("in_flight", Cause::All(&["slow provider"])),
    ("gateway_errors:ratio_rate5m", Cause::All(&["providers down"])),
    ("gateway_errors:ratio_rate1h", Cause::All(&["providers down"])),
    ("code=~\"5..\"", Cause::All(&["providers down"])),
    ("by (code)", Cause::All(&["providers down"])),
    ("/ (sum(rate(gateway_request_duration_seconds_sum", Cause::All(&["traffic"])),
    ("gateway_request_duration_seconds", Cause::All(&["slow provider"])),
    ("router_execution_seconds_bucket", Cause::All(&["slow provider"])),
    ("ALERTS", Cause::All(&["slow provider"])),
    ("sum(up{", Cause::All(&["gateway stopped"])),
];

/// What did not move the query, of what must. `passed` is what there has been; with `whole`, that is everything.
pub(crate) fn unmoved(
    query: &str,
    moved_by: &BTreeSet<&'static str>,
    passed: &BTreeSet<&'static str>,
    whole: bool,
) -> Vec<String> {
    match MOVES.iter().find(|(part, _)| query.contains(part)).map(|(_, cause)| cause) {
        Some(Cause::Still(_)) => Vec::new(),
        Some(Cause::All(causes)) => {
            let silent = causes.iter().filter(|cause| passed.contains(*cause) && !moved_by.contains(*cause));
            silent.map(|cause| format!("not moved by: {cause}")).collect()
        }
        None if whole && moved_by.is_empty() => vec!["neither traffic nor any fault moves it".to_owned()],
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_moved_by_what_it_is_about() {
        let passed = BTreeSet::from(["traffic", "Redis stopped"]);
        let query = "min by (store) (cache_store_up)";
        assert_eq!(
            unmoved(query, &BTreeSet::from(["traffic"]), &passed, false),
            ["not moved by: Redis stopped"]
        );
        assert!(unmoved(query, &passed, &passed, true).is_empty());
        assert!(unmoved(query, &BTreeSet::new(), &BTreeSet::new(), false).is_empty());
    }

    #[test]
    fn in_a_whole_run_something_moves_every_query_that_can() {
        let nothing = BTreeSet::new();
        assert_eq!(unmoved("up", &nothing, &nothing, true), ["neither traffic nor any fault moves it"]);
        assert!(unmoved("up", &nothing, &nothing, false).is_empty());
        assert!(unmoved("rate(telemetry_series_overflow_total[1m])", &nothing, &nothing, true).is_empty());
    }

    #[test]
    fn every_cause_is_one_that_there_is() {
        let faults = super::super::fault::FAULTS.iter().map(|fault| fault.name);
        let known: Vec<_> = faults.chain(["traffic"]).collect();
        for (part, cause) in MOVES {
            match cause {
                Cause::All(causes) => assert!(causes.iter().all(|cause| known.contains(cause)), "{part}"),
                Cause::Still(why) => assert!(!why.is_empty(), "{part}"),
            }
        }
    }
}
