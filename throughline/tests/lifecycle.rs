//! Telemetry from before its start to after its end, and the page it serves.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::{Key, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use throughline::telemetry::{Sink, Status, Telemetry, TelemetryBuilder, to_text};
use throughline::testing::Recorder;
use throughline::{
    Bill, CacheConfig, Context, Error, JsonCaching, KeyBuilder, Kind, Memory, Pricing, Result, RouterConfig,
    TimeoutConfig, router, workflow,
};
use tokio::time::sleep;

/// A span processor that remembers what it is told.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Memo>>);

#[derive(Debug, Default)]
struct Memo {
    resource: Option<Resource>,
    spans: Vec<String>,
    shutdowns: u32,
}

impl SpanProcessor for Told {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap().spans.push(span.name.into_owned());
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.0.lock().unwrap().shutdowns += 1;
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.lock().unwrap().resource = Some(resource.clone());
    }
}

impl Told {
    fn attribute(&self, key: &'static str) -> Option<String> {
        let memo = self.0.lock().unwrap();
        memo.resource.as_ref()?.get(&Key::from_static_str(key)).as_ref().map(Value::to_string)
    }

    fn shutdowns(&self) -> u32 {
        self.0.lock().unwrap().shutdowns
    }
}

fn quiet() -> TelemetryBuilder {
    Telemetry::builder().without_endpoint()
}

async fn double(n: u64) -> Result<u64> {
    Ok(n * 2)
}

fn runs(telemetry: &Telemetry) -> Option<f64> {
    let page = throughline::telemetry::Scrape::parse(&telemetry.sink().render());
    page.sum("throughline_primitive_duration_seconds_count", &[("operation", "double")])
}

/// The one test here about the process-wide current instance: others would disturb it.
#[tokio::test]
async fn new_contexts_report_to_the_instance_started_last_and_before_and_after_to_none() {
    let flow = workflow("double", double);
    let nowhere = async || {
        let cx = Context::new();
        assert!(cx.sink().registry().is_none() && Sink::current().render().is_empty());
        assert_eq!((cx.trace_id(), cx.traceparent()), (None, None), "no tracer, no trace");
        assert_eq!(flow.run(1, &cx).await.unwrap(), 2);
    };
    nowhere().await;

    let (told, mut first) = (Told::default(), quiet());
    first = first.span_processor(told.clone());
    let first = first.init();
    assert_eq!(first.status(), Status::Enabled);
    flow.run(1, &Context::new()).await.unwrap();
    assert_eq!((runs(&first), told.0.lock().unwrap().spans.len()), (Some(1.0), 1));

    let second = quiet().init();
    flow.run(1, &Context::new()).await.unwrap();
    assert_eq!((runs(&first), runs(&second)), (Some(1.0), Some(1.0)), "starting twice is safe");

    second.shutdown(Duration::from_secs(1)).await;
    nowhere().await;
    drop(first);
    let third = quiet().init();
    flow.run(1, &Context::new()).await.unwrap();
    assert_eq!(runs(&third), Some(1.0), "starting again after a shutdown works");
    drop(third);
    nowhere().await;
}

#[tokio::test]
async fn shutting_down_what_never_started_does_nothing() {
    let off = quiet().enabled(false).local().init();
    off.shutdown(Duration::from_secs(1)).await;
    off.shutdown(Duration::from_secs(1)).await;
    assert_eq!(off.status(), Status::Disabled);
    drop(quiet().metrics_listen(([127, 0, 0, 1], 0).into()));
}

#[tokio::test]
async fn what_is_held_back_is_delivered_at_shutdown_and_at_drop_once() {
    let told = Told::default();
    let telemetry = quiet().local().span_processor(told.clone()).init();
    workflow("double", double).run(1, &Context::builder().sink(telemetry.sink()).build()).await.unwrap();
    assert_eq!(told.shutdowns(), 0);
    telemetry.shutdown(Duration::from_secs(1)).await;
    telemetry.shutdown(Duration::from_secs(1)).await;
    drop(telemetry);
    assert_eq!(told.shutdowns(), 1);

    let told = Told::default();
    drop(quiet().local().span_processor(told.clone()).init());
    assert_eq!(told.shutdowns(), 1, "dropping it is enough");
}

#[test]
fn spans_carry_the_default_service_name_unless_another_is_given() {
    let told = Told::default();
    let telemetry = quiet().local().span_processor(told.clone()).init();
    assert_eq!(told.attribute("service.name").as_deref(), Some("throughline"));
    assert_eq!(told.attribute("service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(told.attribute("deployment.environment.name"), None, "unset is not development");
    drop(telemetry);

    let told = Told::default();
    let builder = quiet().local().service_name("shop").service_version("7.1").span_processor(told.clone());
    let telemetry = builder.init();
    assert_eq!(told.attribute("service.name").as_deref(), Some("shop"));
    assert!(telemetry.sink().render().contains(r#"build_info{service="shop",version="7.1"} 1"#));
}

/// An environment that holds these variables.
fn environment(variables: &[(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
    let variables = variables.to_vec();
    move |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
}

#[tokio::test]
async fn the_environment_names_the_service() {
    let told = Told::default();
    let env = environment(&[("SERVICE_NAME", "from-env")]);
    let telemetry = quiet().local().from_variables(env).span_processor(told.clone()).init();
    assert_eq!(told.attribute("service.name").as_deref(), Some("from-env"));
    assert_eq!(telemetry.status(), Status::Enabled);
}

#[tokio::test]
async fn the_environment_switches_everything_off() {
    for (name, value) in
        [("ENABLE_OBSERVABILITY", "false"), ("ENABLE_APM", "0"), ("OTEL_SDK_DISABLED", "true")]
    {
        let told = Told::default();
        let builder = Telemetry::builder().metrics_listen(([127, 0, 0, 1], 0).into()).local();
        let builder = builder.span_processor(told.clone()).from_variables(environment(&[(name, value)]));
        let telemetry = builder.init();
        assert_eq!((telemetry.status(), telemetry.metrics_address()), (Status::Disabled, None), "{name}");
        let cx = Context::builder().sink(telemetry.sink()).build();
        assert_eq!(workflow("double", double).run(2, &cx).await.unwrap(), 4, "the program works as usual");
        assert_eq!(told.0.lock().unwrap().spans.len(), 0, "{name}");
    }
}

#[tokio::test]
async fn a_full_family_never_stops_the_program_however_small_the_cap() {
    let telemetry = quiet().local().series_cap(1).init();
    let cx = Context::builder().sink(telemetry.sink()).build();
    for n in 0..50 {
        let flow = workflow(format!("made {n}"), double)
            .timeout(TimeoutConfig::new(format!("limit {n}"), Duration::from_secs(1)).unwrap());
        assert_eq!(flow.run(1, &cx).await.unwrap(), 2);
    }
    let page = throughline::telemetry::Scrape::parse(&telemetry.sink().render());
    let other = [("operation", "other")];
    assert_eq!(page.sum("timeout_successes_total", &other), Some(49.0), "nothing is lost, only its name");
    let overflow = [("family", "timeout_successes")];
    assert_eq!(page.sum("telemetry_series_overflow_total", &overflow), Some(49.0));
}

#[tokio::test]
async fn a_span_says_only_what_is_known() {
    let recorder = Recorder::new();
    workflow("double", double).run(1, &recorder.context()).await.unwrap();
    let span = &recorder.spans()[0];
    let attributes: Vec<_> = span.attributes.iter().map(|kv| kv.key.as_str()).collect();
    assert_eq!(attributes, ["throughline.outcome"], "no provider, no model, nothing made up");
    assert!(span.events.is_empty());
}

struct FlatRate;

impl Pricing<u64> for FlatRate {
    fn settle(&self, answer: u64, bill: Bill) -> u64 {
        bill.settle(Some(0.25), Some(1.0));
        answer
    }
}

/// Once the page is meant to change: `UPDATE_FIXTURES=1 cargo test -p throughline --test lifecycle`.
#[tokio::test(start_paused = true)]
async fn the_page_of_a_known_workload_is_known_but_for_help_and_buckets() {
    let recorder = Recorder::new();
    let cheap = workflow("model", |n: u64| async move {
        sleep(Duration::from_millis(40)).await;
        if n == 13 { Err(Error::new(Kind::Upstream, "503")) } else { Ok(n * 2) }
    });
    let dear = workflow("dear model", double);
    let config = RouterConfig::new("chat")
        .route("cheap", cheap)
        .route("dear", dear)
        .baseline("dear")
        .pricing(FlatRate)
        .select(|_, _| Ok("cheap".into()));
    let flow = router(config)
        .unwrap()
        .timeout(TimeoutConfig::new("guard", Duration::from_secs(1)).unwrap())
        .cache(
            CacheConfig::new("answers", Duration::from_secs(60)).unwrap(),
            JsonCaching::keyed(|n: &u64, _, key: KeyBuilder| key.json(n)).saves(|_| Some(0.5)),
            Memory::new(1 << 20).unwrap(),
        )
        .named("ask");
    for (input, answers) in [(4, true), (4, true), (13, false)] {
        assert_eq!(flow.run(input, &recorder.context()).await.is_ok(), answers);
    }
    let page = to_text(&recorder.sink().render()).replace(env!("CARGO_PKG_VERSION"), "<version>");
    // What of the process is known depends on the machine.
    let of_the_process = |line: &str| {
        ["process_", "tokio_"].iter().any(|start| line.trim_start_matches("# TYPE ").starts_with(start))
    };
    let told =
        |line: &&str| !line.starts_with("# HELP ") && !line.contains("_bucket{") && !of_the_process(line);
    let page: String = page.lines().filter(told).map(|line| format!("{line}\n")).collect();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/metrics.txt");
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(fixture, &page).unwrap();
    }
    let expected = std::fs::read_to_string(fixture).unwrap();
    for (at, (line, known)) in page.lines().zip(expected.lines()).enumerate() {
        assert_eq!(line, known, "line {}", at + 1);
    }
    assert_eq!(page.lines().count(), expected.lines().count());
}
