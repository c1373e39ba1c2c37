//! The tables of the original's behaviours and of the primitives' rules name tests: they must exist.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const BEHAVIOURS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/original-behaviours.md");
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/primitive-rules.md");

/// Primitives that keep nothing from one run to the next, and decide nothing that others have rules for.
const STATELESS: [&str; 6] = ["conditional", "router", "service", "step", "switch", "workflow"];

fn is_row(cells: &[String]) -> bool {
    cells[0] != "id" && !cells[0].starts_with('-')
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// The rows of all tables in a page, cell by cell.
fn rows(page: &str) -> Vec<Vec<String>> {
    let rows = page.lines().filter(|line| line.starts_with('|')).map(cells);
    rows.filter(|cells| is_row(cells)).collect()
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

/// How many tests a cell names; all of them exist.
fn named_tests(id: &str, cell: &str) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let check = |(file, name): (&str, &str)| {
        let path = root.join(format!("{file}.rs"));
        let source = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{id} names {file}.rs"));
        assert!(has_test(&source, name), "{id} names {file}.rs::{name}, which is not a test there");
    };
    references(cell).map(check).count()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The names of all primitives, as metrics and spans say them.
fn primitives() -> BTreeSet<String> {
    let shipped = |path: &PathBuf| !path.components().any(|part| part.as_os_str() == "testing");
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let mut names = BTreeSet::new();
    for file in files.iter().filter(|file| shipped(file)) {
        let source = std::fs::read_to_string(file).unwrap();
        for name in ["const PRIMITIVE: &'static str = \"", "const NAME: &'static str = \""] {
            names.extend(
                source.split(name).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())),
            );
        }
    }
    names
}

/// The primitives in the headings of a page that have a row below.
fn with_rules(page: &str) -> BTreeSet<String> {
    let sections = page.split("\n## ").skip(1).filter(|section| !rows(section).is_empty());
    let headings = sections.filter_map(|section| section.lines().next());
    headings.flat_map(|heading| heading.split('`').skip(1).step_by(2).map(str::to_owned)).collect()
}

#[test]
fn every_test_that_the_behaviours_name_exists() {
    let mut named = 0;
    for cells in rows(&std::fs::read_to_string(BEHAVIOURS).unwrap()) {
        let (id, last) = (&cells[0], cells.last().unwrap());
        assert!(!last.is_empty(), "{id} has neither a test nor a reason");
        named += named_tests(id, last);
    }
    assert!(named > 100, "{named} references were found: has the table's form changed?");
}

#[test]
fn every_rule_has_tests_that_exist_or_a_reason_why_it_is_not_ours() {
    let rows = rows(&std::fs::read_to_string(RULES).unwrap());
    let ids: BTreeSet<&String> = rows.iter().map(|cells| &cells[0]).collect();
    assert_eq!(ids.len(), rows.len(), "an id stands twice");
    let mut named = 0;
    for cells in &rows {
        let [id, rule, difference, tests] = cells.as_slice() else { panic!("{cells:?} are not four cells") };
        assert!(!rule.is_empty(), "{id} has no rule");
        let here = named_tests(id, tests);
        assert!(here > 0 || difference.starts_with("not here: "), "{id} has neither a test nor a reason");
        named += here;
    }
    assert!(named > 200, "{named} references were found: has the tables' form changed?");
}

#[test]
fn every_primitive_that_keeps_state_has_rules() {
    let with_rules = with_rules(&std::fs::read_to_string(RULES).unwrap());
    let primitives = primitives();
    assert!(primitives.len() > STATELESS.len(), "{primitives:?}");
    for name in &primitives {
        let stateless = STATELESS.contains(&name.as_str());
        assert!(stateless != with_rules.contains(name), "{name} has no rule in primitive-rules.md");
    }
    // The budget is a part of several.
    let others: Vec<_> = with_rules.iter().filter(|name| !primitives.contains(*name)).collect();
    assert_eq!(others, ["budget"], "rules of what is no primitive");
}

#[test]
fn the_numbered_rules_are_all_there() {
    let rows = rows(&std::fs::read_to_string(RULES).unwrap());
    let numbered: Vec<_> =
        rows.iter().map(|cells| cells[0].clone()).filter(|id| id.starts_with('G')).collect();
    assert_eq!(numbered, (1..=14).map(|n| format!("G{n}")).collect::<Vec<_>>());
    for case in
        ["window edges", "equal to the threshold trips", "half-open decisions", "ignored calls", "slow calls"]
    {
        assert!(rows.iter().any(|cells| cells[1].contains(case)), "no rule is about {case}");
    }
}

#[test]
fn the_behaviours_have_every_behaviour_and_every_defect_once() {
    let rows = rows(&std::fs::read_to_string(BEHAVIOURS).unwrap());
    let ids: BTreeSet<&str> = rows.iter().map(|cells| cells[0].as_str()).collect();
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
    assert_eq!(with_rules("\n## A: `a`, `b`\n| id |\n|---|\n| 1 |\n## C: `c`\nno row\n").len(), 2);
    assert_eq!(references("x `tests/a.rs::b`, `Status`").collect::<Vec<_>>(), [("tests/a", "b")]);
}
