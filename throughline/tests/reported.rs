//! What is seen is what the catalogue says: families with their types and labels, primitives with their outcomes, spans
//! with their attributes.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use throughline::telemetry::{
    Attribute, COMMON_ATTRIBUTES, LABELS, LabelSource, Reported, Shape, catalogue, primitives,
};
use throughline::testing::Recorder;
use throughline::{
    CacheConfig, CircuitBreakerConfig, Context, Error, FallbackConfig, HedgeConfig, HedgeDelay, JsonCaching,
    Kind, Memory, RetryConfig, RouterConfig, TimeoutConfig, router, workflow,
};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let all = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    let is_shipped = |path: &PathBuf| {
        let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
        path.components().all(|part| !["testing", "tests"].iter().any(|name| part.as_os_str() == *name))
            && !path.to_string_lossy().ends_with("tests.rs")
    };
    all.filter(|path| is_rust(path) && is_shipped(path)).collect()
}

/// The source without tests and comments.
fn source(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |all, line| all + line + "\n")
}

fn all_sources() -> String {
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).iter().map(|path| source(path)).collect()
}

fn quoted_after<'a>(text: &'a str, before: &str) -> BTreeSet<&'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

fn declared(reported: &Reported) -> BTreeSet<&'static str> {
    reported.attributes().iter().chain(COMMON_ATTRIBUTES).map(Attribute::name).collect()
}

/// Runs of as many primitives as a chain holds, good and bad.
async fn mixed_runs(cx: &Context) {
    let fine = || workflow("fine", |n: u32| async move { Ok(n) });
    let odd = || {
        workflow("odd", |n: u32| async move {
            if n % 2 == 1 { Err(Error::new(Kind::Upstream, "an odd number")) } else { Ok(n) }
        })
    };
    let routes = RouterConfig::new("pick").route("a", fine()).route("b", odd()).default_route("a");
    let routed =
        router(routes.select(|n: &u32, _: &Context| Ok(if *n > 5 { "b" } else { "a" }.into()))).unwrap();
    let guarded = odd()
        .timeout(TimeoutConfig::new("t", Duration::from_secs(1)).unwrap())
        .retry(RetryConfig::new("again").max_attempts(2).unwrap())
        .fallback(FallbackConfig::new("other").then("spare", fine()))
        .unwrap();
    let hedged = fine()
        .hedge(HedgeConfig::for_idempotent_work("h", HedgeDelay::fixed(Duration::from_secs(1)).unwrap()));
    let cached = routed.cache(
        CacheConfig::new("c", Duration::from_secs(60)).unwrap(),
        JsonCaching::keyed(|n: &u32, _, key| key.json(n)),
        Memory::new(1 << 20).unwrap(),
    );
    let broken = odd().circuit_breaker(CircuitBreakerConfig::new("fuse").min_calls(1).unwrap());
    for n in [1, 2, 7, 8, 7, 8] {
        let _ = cached.clone().named("cached").run(n, cx).await;
        let _ = guarded.run(n, cx).await;
        let _ = hedged.run(n, cx).await;
        let _ = broken.run(n, cx).await;
        let _ = (fine() | odd()).named("both").run(n, cx).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_family_that_is_seen_is_in_the_catalogue_with_its_type_and_labels() {
    let recorder = Recorder::new();
    mixed_runs(&recorder.context()).await;
    let page = recorder.sink().render();
    let catalogue = catalogue();
    let mut seen = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let family = catalogue.iter().find(|family| family.exposed_name().trim_end_matches("_total") == name);
        let family = family.unwrap_or_else(|| panic!("{name} is not in the catalogue"));
        let expected = match family.shape() {
            Shape::Counter | Shape::Amount => "counter",
            Shape::Histogram(_) => "histogram",
            _ => "gauge",
        };
        assert_eq!(kind, expected, "{name}");
        seen += 1;
    }
    assert!(seen > 20, "{seen} families are too few to mean anything");
    for sample in recorder.scrape().samples() {
        let labels: BTreeSet<&str> =
            sample.labels.keys().map(String::as_str).filter(|name| *name != "le").collect();
        let base = |name: &str| {
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end).map(str::to_owned))
        };
        let family = catalogue.iter().find(|family| {
            let name = family.exposed_name();
            name == sample.name
                || matches!(family.shape(), Shape::Histogram(_)) && base(&sample.name) == Some(name)
        });
        let family = family.unwrap_or_else(|| panic!("{} is not in the catalogue", sample.name));
        assert_eq!(labels, family.labels().iter().copied().collect(), "{}", sample.name);
        for (label, value) in sample.labels.iter().filter(|(label, _)| *label != "le") {
            let values = LabelSource::find(LABELS, family, label).and_then(LabelSource::values);
            assert!(
                values.is_none_or(|values| values.contains(&value.as_str())),
                "{label}={value} of {}",
                sample.name
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_span_that_is_seen_is_declared_with_its_attributes() {
    let recorder = Recorder::new();
    mixed_runs(&recorder.context()).await;
    let mut kinds = BTreeSet::new();
    for span in recorder.spans() {
        let first = span.name.split(' ').next().unwrap();
        let primitives = primitives();
        let reported = primitives.iter().find(|reported| reported.span().split(' ').next() == Some(first));
        let reported = reported.unwrap_or_else(|| panic!("nothing reports the span {}", span.name));
        kinds.insert(reported.primitive());
        assert_eq!(format!("{:?}", span.span_kind).to_uppercase(), reported.kind(), "{}", span.name);
        for attribute in &span.attributes {
            let known = declared(reported);
            assert!(
                known.contains(attribute.key.as_str()),
                "{} of {} is not declared",
                attribute.key,
                span.name
            );
            if attribute.key.as_str() == "throughline.outcome" {
                assert!(
                    reported.outcomes().contains(&&*attribute.value.as_str()),
                    "{attribute:?} of {}",
                    span.name
                );
            }
        }
    }
    for primitive in
        ["workflow", "router", "cache", "timeout", "retry", "fallback", "hedge", "circuit_breaker"]
    {
        assert!(kinds.contains(primitive), "no span of {primitive} was seen, only {kinds:?}");
    }
}

#[test]
fn every_primitive_and_attribute_in_the_code_is_declared() {
    let code = all_sources();
    let declared_primitives: BTreeSet<&str> =
        primitives().iter().map(|reported| reported.primitive()).collect();
    let mut in_code = quoted_after(&code, "const PRIMITIVE: &'static str = \"");
    in_code.extend(quoted_after(&code, "const NAME: &'static str = \""));
    assert_eq!(in_code, declared_primitives);
    let attributes: BTreeSet<&str> = primitives().iter().flat_map(|reported| declared(reported)).collect();
    let mut set = quoted_after(&code, ".attribute(\"");
    set.extend(quoted_after(&code, "KeyValue::new(\"gen_ai").into_iter().map(|_| "gen_ai.workflow.name"));
    assert!(set.len() > 8, "{set:?}");
    for name in set {
        assert!(attributes.contains(name), "{name} is set and not declared");
    }
}

#[test]
fn every_label_has_a_source_and_every_name_is_there_once() {
    let mut names = BTreeSet::new();
    for family in catalogue() {
        assert!(names.insert(family.exposed_name()), "{} is declared twice", family.exposed_name());
        for label in family.labels() {
            let source = LabelSource::find(LABELS, family, label);
            assert!(source.is_some(), "nobody says where {label} of {} comes from", family.exposed_name());
        }
    }
    for source in LABELS {
        let families = catalogue();
        let used =
            families.iter().any(|family| family.labels().iter().any(|label| source.is_of(family, label)));
        assert!(used, "{source:?} is of no family");
    }
}

#[test]
fn every_file_that_declares_families_is_in_the_catalogue() {
    let code = all_sources();
    let declared = code.matches(": Family =").count();
    let listed = catalogue().len();
    assert_eq!(declared, listed, "a family is declared that no list in `telemetry::catalogue` has");
}
