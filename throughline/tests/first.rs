//! The first program that a reader sees is one program, in three places.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

/// The example from its first `use` on.
fn program() -> String {
    let example = include_str!("../examples/first.rs");
    example[example.find("use std").unwrap()..].to_owned()
}

#[test]
fn readme_shows_the_first_example() {
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&format!("```rust\n{}```\n", program())));
}

#[test]
fn the_front_page_shows_the_first_example() {
    let page: String = include_str!("../src/lib.rs")
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned() + "\n")
        .collect();
    assert!(page.contains(&format!("```\n{}```\n", program())));
}

#[test]
fn the_first_example_is_shorter_than_20_lines() {
    let lines = program().lines().count();
    assert!(lines < 20, "{lines} lines");
}
