//! Which requests share an answer: those that mean the same, of one tenant, and no others.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value, json};
use throughline::cache::Cache;
use throughline::telemetry::Observed;
use throughline::{CacheConfig, CacheOutcome, Context, Memory, Primitive, Workflow, workflow};
use throughline_llm::openai::{ChatRequest, Limits};
use throughline_llm::{Answer, ChatCaching, Completion, PriceTable};

use super::{PLAIN, cached, request};

/// Fields at the top of a request that do not change the answer.
const IGNORED: [&str; 4] = ["user", "metadata", "stream", "stream_options"];

type Cached<P> = Workflow<Observed<Cache<P, ChatCaching, Memory>>>;

/// A cache around something that always has an answer.
fn cache() -> Cached<impl Primitive<In = ChatRequest, Out = Answer> + use<>> {
    let body = r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}"#;
    let answer = move |_| async { Ok(Answer::Full(Completion::new(body.into(), "m".into(), None))) };
    workflow("answer", answer).cache(
        CacheConfig::new("chat", Duration::from_secs(60)).unwrap(),
        ChatCaching::new(PriceTable::empty().into()),
        Memory::new(64 << 10).unwrap(),
    )
}

/// What the cache did for the second of two requests.
fn second(first: &ChatRequest, second: &ChatRequest) -> CacheOutcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (cache, cx) = (cache(), Context::new());
        cache.run(first.clone(), &cx).await.unwrap();
        assert_eq!(cached(&cx), CacheOutcome::Miss);
        cache.run(second.clone(), &cx).await.unwrap();
        cached(&cx)
    })
}

fn parse(body: &Value) -> Option<ChatRequest> {
    ChatRequest::parse(body.to_string().into(), &Limits::default()).ok()
}

// === random requests ===

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e6..1e6).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Names of fields, among them those that mean something at the top of a request.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(&["user", "metadata", "stream", "content", "model", "role"][..])
            .prop_map(str::to_owned),
        "[a-c\"\\\\é]{0,3}",
    ]
}

/// Fields that a request may have beside the needed ones. Those that send it past the cache have tests of their own, in
/// `llm/tests/cache_keys.rs`.
fn options() -> impl Strategy<Value = Map<String, Value>> {
    let known = ["top_p", "seed", "tools", "response_format", "max_tokens", "stop", "x_vendor"];
    prop::collection::vec((prop::sample::select(known.to_vec()), any_value()), 0..5)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn body() -> impl Strategy<Value = Value> {
    let message =
        ("[a-z]{1,6}", any_value()).prop_map(|(role, content)| json!({"role": role, "content": content}));
    (prop::collection::vec(message, 1..4), options()).prop_map(|(messages, mut fields)| {
        fields.insert("model".to_owned(), "auto".into());
        fields.insert("messages".to_owned(), messages.into());
        Value::Object(fields)
    })
}

// === random edits ===

#[derive(Clone, Debug)]
enum Edit {
    Replace(Value),
    Remove(Index),
    Insert(String, Value),
    Swap(Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => any_value().prop_map(Edit::Replace),
        2 => any::<Index>().prop_map(Edit::Remove),
        3 => (name(), any_value()).prop_map(|(name, value)| Edit::Insert(name, value)),
        1 => any::<Index>().prop_map(Edit::Swap),
    ]
}

/// The pointers (RFC 6901) to everything in `value`.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, &format!("{at}/{index}"), found);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                pointers(field, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        _ => {}
    }
}

/// `body` with one edit somewhere.
fn edited(body: &Value, place: Index, edit: &Edit) -> Value {
    let mut places = Vec::new();
    pointers(body, "", &mut places);
    let mut body = body.clone();
    let target = body.pointer_mut(&places[place.index(places.len())]).expect("the place is in the body");
    match (edit, target) {
        (Edit::Replace(value), target) => *target = value.clone(),
        (Edit::Insert(name, value), Value::Object(fields)) => {
            fields.insert(name.clone(), value.clone());
        }
        (Edit::Insert(_, value), Value::Array(items)) => items.push(value.clone()),
        (Edit::Remove(index), Value::Object(fields)) if !fields.is_empty() => {
            let name = fields.keys().nth(index.index(fields.len())).cloned();
            fields.remove(&name.expect("the index is within"));
        }
        (Edit::Remove(index), Value::Array(items)) if !items.is_empty() => {
            items.remove(index.index(items.len()));
        }
        (Edit::Swap(index), Value::Array(items)) if !items.is_empty() => {
            let at = index.index(items.len());
            items.swap(0, at);
        }
        (_, target) => *target = json!([target.clone()]),
    }
    body
}

/// What of a request can change its answer.
fn meaning(body: &Value) -> Value {
    let mut body = body.clone();
    if let Value::Object(fields) = &mut body {
        fields.retain(|name, _| !IGNORED.contains(&name.as_str()));
    }
    body
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_change_that_can_change_the_answer_changes_the_key(
        base in body(), place in any::<Index>(), edit in edit()
    ) {
        let changed = edited(&base, place, &edit);
        let (Some(one), Some(other)) = (parse(&base), parse(&changed)) else { return Ok(()) };
        let same = meaning(&base) == meaning(&changed);
        let expected = if same { CacheOutcome::Hit } else { CacheOutcome::Miss };
        prop_assert_eq!(second(&one, &other), expected, "{} and {}", base, changed);
    }

    #[test]
    fn who_asks_and_how_it_is_written_does_not_change_the_key(
        base in body(), user in ".{0,8}", metadata in any_value(), stream: bool, usage: bool
    ) {
        let mut changed = base.clone();
        changed["user"] = user.into();
        changed["metadata"] = metadata;
        changed["stream"] = stream.into();
        changed["stream_options"] = json!({"include_usage": usage});
        let spelled = serde_json::to_string_pretty(&changed).unwrap();
        let (Some(one), Ok(other)) = (parse(&base), ChatRequest::parse(spelled.into(), &Limits::default())) else {
            return Err(TestCaseError::fail("both are valid"));
        };
        prop_assert_eq!(second(&one, &other), CacheOutcome::Hit);
    }
}

#[tokio::test]
async fn tenants_do_not_meet() {
    let (cache, request) = (cache(), request(PLAIN));
    let tenants = [None, Some("a"), Some("b"), Some("a\0"), Some("ab")];
    let context = |tenant: Option<&str>| match tenant {
        Some(tenant) => Context::builder().tag("tenant", tenant).build(),
        None => Context::new(),
    };
    for expected in [CacheOutcome::Miss, CacheOutcome::Hit] {
        for tenant in tenants {
            let cx = context(tenant);
            cache.run(request.clone(), &cx).await.unwrap();
            assert_eq!(cached(&cx), expected, "{tenant:?}");
        }
    }
}

#[tokio::test]
async fn who_asks_does_not_matter_beside_the_tenant() {
    let cache = cache();
    let one = Context::builder().tag("tenant", "a").user_id("u1").session_id("s1").build();
    let other = Context::builder().tag("tenant", "a").tag("tier", "gold").user_id("u2").build();
    cache.run(request(PLAIN), &one).await.unwrap();
    cache.run(request(PLAIN), &other).await.unwrap();
    assert_eq!((cached(&one), cached(&other)), (CacheOutcome::Miss, CacheOutcome::Hit));
}
