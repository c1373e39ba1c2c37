//! The operations pack is judged by Prometheus' and Alertmanager's own tools.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;
mod rules;

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use rules::mutant::mutants;
use rules::{Pack, Rule, Tests, Verdict, promtool, run, tests};

/// With every rule that there can be.
const ALL: &[&str] = &["--monthly-budget", "2000"];

#[tokio::test]
#[ignore = "run by cargo xtask test: needs promtool"]
async fn promtool_finds_nothing_to_complain_about() {
    for options in [&[][..], ALL, &["--job", "edge.eu-1", "--objective", "99.99", "--max-overhead", "1ms"]] {
        let pack = Pack::exported(options).await;
        let folder = pack.folder().join("prometheus");
        for file in ["recording", "slo", "alerts"] {
            let file = format!("rules/{file}.yml");
            let said =
                promtool(&folder, &["check", "rules", "--lint=all", "--lint-fatal", &file]).await.unwrap();
            assert!(said.contains("SUCCESS"), "{said}");
        }
        promtool(&folder, &["check", "config", "prometheus.yml"]).await.unwrap();
        // What the operator brings along.
        for name in ["throughline-ca.crt", "throughline.password"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        promtool(&folder, &["check", "config", "prometheus-tls.yml"]).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs amtool"]
async fn alertmanager_sends_each_severity_where_it_belongs() {
    let pack = Pack::exported(&[]).await;
    let folder = pack.folder().join("alertmanager");
    let file = "alertmanager.yml";
    run("THROUGHLINE_E2E_AMTOOL", &folder, &["check-config", file]).await.unwrap();
    for (labels, receiver) in [
        ("alertname=Watchdog severity=info", "watchdog"),
        ("alertname=TimeoutRateHigh severity=critical", "critical"),
        ("alertname=CircuitOpen severity=warning", "warning"),
        ("alertname=ComponentPromoted severity=info", "info"),
        ("alertname=OfSomebodyElse", "warning"),
    ] {
        let labels: Vec<_> = labels.split(' ').collect();
        let args = [&["config", "routes", "test", "--config.file", file][..], &labels].concat();
        let said = run("THROUGHLINE_E2E_AMTOOL", &folder, &args).await.unwrap();
        assert_eq!(said.lines().next(), Some(receiver), "{labels:?}");
    }
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs promtool"]
async fn every_rule_does_what_its_tests_say() {
    let rules = Pack::exported(ALL).await.rules();
    for tests in tests() {
        if let Verdict::Failed(said) = tests.judge(&rules).await {
            panic!("{}: {said}", tests.name);
        }
    }
}

#[tokio::test]
async fn every_alert_is_seen_to_fire_and_to_be_silent() {
    let rules = Pack::exported(ALL).await.rules();
    let mut seen = BTreeMap::<String, (usize, usize)>::new();
    for tests in tests() {
        for (name, (fires, silent)) in tests.expectations() {
            let counts = seen.entry(name).or_default();
            *counts = (counts.0 + fires, counts.1 + silent);
        }
    }
    for alert in rules.iter().filter(|rule| rule.text.contains("- alert:")) {
        let (fires, silent) = seen.remove(&alert.name).unwrap_or_default();
        assert!(fires > 0, "no test expects {} to fire", alert.name);
        // The one that always fires has nothing to be silent about.
        assert!(silent > 0 || alert.name == "Watchdog", "no test expects {} to be silent", alert.name);
        seen.insert(alert.name.clone(), (fires, silent));
    }
    let names: Vec<_> = rules.iter().map(|rule| &rule.name).collect();
    assert!(seen.keys().all(|name| names.contains(&name)), "tests of alerts that are gone: {seen:?}");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs promtool, and minutes"]
async fn no_mistake_in_a_rule_goes_unnoticed() {
    let (rules, tests) = (Pack::exported(ALL).await.rules(), tests());
    let places: Vec<_> =
        (0..rules.len()).flat_map(|at| mutants(&rules[at]).into_iter().map(move |it| (at, it))).collect();
    let count = places.len();
    assert!(count > 400, "{count} mutants of {} rules: too few to mean anything", rules.len());
    let judged = stream::iter(places).map(|(at, mutant)| {
        let mut rules: Vec<Rule> = rules.clone();
        let tests = &tests;
        async move {
            let what = format!("{}: {}", mutant.rule.name, mutant.what);
            rules[at] = mutant.rule;
            survives(&rules, at, tests).await.then_some(what)
        }
    });
    let survivors: Vec<_> = judged.buffer_unordered(2).filter_map(std::future::ready).collect().await;
    assert!(
        survivors.is_empty(),
        "{} of {count} mutants survive:\n{}",
        survivors.len(),
        survivors.join("\n")
    );
}

/// Whether every file of tests that evaluates the rule passes.
async fn survives(rules: &[Rule], at: usize, tests: &[Tests]) -> bool {
    let concerned: Vec<_> = tests.iter().filter(|tests| tests.groups.contains(&rules[at].group)).collect();
    assert!(!concerned.is_empty(), "no test evaluates {}", rules[at].group);
    for tests in concerned {
        if let Verdict::Failed(_) = tests.judge(rules).await {
            return false;
        }
    }
    true
}
