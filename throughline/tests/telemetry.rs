//! What a workflow's run looks like in spans and metrics, and how telemetry starts and stops.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::time::Duration;

use opentelemetry::trace::{SpanId, Status as SpanStatus};
use throughline::telemetry::{OPENMETRICS, Scrape, Status, TEXT, Telemetry, catalogue};
use throughline::testing::{Recorder, SpanData};
use throughline::{
    CacheConfig, Clock, Context, Error, JsonCaching, Kind, Memory, Result, RouterConfig, TimeoutConfig,
    router, workflow,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn span<'a>(spans: &'a [SpanData], name: &str) -> &'a SpanData {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span `{name}` in {spans:#?}"))
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|kv| kv.key.as_str() == key).map(|kv| kv.value.to_string())
}

async fn get(address: std::net::SocketAddr, accept: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET /metrics HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn endpoint() -> Telemetry {
    Telemetry::builder().metrics_listen(([127, 0, 0, 1], 0).into()).local().init()
}

async fn double(n: u64) -> Result<u64> {
    Ok(n * 2)
}

#[tokio::test(start_paused = true)]
async fn one_request_is_one_trace_with_the_right_parents() {
    let recorder = Recorder::new();
    let route = router(
        RouterConfig::new("chat")
            .route(
                "only",
                workflow("double", double)
                    .timeout(TimeoutConfig::new("double", Duration::from_secs(1)).unwrap()),
            )
            .select(|_: &u64, _| Ok("only".into())),
    )
    .unwrap();
    let flow = route
        .cache(
            CacheConfig::new("answers", Duration::from_secs(60)).unwrap(),
            JsonCaching::keyed(|n: &u64, _, key| key.json(n)),
            Memory::new(1 << 20).unwrap(),
        )
        .named("ask");
    assert_eq!(flow.run(4, &recorder.context()).await.unwrap(), 8);

    let spans = recorder.spans();
    assert_eq!(spans.len(), 5);
    let chain = ["invoke_workflow ask", "cache answers", "router chat", "timeout double", "step double"];
    let mut parent = SpanId::INVALID;
    for name in chain {
        let span = span(&spans, name);
        assert_eq!(span.parent_span_id, parent, "parent of {name}");
        assert_eq!(span.span_context.trace_id(), spans[0].span_context.trace_id(), "{name}");
        assert_eq!(span.status, SpanStatus::Ok, "{name}");
        parent = span.span_context.span_id();
    }
    assert_eq!(
        attribute(span(&spans, "cache answers"), "throughline.cache.outcome").as_deref(),
        Some("miss")
    );
    assert_eq!(attribute(span(&spans, "router chat"), "throughline.router.route").as_deref(), Some("only"));
}

#[tokio::test]
async fn branches_of_a_fan_are_siblings_in_one_trace() {
    let recorder = Recorder::new();
    let flow = (workflow("left", double) | workflow("right", double)).named("both");
    assert_eq!(flow.run(1, &recorder.context()).await.unwrap(), (2, 2));
    let spans = recorder.spans();
    let root = span(&spans, "invoke_workflow both").span_context.span_id();
    for name in ["step left", "step right"] {
        assert_eq!(span(&spans, name).parent_span_id, root);
    }
}

#[tokio::test]
async fn an_error_is_marked_by_its_kind_and_never_by_its_text() {
    let recorder = Recorder::new();
    let flow = workflow("leak", |(): ()| async {
        Err::<(), _>(Error::new(Kind::Upstream, "key sk-secret of someone@example.org was refused"))
    });
    flow.run((), &recorder.context()).await.unwrap_err();
    let span = &recorder.spans()[0];
    assert_eq!(span.status, SpanStatus::error("upstream"));
    assert_eq!(attribute(span, "error.type").as_deref(), Some("upstream"));
    assert!(!format!("{span:?}").contains("secret"), "{span:?}");
    assert!(!recorder.sink().render().contains("secret"));
}

#[tokio::test]
async fn a_parent_that_is_not_sampled_gets_no_spans() {
    let recorder = Recorder::new();
    let cx = Context::builder()
        .sink(recorder.sink())
        .trace_parent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", None)
        .build();
    workflow("double", double).run(1, &cx).await.unwrap();
    assert_eq!(recorder.spans().len(), 0);
    assert_eq!(recorder.metric("throughline_primitive_duration_seconds_count", &[]), Some(1.0));
}

#[tokio::test]
async fn a_dropped_run_is_counted_as_cancelled_and_leaves_nothing_in_flight() {
    let recorder = Recorder::new();
    let flow = workflow("hang", |(): ()| std::future::pending::<Result<()>>()).named("outer");
    let cx = recorder.context();
    drop(tokio::time::timeout(Duration::from_millis(1), flow.run((), &cx)).await);
    for primitive in ["step", "workflow"] {
        let of = |name| recorder.metric(name, &[("primitive", primitive), ("outcome", "cancelled")]);
        assert_eq!(of("throughline_primitive_duration_seconds_count"), Some(1.0));
        assert_eq!(
            recorder.metric("throughline_primitive_in_flight", &[("primitive", primitive)]),
            Some(0.0)
        );
    }
}

#[tokio::test]
async fn a_panic_is_an_error_and_not_a_caller_who_left() {
    let recorder = Recorder::new();
    let flow = workflow("fragile", |(): ()| async { panic!("a fault of the program") as Result<()> });
    let cx = recorder.context();
    let run = tokio::spawn(async move { flow.run((), &cx).await });
    assert!(run.await.unwrap_err().is_panic());
    let labels = [("operation", "fragile"), ("outcome", "error")];
    assert_eq!(recorder.metric("throughline_primitive_duration_seconds_count", &labels), Some(1.0));
    assert_eq!(attribute(&recorder.spans()[0], "error.type").as_deref(), Some("internal"));
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_others_is_told_apart_also_when_it_is_dropped() {
    let recorder = Recorder::new();
    let cx = recorder.context();
    cx.elsewhere(tokio::time::sleep(Duration::from_secs(2))).await;
    let dropped = tokio::time::timeout(Duration::from_secs(3), cx.elsewhere(std::future::pending::<()>()));
    assert!(dropped.await.is_err());
    assert_eq!(cx.upstream_time(), Duration::from_secs(5));
}

#[tokio::test]
async fn a_stage_built_before_telemetry_reports_to_each_instance_it_runs_under() {
    let flow = workflow("double", double);
    flow.run(
        1,
        &Context::builder().sink(&throughline::telemetry::Sink::without_telemetry(Clock::Tokio)).build(),
    )
    .await
    .unwrap();
    let (first, second) = (Recorder::new(), Recorder::new());
    flow.run(1, &first.context()).await.unwrap();
    flow.run(1, &second.context()).await.unwrap();
    flow.run(1, &first.context()).await.unwrap();
    let runs = |recorder: &Recorder| recorder.metric("throughline_primitive_duration_seconds_count", &[]);
    assert_eq!((runs(&first), runs(&second)), (Some(2.0), Some(1.0)));
}

/// Runs are lent their handles, so that a second instance costs a run under the first one nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_side_by_side_count_what_many_threads_run_under_each() {
    const TASKS: u64 = 8;
    const RUNS: u64 = 500;
    let flow = std::sync::Arc::new(workflow("double", double));
    let telemetry = [(); 3].map(|()| Telemetry::builder().without_endpoint().local().init());
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let flow = std::sync::Arc::clone(&flow);
            let contexts = telemetry.each_ref().map(|it| Context::builder().sink(it.sink()).build());
            tokio::spawn(async move {
                for n in 0..RUNS {
                    for cx in &contexts {
                        flow.run(n, cx).await.unwrap();
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for it in &telemetry {
        let page = Scrape::parse(&it.sink().render());
        let runs = Some((TASKS * RUNS) as f64);
        assert_eq!(page.sum("throughline_primitive_duration_seconds_count", &[]), runs);
        assert_eq!(page.sum("throughline_primitive_duration_seconds_bucket", &[("le", "+Inf")]), runs);
        assert_eq!(page.sum("throughline_primitive_in_flight", &[]), Some(0.0));
    }
}

#[tokio::test]
async fn binding_creates_the_series_before_the_first_run() {
    let recorder = Recorder::new();
    let flow = workflow("double", double)
        .timeout(TimeoutConfig::new("bounded", Duration::from_secs(1)).unwrap())
        .cache(
            CacheConfig::new("answers", Duration::from_secs(60)).unwrap(),
            JsonCaching::keyed(|n: &u64, _, key| key.json(n)),
            Memory::new(1 << 20).unwrap(),
        );
    flow.bind(recorder.sink());
    for name in
        ["cache_hits_total", "cache_misses_total", "timeout_failures_total", "timeout_successes_total"]
    {
        assert_eq!(recorder.metric(name, &[]), Some(0.0), "{name}");
    }
    assert_eq!(recorder.metric("cache_hit_rate", &[]), None, "a rate is absent before its first event");
}

#[tokio::test]
async fn the_endpoint_serves_both_formats_with_their_content_type() {
    let telemetry = endpoint();
    assert_eq!(telemetry.status(), Status::Enabled);
    let address = telemetry.metrics_address().unwrap();
    let cx = Context::builder().sink(telemetry.sink()).build();
    workflow("double", double).run(1, &cx).await.unwrap();

    let text = get(address, "*/*").await;
    assert!(text.contains(&format!("content-type: {TEXT}")), "{text}");
    assert!(text.contains("apm_init_success{signal=\"metrics\"} 1\n"), "{text}");
    assert!(!text.contains("# EOF"), "{text}");
    let open = get(address, "application/openmetrics-text; version=1.0.0").await;
    assert!(open.contains(&format!("content-type: {OPENMETRICS}")), "{open}");
    assert!(open.ends_with("# EOF\n"), "{open}");
    telemetry.shutdown(Duration::from_secs(1)).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the port is closed after shutdown");
}

#[tokio::test]
async fn a_busy_port_degrades_telemetry_and_nothing_else() {
    let first = endpoint();
    let taken = first.metrics_address().unwrap();
    let second = Telemetry::builder().metrics_listen(taken).local().init();
    let Status::Degraded { reasons } = second.status() else { panic!("{:?}", second.status()) };
    assert!(reasons[0].starts_with(&format!("metrics port {taken}: ")), "{reasons:?}");
    let cx = Context::builder().sink(second.sink()).build();
    assert_eq!(workflow("double", double).run(3, &cx).await.unwrap(), 6);
    assert!(second.sink().render().contains("apm_init_success{signal=\"metrics\"} 0\n"));
}

#[tokio::test]
async fn a_public_metrics_address_is_refused() {
    let telemetry = Telemetry::builder().metrics_listen(([0, 0, 0, 0], 0).into()).local().init();
    let Status::Degraded { reasons } = telemetry.status() else { panic!("{:?}", telemetry.status()) };
    assert!(reasons[0].contains("without showing who they are"), "{reasons:?}");
}

#[tokio::test]
async fn it_can_be_started_again_after_shutdown_any_number_of_times() {
    let flow = workflow("double", double);
    for _ in 0..3 {
        let telemetry = endpoint();
        let address = telemetry.metrics_address().unwrap();
        flow.run(1, &Context::builder().sink(telemetry.sink()).build()).await.unwrap();
        assert!(get(address, "*/*").await.contains("operation=\"double\",outcome=\"success\"} 1\n"));
        telemetry.shutdown(Duration::from_secs(1)).await;
        telemetry.shutdown(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn switched_off_it_changes_no_answer_and_opens_no_port() {
    let telemetry =
        Telemetry::builder().metrics_listen(([127, 0, 0, 1], 0).into()).enabled(false).local().init();
    assert_eq!(telemetry.status(), Status::Disabled);
    assert_eq!(telemetry.metrics_address(), None);
    assert_eq!(telemetry.sink().render(), "");
    let cx = Context::builder().sink(telemetry.sink()).build();
    assert_eq!(workflow("double", double).run(2, &cx).await.unwrap(), 4);
}

#[tokio::test]
async fn a_scrape_is_answered_while_the_programs_runtime_is_stuck() {
    let telemetry = endpoint();
    let address = telemetry.metrics_address().unwrap();
    let scrape = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    });
    // This is the only thread of the test's runtime.
    assert!(scrape.join().unwrap().contains("build_info"));
}

#[test]
fn the_catalogue_holds_the_thirteen_families_with_their_labels() {
    let thirteen: [(&str, &[&str]); 13] = [
        ("router_decisions_total", &["route", "reason"]),
        ("router_execution_seconds", &["route"]),
        ("router_cost_savings_usd_total", &["route"]),
        ("router_errors_total", &["route", "error_type"]),
        ("cache_hits_total", &["operation"]),
        ("cache_misses_total", &["operation"]),
        ("cache_hit_rate", &["operation"]),
        ("cache_latency_seconds", &["operation", "hit"]),
        ("cache_cost_savings_usd_total", &["operation"]),
        ("timeout_successes_total", &["operation"]),
        ("timeout_failures_total", &["operation"]),
        ("timeout_execution_seconds", &["operation"]),
        ("timeout_rate", &["operation"]),
    ];
    let catalogue = catalogue();
    for (name, labels) in thirteen {
        let family = catalogue.iter().find(|family| family.exposed_name() == name);
        assert_eq!(family.map(|family| family.labels()), Some(labels), "{name}");
    }
    let mut names: Vec<_> = catalogue.iter().map(|family| family.exposed_name()).collect();
    names.sort();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "every name is declared once");
}
