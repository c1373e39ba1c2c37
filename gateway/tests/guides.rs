//! The guides are followed, command by command: what they say happens.
//!
//! A `console` block holds commands after `$ `, and below each what it prints: a line of the guide must be among the lines
//! that were printed, in the same order, `…` standing for anything. A `toml` block whose first line is `# NAME.toml` is
//! that file. What is between `<!-- run` and `-->` is run as well, but not shown to readers. All blocks of a guide are run
//! by one shell, in a folder of their own; ports are replaced by free ones.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../../throughline/tests/redis/server.rs"]
mod server;

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use process::upstream::answer;
use process::{Launch, Upstream, chat};
use server::Server;
use tokio::process::Command;

const GUIDES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides");
/// Stands before what a command has printed.
const MARK: &str = "@@@ command ";
/// How long a guide may take, in seconds, before it counts as broken.
const LONGEST: &str = "240";
/// The ports that guides write.
const PORTS: [&str; 3] = ["8080", "9464", "6379"];

/// A command of a guide, and what it is said to print.
#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    prints: Vec<String>,
}

fn fence(line: &str) -> Option<&str> {
    line.strip_prefix("```")
}

/// What there is to run in a guide, in its order.
fn steps(guide: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = guide.lines().enumerate().map(|(at, text)| (at + 1, text));
    while let Some((line, text)) = lines.next() {
        if text == "<!-- run" {
            let command: Vec<_> =
                lines.by_ref().map(|(_, text)| text).take_while(|text| *text != "-->").collect();
            steps.push(Step { line, command: command.join("\n"), prints: Vec::new() });
        } else if let Some(language) = fence(text) {
            let block: Vec<_> = lines.by_ref().take_while(|(_, text)| fence(text).is_none()).collect();
            match language {
                "console" => steps.extend(commands(&block)),
                "toml" => steps.extend(file(&block)),
                _ => {}
            }
        }
    }
    steps
}

fn commands(block: &[(usize, &str)]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (line, text) in block {
        match (text.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => {
                steps.push(Step { line: *line, command: command.to_owned(), prints: Vec::new() });
            }
            (None, Some(step)) if step.prints.is_empty() && step.command.ends_with('\\') => {
                write!(step.command, "\n{text}").unwrap();
            }
            (None, Some(step)) => step.prints.push((*text).to_owned()),
            (None, None) => panic!("line {line} is the output of nothing"),
        }
    }
    steps
}

fn file(block: &[(usize, &str)]) -> Option<Step> {
    let (line, first) = block.first()?;
    let name = first.strip_prefix("# ").filter(|name| name.ends_with(".toml") && !name.contains(' '))?;
    let text: Vec<_> = block.iter().map(|(_, text)| *text).collect();
    let command = format!("cat > {name} <<'END OF FILE'\n{}\nEND OF FILE", text.join("\n"));
    Some(Step { line: *line, command, prints: Vec::new() })
}

/// Whether the pieces of `pattern`, between its `…`, are in `text` one after the other, and nothing beside them elsewhere.
fn fits(pattern: &str, text: &str) -> bool {
    let pieces: Vec<_> = pattern.split('…').collect();
    let [first, middle @ .., last] = pieces.as_slice() else { return text.trim() == pattern.trim() };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for piece in middle {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// The script that runs all steps and says of each that it begins, and with what it ends.
fn script(steps: &[Step]) -> String {
    let mut script = "exec 2>&1\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n".to_owned();
    for (at, step) in steps.iter().enumerate() {
        // What is a moment for a person is none for a machine that is busy with other tests.
        let command = step.command.replace("sleep 1", "sleep 3");
        write!(script, "echo '{MARK}{at}'\n{command}\nstatus=$?; echo; echo \"@@@ ended with $status\"\n")
            .unwrap();
    }
    script
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn follow(name: &str) {
    let mut guide = fs::read_to_string(Path::new(GUIDES).join(name)).unwrap();
    for port in PORTS {
        guide = guide.replace(port, &free_port().to_string());
    }
    let (steps, folder) = (steps(&guide), tempfile::tempdir().unwrap());
    assert!(!steps.is_empty(), "{name} has nothing to run");
    fs::write(folder.path().join("guide.sh"), script(&steps)).unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_throughline")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let output = Command::new("timeout")
        .args(["--kill-after=5", LONGEST, "bash", "guide.sh"])
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", path)
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    for (at, step) in steps.iter().enumerate() {
        let of = format!("{name}:{}: `{}`", step.line, step.command);
        let (_, rest) = said
            .split_once(&format!("{MARK}{at}\n"))
            .unwrap_or_else(|| panic!("{of} was not reached\n{said}"));
        let printed = rest.split(MARK).next().unwrap();
        assert!(printed.contains("@@@ ended with 0\n"), "{of} failed\n{printed}");
        let mut lines = printed.lines();
        for wanted in &step.prints {
            assert!(lines.any(|line| fits(wanted, line)), "{of} did not print `{wanted}`, but\n{printed}");
        }
    }
}

#[test]
fn a_guide_is_read_as_its_readers_do() {
    let guide = "# Title\n```toml\n# a.toml\nx = 1\n```\n```toml\ny = 2\n```\n<!-- run\none\ntwo\n-->\n\
                 ```console\n$ ls \\\n  -l\na\n…b\n$ cd\n```\n```text\n$ no\n```\n";
    let found: Vec<_> = steps(guide).into_iter().map(|step| (step.line, step.command, step.prints)).collect();
    let expected = [
        (3, "cat > a.toml <<'END OF FILE'\n# a.toml\nx = 1\nEND OF FILE".to_owned(), vec![]),
        (9, "one\ntwo".to_owned(), vec![]),
        (14, "ls \\\n  -l".to_owned(), vec!["a".to_owned(), "…b".to_owned()]),
        (18, "cd".to_owned(), vec![]),
    ];
    assert_eq!(found, expected);
    assert!(fits("a…b…c", "a1b2c") && fits("…b…", "abc") && fits("…2 1", "      2 1") && fits("x", " x "));
    assert!(!fits("a…c", "abd") && !fits("…b…a…", "ab") && !fits("x", "xy"));
}

#[tokio::test]
async fn the_first_steps_lead_to_a_gateway_that_answers() {
    follow("getting-started.md").await;
}

#[tokio::test]
async fn symptoms_are_seen_where_the_guide_says() {
    follow("troubleshooting.md").await;
}

#[tokio::test]
async fn a_threshold_is_learned_and_taken_as_the_guide_says() {
    follow("semantic-cache.md").await;
}

#[tokio::test]
async fn what_is_deployed_is_in_the_pack() {
    follow("deployment.md").await;
}

#[tokio::test]
async fn the_report_on_cost_has_the_figures_that_the_guide_names() {
    follow("cost-optimisation.md").await;
}

#[tokio::test]
async fn an_incident_is_over_without_a_restart() {
    follow("incident-response.md").await;
}

#[tokio::test]
async fn objectives_are_in_the_rules() {
    follow("slos.md").await;
}

#[tokio::test]
async fn what_the_guide_to_security_calls_refused_is_refused() {
    follow("security.md").await;
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn the_guide_to_going_back_does_go_back() {
    follow("rollback.md").await;
}

/// What a version with another format leaves behind: the guide promises that it is not read, not served, and not in the way.
#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn values_of_a_newer_format_are_made_anew_and_those_under_its_own_names_are_left_to_it() {
    let completion =
        r#"{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let (server, upstream) =
        (Server::start(&[]).await, Upstream::start(|_| answer("200 OK", "", completion)).await);
    let config = format!(
        "[stores.shared.redis]\nurl = \"{}\"\ndeadline = \"500ms\"\n[models.auto]\ncache = {{ ttl = \"1h\", store = \"shared\" }}\n{}",
        server.url(),
        upstream.config().replace("api_key = \"env:UPSTREAM_KEY\"\n", "")
    );
    let gateway = Launch::serve(&config).start().await;
    assert_eq!(gateway.ask(chat("auto", "hi")).await.header("x-throughline-cache"), Some("miss"));
    assert_eq!(gateway.ask(chat("auto", "hi")).await.header("x-throughline-cache"), Some("hit"));

    let client = redis::Client::open(server.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("throughline:2:*").query_async(&mut redis).await.unwrap();
    let [key] = keys.as_slice() else { panic!("{keys:?}") };
    let sealed: Vec<u8> = redis::cmd("GET").arg(key).query_async(&mut redis).await.unwrap();
    let mut newer = sealed.clone();
    newer[2] += 1;
    let newer_key = key.replacen(":2:", ":3:", 1);
    for key in [key, &newer_key] {
        let _: () = redis::cmd("SET").arg(key).arg(&newer).query_async(&mut redis).await.unwrap();
    }
    let answer = gateway.ask(chat("auto", "hi")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "Hi"));
    assert_eq!(answer.header("x-throughline-cache"), Some("miss"));
    assert_eq!(upstream.seen().len(), 2, "the provider was asked");
    assert_eq!(gateway.metric("cache_outcomes_total", &[("outcome", "corrupt")]).await, 1.0);
    assert_eq!(gateway.ask(chat("auto", "hi")).await.header("x-throughline-cache"), Some("hit"));
    let own: Vec<u8> = redis::cmd("GET").arg(key).query_async(&mut redis).await.unwrap();
    let left: Vec<u8> = redis::cmd("GET").arg(&newer_key).query_async(&mut redis).await.unwrap();
    assert_eq!(
        (own[2], &left),
        (sealed[2], &newer),
        "its own is of its own format, the newer one is as it was"
    );
}
