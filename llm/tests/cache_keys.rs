//! Which requests share an answer: those that mean the same, and no others.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use proptest::prelude::*;
use throughline::cache::{Lifetime, Lookup};
use throughline::telemetry::Tick;
use throughline::{CacheConfig, Context, Error, Key, Kind, Result, Store, workflow};
use throughline_llm::caching::TENANT;
use throughline_llm::openai::{ChatRequest, Limits};
use throughline_llm::{Answer, ChatCaching, PriceTable};

/// Holds nothing, and remembers what it was asked for.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Option<Key>>>);

impl Store for Asked {
    async fn get(&self, key: &Key, _: Tick) -> Result<Lookup> {
        *self.0.lock().unwrap() = Some(*key);
        Ok(Lookup::Missing)
    }
    async fn put(&self, _: Key, _: Bytes, _: Lifetime, _: Tick) -> Result<bool> {
        Ok(true)
    }
    async fn delete(&self, _: &Key, _: Tick) -> Result<()> {
        Ok(())
    }
}

fn caching() -> ChatCaching {
    ChatCaching::new(Arc::new(PriceTable::builtin()))
}

fn minute() -> CacheConfig {
    CacheConfig::new("auto", Duration::from_secs(60)).unwrap()
}

/// The key of a request, which nobody answers.
fn key_by(config: CacheConfig, caching: ChatCaching, cx: &Context, body: &str) -> Option<Key> {
    let request = ChatRequest::parse(body.to_owned().into(), &Limits::default()).ok()?;
    let asked = Asked::default();
    let work = workflow("none", |_: ChatRequest| async {
        Err::<Answer, _>(Error::new(Kind::InvalidInput, "nobody answers"))
    });
    let flow = work.cache(config, caching, asked.clone());
    flow.run(request, cx).now_or_never().expect("nothing here waits").unwrap_err();
    asked.0.lock().unwrap().take()
}

fn key(body: &str) -> Option<Key> {
    key_by(minute(), caching(), &Context::new(), body)
}

/// JSON with its order of keys and its spelling of numbers.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    /// A number or a literal.
    Word(String),
    Text(String),
    List(Vec<Json>),
    Table(Vec<(String, Json)>),
}

fn word(word: &str) -> Json {
    Json::Word(word.to_owned())
}

fn text(text: &str) -> Json {
    Json::Text(text.to_owned())
}

impl Json {
    /// The text; `odd` chooses, bit by bit, among the ways to write the same.
    fn write(&self, odd: &mut u64, out: &mut String) {
        let mut choose = || {
            *odd = odd.rotate_right(1);
            *odd & 1 == 1
        };
        out.push_str(if choose() { " \n" } else { "" });
        match self {
            Self::Word(word) => out.push_str(word),
            Self::Text(text) => write_text(text, choose(), out),
            Self::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    item.write(odd, out);
                }
                out.push(']');
            }
            Self::Table(fields) => {
                out.push('{');
                for (at, (name, value)) in fields.iter().enumerate() {
                    out.push_str(if at > 0 { ",\t" } else { "" });
                    write_text(name, *odd & 2 == 2, out);
                    out.push(':');
                    value.write(odd, out);
                }
                out.push('}');
            }
        }
    }

    fn written(&self, mut odd: u64) -> String {
        let mut out = String::new();
        self.write(&mut odd, &mut out);
        out
    }

    /// How many places it has, itself included.
    fn places(&self) -> usize {
        1 + match self {
            Self::Word(_) | Self::Text(_) => 0,
            Self::List(items) => items.iter().map(Json::places).sum(),
            Self::Table(fields) => fields.iter().map(|(_, value)| value.places()).sum(),
        }
    }

    /// Changes what is at place `at`; whether there is such a place.
    fn change(&mut self, at: &mut usize, how: &Change) -> bool {
        if *at == 0 {
            how.act(self);
            return true;
        }
        *at -= 1;
        match self {
            Self::Word(_) | Self::Text(_) => false,
            Self::List(items) => items.iter_mut().any(|item| item.change(at, how)),
            Self::Table(fields) => fields.iter_mut().any(|(_, value)| value.change(at, how)),
        }
    }

    /// The table with this field beside or in place of others.
    fn with(&self, name: &str, value: Self) -> Self {
        let mut with = self.clone();
        Change::Add(name.to_owned(), value).act(&mut with);
        with
    }

    /// The same with the keys of every table in another order.
    fn turned(&self) -> Self {
        match self {
            Self::Table(fields) => {
                Self::Table(fields.iter().rev().map(|(name, value)| (name.clone(), value.turned())).collect())
            }
            Self::List(items) => Self::List(items.iter().map(Json::turned).collect()),
            other => other.clone(),
        }
    }
}

fn write_text(text: &str, escaped: bool, out: &mut String) {
    if !escaped {
        return out.push_str(&serde_json::to_string(text).unwrap());
    }
    out.push('"');
    for unit in text.encode_utf16() {
        out.push_str(&format!("\\u{unit:04x}"));
    }
    out.push('"');
}

/// One difference that a model could see.
#[derive(Clone, Debug)]
enum Change {
    /// Another value.
    Replace(Json),
    /// The same in a list.
    Wrap,
    /// One more field, or one more item.
    Add(String, Json),
    /// One field or item less.
    Remove(usize),
    /// The first two items the other way round.
    Swap,
    /// The number or literal as text, and the other way round.
    Quote,
}

impl Change {
    fn act(&self, value: &mut Json) {
        *value = match (self, value.clone()) {
            (Self::Replace(other), _) => other.clone(),
            (Self::Wrap, old) => Json::List(vec![old]),
            (Self::Add(name, new), Json::Table(mut fields)) => {
                fields.retain(|(known, _)| known != name);
                fields.push((name.clone(), new.clone()));
                Json::Table(fields)
            }
            (Self::Add(_, new), Json::List(mut items)) => {
                items.push(new.clone());
                Json::List(items)
            }
            (Self::Remove(at), Json::Table(mut fields)) if !fields.is_empty() => {
                fields.remove(at % fields.len());
                Json::Table(fields)
            }
            (Self::Remove(at), Json::List(mut items)) if !items.is_empty() => {
                items.remove(at % items.len());
                Json::List(items)
            }
            (Self::Swap, Json::List(mut items)) if items.len() > 1 => {
                items.swap(0, 1);
                Json::List(items)
            }
            (Self::Quote, Json::Word(word)) => Json::Text(word),
            (Self::Quote, Json::Text(text)) if text.parse::<f64>().is_ok_and(f64::is_finite) => {
                Json::Word("7".into())
            }
            (_, old) => old,
        }
    }
}

/// Texts that could be taken for something else.
fn texts() -> impl Strategy<Value = String> {
    let tricky = [
        "", " ", "_", "a b", "a_b", "a\nb", ":", "a:b", ",", "\",\"", "\\", "\\u0061", "\"", "{}", "[]",
        "null", "1", "1.0", "true", "\u{0}", "\u{200b}", "é", "e\u{301}", "ﬁ", "fi", "İ", "i", "😀", "user",
        "a\r\nb",
    ];
    prop_oneof![
        6 => proptest::sample::select(tricky.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => (1_usize..5_000).prop_map(|length| "x".repeat(length)),
    ]
}

fn words() -> impl Strategy<Value = String> {
    let words = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "0.0",
        "1",
        "1.0",
        "1.00",
        "1e0",
        "10e-1",
        "0.1",
        "0.10000000000000000001",
        "9007199254740993",
        "9007199254740992",
        "12345678901234567890123",
        "12345678901234567890124",
    ];
    proptest::sample::select(words.to_vec()).prop_map(str::to_owned)
}

fn values() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![words().prop_map(Json::Word), texts().prop_map(Json::Text)];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::List),
            proptest::collection::btree_map(texts(), inner, 0..4)
                .prop_map(|fields| Json::Table(fields.into_iter().collect())),
        ]
    })
}

/// The name of a field that is not left out: one that is known, or none that anybody has heard of.
fn names() -> impl Strategy<Value = String> {
    let known = [
        "tools",
        "tool_choice",
        "response_format",
        "reasoning_effort",
        "top_p",
        "max_tokens",
        "stop",
        "logit_bias",
        "prediction",
        "modalities",
        "parallel_tool_calls",
        "web_search_options",
        "verbosity",
        "top_k",
    ];
    let ignored = [
        "user",
        "metadata",
        "stream",
        "stream_options",
        "model",
        "messages",
        "temperature",
        "n",
        "store",
        "seed",
    ];
    prop_oneof![
        2 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => texts().prop_filter("counts", move |name| !ignored.contains(&name.as_str())),
    ]
}

/// The name of a field inside which the order of fields may be that of a schema.
fn ordered() -> impl Strategy<Value = String> {
    names().prop_filter("its order counts", |name| name != "logit_bias")
}

/// A table of at least two fields, alone or in something else.
fn table() -> impl Strategy<Value = Json> {
    let fields = proptest::collection::btree_map(texts(), values(), 2..4);
    (fields, 0_u8..3).prop_map(|(fields, around)| {
        let table = Json::Table(fields.into_iter().collect());
        match around {
            0 => table,
            1 => Json::List(vec![table]),
            _ => Json::Table(vec![("parameters".into(), table)]),
        }
    })
}

/// Seven ones in a list, with an item ending where there is a cut.
fn ones(cuts: u8) -> Json {
    let (mut items, mut item) = (Vec::new(), String::new());
    for at in 0..7 {
        item.push('1');
        if at == 6 || cuts >> at & 1 == 1 {
            items.push(Json::Word(std::mem::take(&mut item)));
        }
    }
    Json::List(items)
}

/// A request whose key can be made: system prompt, an image, a tool's call, and fields of all kinds.
fn requests() -> impl Strategy<Value = Json> {
    let fields = proptest::collection::btree_map(names(), values(), 0..4);
    (texts(), texts(), values(), fields).prop_map(|(system, said, image, fields)| {
        let message =
            |role, content| Json::Table(vec![("role".into(), text(role)), ("content".into(), content)]);
        let part =
            |kind: &str, value| Json::Table(vec![("type".into(), text(kind)), (kind.to_owned(), value)]);
        let parts = Json::List(vec![part("text", Json::Text(said)), part("image_url", image)]);
        let messages = vec![message("system", Json::Text(system)), message("user", parts)];
        let mut all = vec![
            ("model".to_owned(), text("auto")),
            ("messages".to_owned(), Json::List(messages)),
            ("temperature".to_owned(), word("0.5")),
        ];
        all.extend(fields);
        Json::Table(all)
    })
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => values().prop_map(Change::Replace),
        1 => Just(Change::Wrap),
        3 => (names(), values()).prop_map(|(name, value)| Change::Add(name, value)),
        2 => any::<usize>().prop_map(Change::Remove),
        1 => Just(Change::Swap),
        1 => Just(Change::Quote),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_change_of_anything_changes_the_key(
        request in requests(), at in any::<usize>(), how in changes(), odd: u64
    ) {
        let whole = key(&request.written(0)).expect("every one of these has a key");
        let mut changed = request.clone();
        let found = changed.change(&mut (at % request.places()), &how);
        prop_assert!(found, "every place is found");
        if changed == request {
            // That change changes nothing here; this one always does.
            changed.change(&mut (at % request.places()), &Change::Wrap);
        }
        // A request that is refused, or not to be cached, shares nothing.
        if let Some(other) = key(&changed.written(odd)) {
            prop_assert_ne!(whole, other, "{} {}", request.written(0), changed.written(0));
        }
    }

    #[test]
    fn another_spelling_has_the_same_key(request in requests(), odd: u64) {
        prop_assert_eq!(key(&request.written(0)), key(&request.written(odd)));
    }

    #[test]
    fn the_order_of_fields_counts_only_where_a_model_could_follow_it(request in requests()) {
        let Json::Table(fields) = &request else { unreachable!("a request is a table") };
        let turn = |(name, value): &(String, Json)| match name.as_str() {
            "messages" | "logit_bias" => (name.clone(), value.turned()),
            _ => (name.clone(), value.clone()),
        };
        let turned = Json::Table(fields.iter().rev().map(turn).collect());
        prop_assert_eq!(key(&request.written(0)), key(&turned.written(0)));
    }

    #[test]
    fn the_order_of_fields_counts_where_a_model_could_follow_it(
        request in requests(), name in ordered(), table in table()
    ) {
        let (one, other) = (request.with(&name, table.clone()), request.with(&name, table.turned()));
        prop_assert_ne!(key(&one.written(0)), key(&other.written(0)), "{}", one.written(0));
    }

    #[test]
    fn numbers_count_as_they_are_written(
        request in requests(), name in names(), one in words(), other in words()
    ) {
        let key = |word: &str| key(&request.with(&name, Json::Word(word.to_owned())).written(0));
        prop_assert!(key(&one).is_some());
        prop_assert_eq!(one == other, key(&one) == key(&other), "{} and {}", one, other);
    }

    #[test]
    fn where_an_item_begins_counts(request in requests(), name in names(), one in 0_u8..64, other in 0_u8..64) {
        let key = |cuts: u8| key(&request.with(&name, ones(cuts)).written(0));
        prop_assert!(key(one).is_some());
        prop_assert_eq!(one == other, key(one) == key(other), "{:?} and {:?}", ones(one), ones(other));
    }

    #[test]
    fn the_named_fields_are_left_out(request in requests(), value in values(), user in texts()) {
        let Json::Table(mut fields) = request.clone() else { unreachable!("a request is a table") };
        fields.insert(1, ("user".into(), Json::Text(user)));
        fields.push(("metadata".into(), value));
        fields.push(("stream_options".into(), word("null")));
        prop_assert_eq!(key(&request.written(0)), key(&Json::Table(fields).written(0)));
    }

    #[test]
    fn tenants_and_what_rules_look_at_never_meet(one in parts(), other in parts()) {
        let key = |(tenant, tags): &(Option<String>, Vec<Option<String>>)| {
            let names = ["header:x-a", "header:x-b"];
            let mut cx = Context::builder();
            for (name, value) in names.iter().zip(tags) {
                cx = value.iter().fold(cx, |cx, value| cx.tag(*name, value));
            }
            let cx = tenant.iter().fold(cx, |cx, tenant| cx.tag(TENANT, tenant)).build();
            let caching = caching().varying_by(names.map(str::to_owned).to_vec(), Vec::new());
            key_by(minute(), caching, &cx, ASKED)
        };
        prop_assert!(key(&one).is_some());
        prop_assert_eq!(one == other, key(&one) == key(&other));
    }
}

/// A tenant and the values of two headers, each there or not.
fn parts() -> impl Strategy<Value = (Option<String>, Vec<Option<String>>)> {
    let value =
        || proptest::option::of(proptest::sample::select(vec!["", "a", "b", "ab"]).prop_map(str::to_owned));
    (value(), proptest::collection::vec(value(), 2))
}

const ASKED: &str = r#"{"model":"auto","messages":[{"role":"user","content":"Hi"}]}"#;

fn with(fields: &str) -> String {
    ASKED.replace("\"model\"", &format!("{fields}\"model\""))
}

#[test]
fn the_model_and_the_scope_count_and_the_form_of_the_answer_does_not() {
    let base = key(ASKED).unwrap();
    for form in [r#""stream":true,"#, r#""stream":true,"stream_options":{"include_usage":true},"#] {
        assert_eq!(key(&with(form)).unwrap(), base, "{form}");
    }
    let alias = key_by(
        CacheConfig::new("other", Duration::from_secs(60)).unwrap(),
        caching(),
        &Context::new(),
        ASKED,
    );
    let scope = key_by(minute().scope("another provider"), caching(), &Context::new(), ASKED);
    let all = [base, alias.unwrap(), scope.unwrap()];
    for (at, one) in all.iter().enumerate() {
        assert!(all.iter().skip(at + 1).all(|other| one != other), "{at}");
    }
}

#[test]
fn the_key_of_a_request_is_the_same_in_every_process_and_build() {
    let cx = Context::builder().tag(TENANT, "acme").build();
    let key = key_by(minute(), caching(), &cx, ASKED).unwrap();
    assert_eq!(
        key.to_string(),
        "1936d283ac8301b090d46dbd99ee7ab7ced538e7e012ceb82f03488ebb7fdb40",
        "with another key the answers in shared stores are lost"
    );
}

#[test]
fn answers_that_are_to_be_shared_are_the_same_for_all_tenants() {
    let key =
        |caching, tenant| key_by(minute(), caching, &Context::builder().tag(TENANT, tenant).build(), ASKED);
    assert_ne!(key(caching(), "a"), key(caching(), "b"));
    assert_eq!(key(caching().shared_by_all(), "a"), key(caching().shared_by_all(), "b"));
}

#[test]
fn what_is_drawn_anew_each_time_is_not_cached_unless_a_seed_makes_it_repeatable() {
    let cached = |most, fields: &str| {
        key_by(minute(), caching().max_temperature(most), &Context::new(), &with(fields)).is_some()
    };
    for (most, fields, expected) in [
        (1.0, "", true),
        (1.0, r#""temperature":1.0,"#, true),
        (1.0, r#""temperature":1.01,"#, false),
        (1.0, r#""temperature":"0","#, false),
        (1.0, r#""temperature":null,"#, true),
        (0.5, "", false),
        (0.5, r#""temperature":0.5,"#, true),
        (0.0, r#""temperature":0,"#, true),
        (0.0, r#""temperature":0.1,"#, false),
        (1.0, r#""n":1,"#, true),
        (1.0, r#""n":2,"#, false),
        (1.0, r#""n":"1","#, false),
        (0.0, r#""n":2,"temperature":2,"seed":1,"#, true),
        (0.0, r#""n":2,"temperature":2,"seed":null,"#, false),
        (1.0, r#""seed":"x","n":2,"#, false),
        (1.0, r#""store":true,"#, true),
        (1.0, r#""store":false,"#, false),
        (1.0, r#""store":false,"seed":1,"#, false),
    ] {
        assert_eq!(cached(most, fields), expected, "{most} {fields}");
    }
    assert_ne!(key(&with(r#""seed":1,"#)), key(&with(r#""seed":2,"#)));
    assert_ne!(key(&with(r#""store":true,"#)), key(ASKED));
}

#[test]
fn a_field_that_decides_is_not_hidden_by_a_second_one() {
    for twice in
        [r#""store":false,"store":true,"#, r#""temperature":2,"temperature":0,"#, r#""seed":1,"seed":2,"#]
    {
        let body = with(twice);
        let refused = ChatRequest::parse(body.clone().into(), &Limits::default()).unwrap_err();
        assert!(refused.to_string().ends_with("must be given only once"), "{refused}");
    }
}
