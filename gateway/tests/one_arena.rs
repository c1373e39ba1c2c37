//! The gateway has one heap for all its threads, unless somebody wants it otherwise.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use process::{Gateway, Launch, PROMPT_PROVIDER};

/// What a process was started with, separated by NUL.
fn proc(gateway: &Gateway, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/{file}", gateway.pid())).unwrap();
    text.split('\0').map(str::to_owned).collect()
}

fn arenas(gateway: &Gateway) -> Vec<String> {
    let variables = proc(gateway, "environ").into_iter();
    variables.filter(|variable| variable.starts_with("MALLOC_ARENA_MAX")).collect()
}

fn config() -> String {
    format!("{PROMPT_PROVIDER}\n[models.auto.routes.only]\nprovider = \"sim\"\nmodel = \"x\"\n")
}

#[tokio::test]
async fn the_process_that_was_started_serves_with_one_arena_and_the_same_arguments_and_name() {
    let gateway = Launch::serve(&config()).start().await;
    assert_eq!(arenas(&gateway), ["MALLOC_ARENA_MAX=1"]);
    let arguments = proc(&gateway, "cmdline");
    assert!(arguments[0].ends_with("throughline") && arguments[1] == "serve", "{arguments:?}");
    assert_eq!(proc(&gateway, "comm"), ["throughline\n"]);
    assert_eq!(gateway.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_number_of_arenas_that_is_set_stays() {
    let gateway = Launch::serve(&config()).env("MALLOC_ARENA_MAX", "8").start().await;
    assert_eq!(arenas(&gateway), ["MALLOC_ARENA_MAX=8"]);
}
