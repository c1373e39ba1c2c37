//! The graph of a workflow has the names that metrics and spans have, and no others.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeSet;
use std::time::Duration;

use throughline::testing::Recorder;
use throughline::{
    Boxed, CacheConfig, ConditionalConfig, Error, JsonCaching, KeyBuilder, Kind, Memory, Node, Primitive,
    RouterConfig, SagaConfig, SwitchConfig, TimeoutConfig, Workflow, conditional, router, saga, switch,
    workflow,
};

type Flow = Workflow<Boxed<u64, u64>>;
type Names = BTreeSet<(String, String)>;

fn plus(name: &'static str) -> Workflow<impl Primitive<In = u64, Out = u64>> {
    workflow(name, |n: u64| async move { Ok(n + 1) })
}

fn memory() -> Memory {
    Memory::new(1 << 20).unwrap()
}

fn order() -> Flow {
    let ship = workflow("ship", |n: u64| async move {
        if n > 1_000 { Err(Error::new(Kind::Upstream, "too heavy")) } else { Ok(n) }
    });
    let paid = (plus("check") >> plus("charge")).undo(plus("refund") >> plus("tell"));
    (plus("reserve").undo(plus("release")) >> paid >> ship).saga(SagaConfig::new("order")).boxed()
}

fn choices() -> Flow {
    let routed = RouterConfig::new("chat")
        .route("cheap", plus("cheap model"))
        .route("dear", plus("dear model").timeout(TimeoutConfig::from_secs("dear", 9.0).unwrap()))
        .select(|n: &u64, _| Ok(if n.is_multiple_of(2) { "cheap" } else { "dear" }.into()));
    let cached = router(routed).unwrap().cache(
        CacheConfig::new("answers", Duration::from_secs(60)).unwrap(),
        JsonCaching::keyed(|n: &u64, _, key: KeyBuilder| key.json(n)),
        memory(),
    );
    let by_rest = SwitchConfig::new("rest")
        .on(|n: &u64, _| n % 3)
        .case(0_u64, cached)
        .case(1_u64, plus("one") >> plus("more"))
        .default(plus("other"));
    switch(by_rest).unwrap().boxed()
}

#[cfg(feature = "tower")]
fn service() -> Flow {
    let double = tower::service_fn(|n: u64| async move { Ok::<_, Error>(n * 2) });
    throughline::workflow_of_service("double", double).boxed()
}

#[cfg(not(feature = "tower"))]
fn service() -> Flow {
    plus("double").boxed()
}

/// Every primitive that holds others, in one workflow.
fn everything() -> Flow {
    let small = |n: &u64, _: &throughline::Context| *n < 50;
    let either = ConditionalConfig::new("small", small, plus("few")).otherwise(plus("many"));
    let maybe = ConditionalConfig::new("tiny", |n: &u64, _| *n < 10, plus("tiny"));
    let fan = (conditional(either) | conditional(maybe)).map(|(a, b)| a.max(b));
    (plus("first") >> fan >> choices() >> service() >> order()).named("everything").boxed()
}

/// What has a name of its own; pipes, fans, maps and undos have none.
fn named(node: &Node, names: &mut Names) {
    if !node.operation().is_empty() {
        assert!(names.insert((node.primitive().into(), node.operation().into())), "{node:?} stands twice");
    }
    node.children().iter().for_each(|child| named(child, names));
}

fn described(flow: &Flow) -> Names {
    let mut names = Names::new();
    named(&flow.describe(), &mut names);
    names
}

fn measured(recorder: &Recorder, family: &str) -> Names {
    let label = |line: &str, name: &str| {
        let rest = line.split_once(&format!("{name}=\"")).unwrap().1;
        rest.split_once('"').unwrap().0.to_owned()
    };
    let text = recorder.sink().render();
    let lines = text.lines().filter(|line| line.starts_with(&format!("{family}{{")));
    lines.map(|line| (label(line, "primitive"), label(line, "operation"))).collect()
}

#[tokio::test]
async fn the_graph_names_what_metrics_and_spans_name() {
    let (recorder, flow) = (Recorder::new(), everything());
    flow.bind(recorder.sink());
    let described = described(&flow);
    assert_eq!(measured(&recorder, "throughline_primitive_in_flight"), described, "bound before any run");

    for n in [1, 2, 3, 4, 5, 6, 7, 8, 60, 61, 62, 63, 2_000, 2_001, 2_002] {
        drop(flow.run(n, &recorder.context()).await);
    }
    saga::settled().await;
    assert_eq!(measured(&recorder, "throughline_primitive_duration_seconds_count"), described);
    let spans: BTreeSet<String> = recorder.spans().iter().map(|span| span.name.to_string()).collect();
    let expected = described.iter().map(|(primitive, operation)| match primitive.as_str() {
        "workflow" => format!("invoke_workflow {operation}"),
        _ => format!("{primitive} {operation}"),
    });
    assert_eq!(spans, expected.collect());
}

#[test]
fn edges_say_what_leads_to_a_branch_or_back() {
    let tree = everything().describe().to_tree();
    let edges: Vec<_> = tree.lines().filter_map(|line| line.trim().split_once(": ")).collect();
    assert_eq!(
        edges,
        [
            ("then", "step few"),
            ("else", "step many"),
            ("then", "step tiny"),
            ("0", "cache answers"),
            ("cheap", "step cheap model"),
            ("dear", "timeout dear"),
            ("1", "sequential"),
            ("default", "step other"),
            ("undo", "step release"),
            ("undo", "sequential"),
        ]
    );
}

#[test]
fn a_saga_is_drawn_with_its_ways_back() {
    let flow = (plus("reserve").undo(plus("release")) >> plus("ship")).saga(SagaConfig::new("order"));
    assert_eq!(
        flow.describe().to_mermaid(),
        "flowchart TD\n  n0[\"saga order\"]\n  n1[\"sequential\"]\n  n2[\"undo\"]\n  n3[\"step reserve\"]\n  \
         n2 --> n3\n  n4[\"step release\"]\n  n2 -->|\"undo\"| n4\n  n1 --> n2\n  n5[\"step ship\"]\n  \
         n1 --> n5\n  n0 --> n1\n"
    );
    let json: serde_json::Value = serde_json::from_str(&flow.describe().to_json()).unwrap();
    let undo = &json["children"][0]["children"][0];
    assert_eq!((&undo["primitive"], &undo["operation"]), (&"undo".into(), &"".into()));
    assert_eq!(
        (&undo["children"][1]["edge"], &undo["children"][1]["operation"]),
        (&"undo".into(), &"release".into())
    );
    assert_eq!(undo["children"][0].get("edge"), None);
}
