//! What map, conditional and switch do, and what they tell about it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::fmt;
use std::future::pending;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use throughline::telemetry::Sink;
use throughline::testing::Recorder;
use throughline::{
    Clock, ConditionalConfig, Context, Error, ItemStream, Kind, Primitive, SwitchConfig, Workflow,
    conditional, switch, workflow, workflow_stream,
};

fn times(n: u64) -> Workflow<impl Primitive<In = u64, Out = u64>> {
    workflow(format!("times {n}"), move |input: u64| async move { Ok(input * n) })
}

fn text(word: &'static str) -> Workflow<impl Primitive<In = u64, Out = String>> {
    workflow(word, move |n: u64| async move { Ok(format!("{word} {n}")) })
}

fn even(n: &u64, _: &Context) -> bool {
    assert_ne!(*n, 13, "the test asks for a panic");
    n.is_multiple_of(2)
}

fn events(recorder: &Recorder, event: &str) -> Option<f64> {
    recorder.metric("throughline_primitive_events_total", &[("event", event)])
}

fn attribute(recorder: &Recorder, span: &str, key: &str) -> Vec<String> {
    let spans = recorder.spans();
    let attributes = spans.iter().filter(|data| data.name == span).flat_map(|data| &data.attributes);
    attributes.filter(|entry| entry.key.as_str() == key).map(|entry| entry.value.to_string()).collect()
}

fn ended(recorder: &Recorder, operation: &str, outcome: &str) -> Option<f64> {
    let labels = [("operation", operation), ("outcome", outcome)];
    recorder.metric("throughline_primitive_duration_seconds_count", &labels)
}

fn items() -> Workflow<impl Primitive<In = u64, Out = ItemStream<u64>>> {
    workflow_stream("items", |to: u64, _cx: Context| async move {
        Ok(ItemStream::new(stream::iter((0..to).map(Ok::<u64, Error>))))
    })
}

// === map ===

#[tokio::test]
async fn a_map_changes_the_output_and_is_not_observed() {
    let recorder = Recorder::new();
    let flow = (times(2) >> times(3).map(|n| n.to_string())).map(|text| text.len()) >> text_len();
    assert_eq!(flow.run(100, &recorder.context()).await.unwrap(), "3");
    let names: Vec<_> = recorder.spans().iter().map(|span| span.name.to_string()).collect();
    assert_eq!(names, ["step times 2", "step times 3", "step text"]);
    assert_eq!(
        flow.describe().to_tree(),
        "  sequential\n    step times 2\n    step times 3\n    map\n    map\n    step text\n"
    );
}

fn text_len() -> Workflow<impl Primitive<In = usize, Out = String>> {
    workflow("text", |n: usize| async move { Ok(n.to_string()) })
}

#[tokio::test]
async fn a_map_that_fails_stops_the_pipe_and_is_not_called_after_an_error() {
    let odd = |n: u64| match n % 2 {
        0 => Err(Error::new(Kind::InvalidInput, "an even number")),
        _ => Ok(n),
    };
    let flow = times(3).try_map(odd) >> times(10);
    let recorder = Recorder::new();
    assert_eq!(flow.run(1, &recorder.context()).await.unwrap(), 30);
    assert_eq!(flow.run(2, &recorder.context()).await.unwrap_err().to_string(), "an even number");
    assert_eq!(ended(&recorder, "times 10", "success"), Some(1.0));

    let fails = workflow("fails", |_: u64| async { Err::<u64, _>(Error::new(Kind::Upstream, "503")) });
    let flow = fails.map(|_: u64| -> u64 { unreachable!("there is no output") });
    assert_eq!(flow.run(1, &recorder.context()).await.unwrap_err().to_string(), "503");
}

#[tokio::test]
async fn a_map_keeps_a_stream_that_keeps_its_type() {
    let recorder = Recorder::new();
    let flow = items().map(|stream| stream).named("flow");
    let mut stream = flow.run(2, &recorder.context()).await.unwrap();
    assert_eq!(ended(&recorder, "flow", "success"), None, "the run goes on with the stream");
    while stream.next().await.is_some() {}
    assert_eq!(ended(&recorder, "flow", "success"), Some(1.0));

    let other = items().map(Some).named("other");
    let _stream = other.run(2, &recorder.context()).await.unwrap();
    assert_eq!(ended(&recorder, "other", "success"), Some(1.0), "another type has no stream to wait for");
}

// === conditional ===

#[tokio::test]
async fn a_conditional_runs_one_branch_or_lets_the_input_pass() {
    let recorder = Recorder::new();
    let flow = conditional(ConditionalConfig::new("half", even, times(10)));
    assert_eq!(flow.run(4, &recorder.context()).await.unwrap(), 40);
    assert_eq!(flow.run(5, &recorder.context()).await.unwrap(), 5);
    assert_eq!((events(&recorder, "then"), events(&recorder, "else")), (Some(1.0), Some(1.0)));
    assert_eq!(ended(&recorder, "half", "success"), Some(2.0));
    assert_eq!(ended(&recorder, "times 10", "success"), Some(1.0));
    assert_eq!(attribute(&recorder, "conditional half", "throughline.conditional.branch"), ["then", "else"]);
    assert_eq!(format!("{:?}", flow.stage()), "Conditional(half, 1 then, 1 else)");
    assert_eq!(flow.describe().to_tree(), "  conditional half\n    then: step times 10\n");
}

#[tokio::test]
async fn with_another_branch_input_and_output_may_differ() {
    let config = ConditionalConfig::new("parity", even, text("even")).otherwise(text("odd"));
    let flow = times(1) >> conditional(config);
    let cx = Recorder::new().context();
    assert_eq!(flow.run(4, &cx).await.unwrap(), "even 4");
    assert_eq!(flow.run(5, &cx).await.unwrap(), "odd 5");
    let tree = flow.describe().children()[1].to_tree();
    assert_eq!(tree, "  conditional parity\n    then: step even\n    else: step odd\n");
}

#[tokio::test]
async fn an_error_of_a_branch_is_the_error_of_the_conditional() {
    let fails = workflow("fails", |_: u64| async { Err::<u64, _>(Error::new(Kind::Upstream, "503")) });
    let recorder = Recorder::new();
    let flow = conditional(ConditionalConfig::new("half", even, fails).otherwise(times(1)));
    assert_eq!(flow.run(4, &recorder.context()).await.unwrap_err().to_string(), "503");
    assert_eq!(ended(&recorder, "half", "error"), Some(1.0));
    assert_eq!(ended(&recorder, "times 1", "success"), None, "the other branch is no fallback");
}

#[tokio::test]
async fn a_predicate_that_panics_is_an_error_and_an_event() {
    let recorder = Recorder::new();
    let flow = conditional(ConditionalConfig::new("half", even, times(10)));
    let error = flow.run(13, &recorder.context()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Internal, "the predicate panicked"));
    assert_eq!(events(&recorder, "predicate_panicked"), Some(1.0));
    assert_eq!(flow.run(4, &recorder.context()).await.unwrap(), 40, "the next run is as ever");
    let stats = flow.stage().stats();
    assert_eq!((stats.then, stats.otherwise, stats.panics), (1, 0, 1));
}

#[tokio::test]
async fn a_predicate_sees_the_context() {
    let gold = |_: &u64, cx: &Context| cx.tag("tier") == Some("gold");
    let flow = conditional(ConditionalConfig::new("gold", gold, times(10)));
    assert_eq!(flow.run(1, &Context::builder().tag("tier", "gold").build()).await.unwrap(), 10);
    assert_eq!(flow.run(1, &Context::new()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_stream_of_either_branch_is_found() {
    let recorder = Recorder::new();
    let flow = conditional(ConditionalConfig::new("half", even, items()).otherwise(items()));
    for n in [2, 3] {
        let stream = flow.run(n, &recorder.context()).await.unwrap();
        assert_eq!(recorder.metric("throughline_primitive_in_flight", &[("operation", "half")]), Some(1.0));
        drop(stream);
    }
    assert_eq!(ended(&recorder, "half", "cancelled"), Some(2.0));
}

// === switch ===

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Size {
    Small,
    Large,
    Huge,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Small => "small",
            Self::Large => "large",
            Self::Huge => "huge",
        })
    }
}

fn size(n: &u64, _: &Context) -> Size {
    match n {
        13 => panic!("the test asks for it"),
        0..10 => Size::Small,
        10..100 => Size::Large,
        _ => Size::Huge,
    }
}

fn sizes<Out: Send + 'static>() -> SwitchConfig<Size, u64, Out> {
    SwitchConfig::new("size").on(size)
}

#[tokio::test]
async fn a_switch_runs_the_case_of_the_key_or_the_default() {
    let recorder = Recorder::new();
    let config =
        sizes().case(Size::Small, text("small")).case(Size::Large, text("large")).default(text("rest"));
    let flow = switch(config).unwrap();
    let cx = recorder.context();
    for (n, expected) in [(1, "small 1"), (10, "large 10"), (11, "large 11"), (100, "rest 100")] {
        assert_eq!(flow.run(n, &cx).await.unwrap(), expected);
    }
    let stats = flow.stage().stats();
    assert_eq!(stats.cases, [("small".to_owned(), 1), ("large".to_owned(), 2)]);
    assert_eq!((stats.default, stats.passed_through, stats.panics), (1, 0, 0));
    assert_eq!((events(&recorder, "case_taken"), events(&recorder, "default_taken")), (Some(3.0), Some(1.0)));
    let cases = attribute(&recorder, "switch size", "throughline.switch.case");
    assert_eq!(cases, ["small", "large", "large", "default"], "never the key of the input itself");
    assert_eq!(
        flow.describe().to_tree(),
        "  switch size\n    small: step small\n    large: step large\n    default: step rest\n"
    );
    assert_eq!(format!("{:?}", flow.stage()), "Switch(size, cases small|large, else default)");
}

#[tokio::test]
async fn what_has_no_case_passes_through_where_that_was_chosen() {
    let recorder = Recorder::new();
    let flow = switch(sizes().case(Size::Small, times(10)).pass_through()).unwrap();
    let cx = recorder.context();
    assert_eq!((flow.run(2, &cx).await.unwrap(), flow.run(50, &cx).await.unwrap()), (20, 50));
    assert_eq!((flow.stage().stats().passed_through, events(&recorder, "passed_through")), (1, Some(1.0)));
    assert_eq!(format!("{:?}", flow.stage()), "Switch(size, cases small, else pass through)");
    assert_eq!(flow.describe().children().len(), 1);
}

#[tokio::test]
async fn keys_may_be_texts_and_numbers() {
    let cx = Recorder::new().context();
    let owned = SwitchConfig::new("word").on(|word: &String, _| word.clone());
    let shout = workflow("shout", |word: String| async move { Ok(word.to_uppercase()) });
    let flow = switch(owned.case("hi", shout).pass_through()).unwrap();
    assert_eq!(flow.run("hi".into(), &cx).await.unwrap(), "HI");
    assert_eq!(flow.run("ho".into(), &cx).await.unwrap(), "ho");
    let number =
        SwitchConfig::new("number").on(|n: &u64, _| n % 3).case(1_u64, text("one")).default(text("other"));
    assert_eq!(switch(number).unwrap().run(4, &cx).await.unwrap(), "one 4");
}

#[tokio::test]
async fn a_key_function_that_panics_is_an_error_and_an_event() {
    let recorder = Recorder::new();
    let flow = switch(sizes().case(Size::Small, times(10)).pass_through()).unwrap();
    let error = flow.run(13, &recorder.context()).await.unwrap_err();
    let text = "the function that gives the key panicked";
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Internal, text));
    assert_eq!((flow.stage().stats().panics, events(&recorder, "key_panicked")), (1, Some(1.0)));
}

#[test]
fn a_switch_that_cannot_decide_is_refused() {
    let text = |config| switch::<Size, u64, u64>(config).map(|_| ()).unwrap_err().to_string();
    assert_eq!(
        text(sizes().case(Size::Small, times(1))),
        "switch `size` has nothing for inputs without a case: call `default`, or `pass_through` where they may \
         pass unchanged"
    );
    assert_eq!(text(sizes().default(times(1))), "switch `size` has no cases: add at least one");
    let twice = sizes().case(Size::Small, times(1)).case(Size::Large, times(2)).case(Size::Small, times(3));
    assert_eq!(text(twice.pass_through()), "switch `size` has the case `small` twice");
    let no_key = SwitchConfig::new("size").case(Size::Small, times(1)).pass_through();
    assert_eq!(text(no_key), "switch `size` has no function that gives the key: call `on`");
    let taken = SwitchConfig::new("word").on(|_: &u64, _| "default").case("default", times(1)).pass_through();
    assert_eq!(
        switch(taken).map(|_| ()).unwrap_err().to_string(),
        "switch `word` has a case called `default`: that is the name of what has no case"
    );
}

#[tokio::test]
async fn hostile_keys_add_no_series_and_no_attributes() {
    let recorder = Recorder::new();
    let words = SwitchConfig::new("word").on(|n: &u64, _| format!("key {n}"));
    let flow = switch(words.case("key 0", times(1)).pass_through()).unwrap();
    let cx = recorder.context();
    flow.run(0, &cx).await.unwrap();
    flow.run(1, &cx).await.unwrap();
    let before = recorder.sink().render().lines().count();
    for n in 2..1_000 {
        flow.run(n, &cx).await.unwrap();
    }
    assert_eq!(recorder.sink().render().lines().count(), before);
    let cases = attribute(&recorder, "switch word", "throughline.switch.case");
    assert!(cases[1..].iter().all(|case| case == "default"));
}

#[tokio::test]
async fn a_stream_of_any_case_is_found() {
    let recorder = Recorder::new();
    let flow = switch(sizes().case(Size::Small, items()).default(items())).unwrap();
    for n in [2, 200] {
        let stream = flow.run(n, &recorder.context()).await.unwrap();
        assert_eq!(recorder.metric("throughline_primitive_in_flight", &[("operation", "size")]), Some(1.0));
        drop(stream);
    }
    assert_eq!(ended(&recorder, "size", "cancelled"), Some(2.0));
}

// === both ===

#[tokio::test(start_paused = true)]
async fn a_dropped_branch_is_cancelled_with_its_choice() {
    let recorder = Recorder::new();
    let hang = || workflow("hang", |_: u64| pending::<Result<u64, Error>>());
    let inner = switch(sizes().case(Size::Small, hang()).pass_through()).unwrap();
    let flow = conditional(ConditionalConfig::new("half", even, inner));
    let cx = recorder.context();
    tokio::time::timeout(Duration::from_secs(1), flow.run(2, &cx)).await.unwrap_err();
    for operation in ["half", "size", "hang"] {
        assert_eq!(ended(&recorder, operation, "cancelled"), Some(1.0), "{operation}");
    }
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]), Some(0.0));
}

#[tokio::test]
async fn choices_are_made_and_counted_without_telemetry() {
    let cx = Context::builder().sink(&Sink::without_telemetry(Clock::Tokio)).build();
    let chosen = switch(sizes().case(Size::Small, times(10)).pass_through()).unwrap();
    let flow = conditional(ConditionalConfig::new("half", even, chosen.clone()));
    assert_eq!((flow.run(2, &cx).await.unwrap(), flow.run(3, &cx).await.unwrap()), (20, 3));
    assert_eq!((flow.stage().stats().then, flow.stage().stats().otherwise), (1, 1));
    assert_eq!(chosen.stage().stats().cases, [("small".to_owned(), 1)]);
}
