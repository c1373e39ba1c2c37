//! What must move which queries.

use std::collections::BTreeSet;

/// The causes that must move a query.
enum Cause {
    /// Each of these.
    All(&'static [&'static str]),
    /// It says what is so, which no fault changes: the reason is for who reads the table.
    Still(#[cfg_attr(not(test), expect(dead_code, reason = "for who reads the table"))] &'static str),
}

/// A query with this text in it, and what must move it. All that fit hold.
const MOVES: &[(&str, Cause)] = &[
    ("build_info", Cause::Still("which version runs changes with an update only")),
    ("cache_store_up", Cause::All(&["Redis stopped"])),
    ("cache_hit:ratio", Cause::All(&["nobody asks twice"])),
    ("router_savings:ratio", Cause::All(&["cheap route broken"])),
    ("timeout:ratio", Cause::All(&["slow provider"])),
    ("circuit_breaker_state", Cause::All(&["cheap route broken"])),
    ("circuit_breaker_transitions", Cause::All(&["cheap route broken"])),
    ("apm_export_failures", Cause::All(&["collector away"])),
    ("apm_log_lines_dropped", Cause::All(&["log disk full"])),
    ("telemetry_series_overflow", Cause::Still("it takes 2,000 label sets of one family, which nothing here has")),
    ("component_stage", Cause::All(&["component promoted"])),
    ("gateway_errors:ratio_rate5m", Cause::All(&["providers down"])),
    ("config_last_reload_successful", Cause::All(&["bad configuration"])),
    ("code=~\"5..\"", Cause::All(&["providers down"])),
];

/// What did not move the query, of what must. `passed` is what there has been; with `whole`, that is everything.
pub(crate) fn unmoved(
    query: &str,
    moved_by: &BTreeSet<&'static str>,
    passed: &BTreeSet<&'static str>,
    whole: bool,
) -> Vec<String> {
    let fitting: Vec<_> = MOVES.iter().filter(|(part, _)| query.contains(part)).map(|(_, cause)| cause).collect();
    let mut problems = Vec::new();
    for cause in &fitting {
        if let Cause::All(causes) = cause {
            let silent = causes.iter().filter(|cause| passed.contains(*cause) && !moved_by.contains(*cause));
            problems.extend(silent.map(|cause| format!("not moved by: {cause}")));
        }
    }
    let is_still = fitting.iter().any(|cause| matches!(cause, Cause::Still(_)));
    if whole && moved_by.is_empty() && !is_still && problems.is_empty() {
        problems.push("neither traffic nor any fault moves it".to_owned());
    }
    problems
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
        assert!(unmoved("build_info", &nothing, &nothing, true).is_empty());
    }

    #[test]
    fn every_cause_is_one_that_there_is() {
        let known: Vec<_> = super::super::fault::FAULTS.iter().map(|fault| fault.name).collect();
        for (part, cause) in MOVES {
            match cause {
                Cause::All(causes) => assert!(causes.iter().all(|cause| known.contains(cause)), "{part}"),
                Cause::Still(why) => assert!(!why.is_empty(), "{part}"),
            }
        }
    }
}
