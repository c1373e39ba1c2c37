//! `throughline demo`: the whole thing at work, with no key and no other server.

mod prompts;
mod report;
mod traffic;

use std::io::Write as _;

use throughline::telemetry::Scrape;

use crate::cli::Demo;
use crate::config::Config;
use crate::logs::Logs;
use crate::serve::{Running, start, stop_signal};
use crate::workflows::Workflows;
use prompts::Prompts;
use report::Report;

/// Starts a gateway, drives traffic through it, and reports.
///
/// # Errors
/// What kept it from running.
pub(crate) async fn demo(config: &Config, built: Workflows, args: &Demo, logs: &Logs) -> Result<(), String> {
    let prompts = args.prompts.as_deref().map_or(Ok(Prompts::BuiltIn), Prompts::read)?;
    let running = start(config, built, &args.listen, logs).await?;
    if running.gateway.sink().registry().is_none() {
        return Err("the report is read off the metrics, which the environment has switched off: unset \
                    ENABLE_OBSERVABILITY, ENABLE_APM and OTEL_SDK_DISABLED"
            .to_owned());
    }
    introduce(&running, args);
    let stopped = async {
        stop_signal().await;
        say("stopping early: this is the report so far");
    };
    traffic::drive(running.address, prompts, args.duration, stopped).await;
    let page = Scrape::parse(&running.gateway.sink().render());
    let report = Report::read(&page);
    print(&if args.json { json(&report) } else { report.to_string() })?;
    if args.keep {
        invite(&running);
        stop_signal().await;
    }
    running.stop().await;
    Ok(())
}

fn introduce(running: &Running, args: &Demo) {
    say(&format!("gateway http://{}", running.address));
    match running.gateway.telemetry.metrics_address() {
        Some(address) => say(&format!("metrics http://{address}/metrics")),
        None => say("metrics are not served: see the log above"),
    }
    say("model `auto`: short prompts go to `cheap`, long ones to `premium`, repeats come from the cache");
    say(&format!("driving traffic for {:?} …", args.duration));
}

fn invite(running: &Running) {
    say(&format!(
        "still serving; try\n\n  curl -i http://{}/v1/chat/completions -H 'content-type: application/json' \\\n    -d '{{\"model\": \"auto\", \"messages\": [{{\"role\": \"user\", \"content\": \"Where is my order?\"}}]}}'",
        running.address
    ));
    if let Some(address) = running.gateway.telemetry.metrics_address() {
        say(&format!("  curl http://{address}/metrics\n\nCtrl-C stops it."));
    }
}

fn json(report: &Report) -> String {
    serde_json::to_string_pretty(report).expect("a report of numbers serialises") + "\n"
}

/// Words for people go to standard error, so that standard output holds the report alone.
fn say(text: &str) {
    // Whoever does not want to hear it closes it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| format!("the report could not be printed: {error}"))
}
