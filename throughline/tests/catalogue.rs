//! The table of the original's behaviours and defects names tests: they must exist.

use std::collections::BTreeSet;
use std::path::Path;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/original-behaviours.md");

/// The rows as `(id, last cell)`.
fn rows(table: &str) -> Vec<(String, String)> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let rows = table.lines().filter(|line| line.starts_with('|')).map(cells);
    rows.filter(|cells| cells[0] != "id" && !cells[0].starts_with('-'))
        .map(|cells| (cells[0].clone(), cells.last().cloned().unwrap_or_default()))
        .collect()
}

/// The `file::name` references in a cell.
fn references(cell: &str) -> impl Iterator<Item = (&str, &str)> {
    cell.split('`').skip(1).step_by(2).filter_map(|code| code.split_once(".rs::"))
}

/// Whether `source` has a test called `name`: an attribute with `test` in it stands right above.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let is_it = |line: &&str| {
        let line = line.trim_start_matches("async ").trim_start_matches("fn ");
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('('))
    };
    let Some(at) = lines.iter().position(is_it) else { return false };
    let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
    attributes.into_iter().any(|line| line.contains("test"))
}

#[test]
fn every_test_that_the_table_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for (id, cell) in rows(&std::fs::read_to_string(TABLE).unwrap()) {
        assert!(!cell.is_empty(), "{id} has neither a test nor a reason");
        for (file, name) in references(&cell) {
            let path = root.join(format!("{file}.rs"));
            let source = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{id} names {file}.rs"));
            assert!(has_test(&source, name), "{id} names {file}.rs::{name}, which is not a test there");
            named += 1;
        }
    }
    assert!(named > 100, "{named} references were found: has the table's form changed?");
}

#[test]
fn the_table_has_every_behaviour_and_every_defect_once() {
    let rows = rows(&std::fs::read_to_string(TABLE).unwrap());
    let ids: BTreeSet<&str> = rows.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids.len(), rows.len(), "an id stands twice");
    let expected = |prefix: &str, last: u32| (1..=last).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    let families = [("", 62), ("A", 13), ("M", 9), ("R", 3), ("K", 16), ("T", 7), ("C", 13), ("S", 3)];
    for (prefix, last) in families {
        for id in expected(prefix, last) {
            assert!(ids.contains(id.as_str()), "{id} is missing");
        }
    }
}

#[test]
fn a_name_that_is_no_test_is_noticed() {
    let source = "#[tokio::test(start_paused = true)]\nasync fn real() {}\n\nfn helper() {}\n";
    assert!(has_test(source, "real"));
    assert!(!has_test(source, "helper"));
    assert!(!has_test(source, "rea"));
    assert_eq!(references("x `tests/a.rs::b`, `Status`").collect::<Vec<_>>(), [("tests/a", "b")]);
}
