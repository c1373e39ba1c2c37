//! `cache = { ttl, … }`: how long a model's answers are kept, and how many.

use std::time::Duration;

use serde::Deserialize;
use throughline::Kind;
use toml::{Spanned, Value};

use super::check::Check;
use super::error::unknown;
use super::model::Named;
use super::semantic::{Semantic, SemanticFile};
use super::table::Table;
use super::timeout::TimeLimit;

/// What a model's cache may keep.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CacheLimits {
    /// How long an answer is fresh. Above zero, at most 24 h.
    pub(crate) ttl: Duration,
    /// Where they are kept. Default: in 64 MiB of memory.
    pub(crate) place: Place,
    /// The share of the ttl by which it is shortened at random, 0 to 0.5. Default: 0.1.
    pub(crate) jitter: f64,
    /// How long after the ttl an answer is given while a new one is fetched. Default: 0 s.
    pub(crate) stale_while_revalidate: Duration,
    /// How long after the ttl an answer is given if no new one can be had. Default: 0 s.
    pub(crate) stale_if_error: Duration,
    /// How eagerly answers are refreshed before their time, 0 to 10; not at 0. Default: 0.
    pub(crate) early_refresh: f64,
    /// Which errors are given again. Default: none.
    pub(crate) negative: Option<Negative>,
    /// The largest answer that is kept, in bytes. Default: what the store takes.
    pub(crate) max_answer: Option<usize>,
    /// Whether tenants are given each other's answers. Default: false.
    pub(crate) shared: bool,
    /// The highest temperature that is cached, 0 to 2. Default: 1.
    pub(crate) max_temperature: f64,
    /// Whether a request's `Cache-Control` is followed. Default: true.
    pub(crate) cache_control: bool,
    /// How many chunks a second a kept answer is given at as a stream, 1 to 10,000. Default: all at once.
    pub(crate) chunks_per_second: Option<f64>,
    /// How similar questions are answered. Default: they are not.
    pub(crate) semantic: Option<Semantic>,
}

/// Errors that are given again without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Negative {
    /// Which, at least one.
    pub(crate) errors: Vec<Kind>,
    /// For how long. Above zero, at most 24 h.
    pub(crate) ttl: Duration,
}

/// What can be given again: what says something of the request or of a provider that lasts.
const REPEATABLE: [Kind; 6] = [
    Kind::InvalidInput,
    Kind::RateLimited,
    Kind::Rejected,
    Kind::CircuitOpen,
    Kind::Upstream,
    Kind::Internal,
];

/// Where answers are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In so many bytes of memory.
    Memory(usize),
    /// In the store of this name, which exists.
    Store(String),
    /// In so many bytes of memory and in the store of this name, which exists.
    Both(usize, String),
}

/// The most bytes of answers in memory, where nothing else is written.
const MEMORY: usize = 64 << 20;
/// The least that the memory store is made for.
const SMALLEST: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct CacheFile {
    ttl: Spanned<Value>,
    max_bytes: Option<Spanned<Value>>,
    store: Option<Spanned<String>>,
    jitter: Option<Spanned<f64>>,
    stale_while_revalidate: Option<Spanned<Value>>,
    stale_if_error: Option<Spanned<Value>>,
    early_refresh: Option<Spanned<f64>>,
    negative: Option<NegativeFile>,
    max_answer: Option<Spanned<Value>>,
    scope: Option<Spanned<String>>,
    max_temperature: Option<Spanned<f64>>,
    cache_control: Option<bool>,
    replay: Option<Spanned<Value>>,
    semantic: Option<Table<SemanticFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct NegativeFile {
    errors: Spanned<Vec<Spanned<String>>>,
    ttl: Spanned<Value>,
}

// === impl CacheFile ===

impl CacheFile {
    /// Checks the section of a model with this `timeout`.
    pub(super) fn check(
        &self,
        check: &mut Check<'_>,
        known: &Named<'_>,
        timeout: Option<&TimeLimit>,
    ) -> CacheLimits {
        let mut stale = |key: &str, written: &Option<Spanned<Value>>| {
            check.duration(key, written.as_ref(), Duration::ZERO)
        };
        let stale_while_revalidate = stale("stale_while_revalidate", &self.stale_while_revalidate);
        let stale_if_error = stale("stale_if_error", &self.stale_if_error);
        CacheLimits {
            ttl: check.timeout("ttl", Some(&self.ttl), Duration::ZERO),
            place: self.place(check, known.stores),
            jitter: check.number("jitter", self.jitter.as_ref(), 0.0..=0.5, "a number from 0 to 0.5", 0.1),
            stale_while_revalidate,
            stale_if_error,
            early_refresh: check.number(
                "early_refresh",
                self.early_refresh.as_ref(),
                0.0..=10.0,
                "a number from 0 to 10",
                0.0,
            ),
            negative: self.negative.as_ref().map(|negative| negative.check(check)),
            max_answer: self.max_answer.as_ref().map(|size| check.size("max_answer", Some(size), 1)),
            shared: self.scope.as_ref().is_some_and(|scope| is_shared(scope, check)),
            max_temperature: check.number(
                "max_temperature",
                self.max_temperature.as_ref(),
                0.0..=2.0,
                "a number from 0 to 2",
                1.0,
            ),
            cache_control: self.cache_control.unwrap_or(true),
            chunks_per_second: self.replay.as_ref().and_then(|replay| pace(replay, timeout, check)),
            semantic: self
                .semantic
                .as_ref()
                .map(|Table(semantic)| semantic.check(check, known.embedders, timeout)),
        }
    }

    fn place(&self, check: &mut Check<'_>, stores: &[String]) -> Place {
        let memory = self.max_bytes(check);
        let Some(store) = &self.store else { return Place::Memory(memory) };
        if stores.is_empty() {
            let problem = format!("there is no store `{0}`: add [stores.{0}.redis]", store.get_ref());
            check.refuse(store.span(), problem);
        } else {
            check.known("store", store, "configured", stores.iter().map(String::as_str));
        }
        let store = store.get_ref().clone();
        if self.max_bytes.is_some() { Place::Both(memory, store) } else { Place::Store(store) }
    }

    fn max_bytes(&self, check: &mut Check<'_>) -> usize {
        let bytes = check.size("max_bytes", self.max_bytes.as_ref(), MEMORY);
        if let Some(written) = self.max_bytes.as_ref().filter(|_| bytes < SMALLEST) {
            check.refuse(written.span(), format!("`max_bytes` is {bytes} bytes: it must be at least 64KiB"));
        }
        bytes
    }
}

// === impl NegativeFile ===

impl NegativeFile {
    fn check(&self, check: &mut Check<'_>) -> Negative {
        if self.errors.get_ref().is_empty() {
            check.refuse(
                self.errors.span(),
                "`errors` is empty: name at least one, such as \"invalid_input\"",
            );
        }
        let errors = self.errors.get_ref().iter().filter_map(|written| {
            let found = REPEATABLE.iter().find(|kind| kind.as_str() == written.get_ref()).copied();
            if found.is_none() {
                let allowed = REPEATABLE.iter().map(|kind| kind.as_str());
                check.refuse(written.span(), unknown("error", written.get_ref(), "allowed", allowed));
            }
            found
        });
        let errors = errors.collect();
        Negative { errors, ttl: check.timeout("ttl", Some(&self.ttl), Duration::ZERO) }
    }
}

/// The pace of replays, whose pauses the model's own `between_chunks` must allow.
fn pace(replay: &Spanned<Value>, timeout: Option<&TimeLimit>, check: &mut Check<'_>) -> Option<f64> {
    let table = replay.get_ref().as_table().filter(|table| table.len() == 1);
    let rate = table.and_then(|table| table.get("chunks_per_second"));
    #[expect(clippy::cast_precision_loss, reason = "a number within the bounds is small")]
    let rate = rate.and_then(|rate| rate.as_float().or_else(|| rate.as_integer().map(|rate| rate as f64)));
    match (replay.get_ref().as_str(), rate) {
        (Some("at_once"), _) => return None,
        (_, Some(rate)) if (1.0..=10_000.0).contains(&rate) => {
            let pause = Duration::from_secs_f64(rate.recip());
            let longest = timeout.and_then(|timeout| timeout.between_chunks);
            if let Some(longest) = longest.filter(|longest| pause >= *longest) {
                let problem = format!(
                    "`chunks_per_second` is {rate}, which is a pause of {pause:?}, and the model's `between_chunks` is \
                     {longest:?}: write more than {:.0}",
                    longest.as_secs_f64().recip()
                );
                check.refuse(replay.span(), problem);
            }
            return Some(rate);
        }
        (_, Some(rate)) => {
            check.refuse(replay.span(), format!("`chunks_per_second` is {rate}: write 1 to 10000"));
        }
        (_, None) => {
            let problem =
                "`replay` is not known in this form: write \"at_once\" or { chunks_per_second = 50 }";
            check.refuse(replay.span(), problem);
        }
    }
    None
}

fn is_shared(scope: &Spanned<String>, check: &mut Check<'_>) -> bool {
    match scope.get_ref().as_str() {
        "tenant" => false,
        "all" => true,
        other => {
            check.refuse(scope.span(), unknown("scope", other, "allowed", ["tenant", "all"]));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{accepted, refused};

    const ROUTE: &str = "[models.a.routes.r]\nprovider = \"sim\"\nmodel = \"x\"\n";

    fn cache(text: &str) -> Option<CacheLimits> {
        accepted(&format!("[models.a]\n{text}\n{ROUTE}")).models["a"].cache.clone()
    }

    fn refusal(text: &str) -> String {
        refused(&format!("[models.a]\n{text}\n{ROUTE}"))
    }

    #[test]
    fn a_size_that_the_store_would_refuse_is_refused_here() {
        assert_eq!(
            refusal("cache = { ttl = \"1s\", max_bytes = \"63KiB\" }"),
            "t.toml:2:35: `max_bytes` is 64512 bytes: it must be at least 64KiB\n    2 | cache = { ttl = \"1s\", max_bytes = \
             \"63KiB\" }\n      |                                   ^^^^^^^"
        );
    }

    #[test]
    fn there_is_none_unless_it_is_written() {
        assert_eq!(cache(""), None);
    }

    #[test]
    fn only_the_ttl_is_needed() {
        let expected = CacheLimits {
            ttl: Duration::from_secs(300),
            place: Place::Memory(64 * 1024 * 1024),
            jitter: 0.1,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            early_refresh: 0.0,
            negative: None,
            max_answer: None,
            shared: false,
            max_temperature: 1.0,
            cache_control: true,
            chunks_per_second: None,
            semantic: None,
        };
        assert_eq!(cache("cache = { ttl = \"5m\" }"), Some(expected));
        assert_eq!(
            refusal("cache = { jitter = 0.1 }"),
            "t.toml:2:9: missing key `ttl`\n    2 | cache = { jitter = 0.1 }\n      |         ^^^^^^^^^^^^^^^^"
        );
    }

    #[test]
    fn all_keys_are_read() {
        let expected = CacheLimits {
            ttl: Duration::from_millis(1),
            place: Place::Memory(65_536),
            jitter: 0.5,
            stale_while_revalidate: Duration::from_secs(30),
            stale_if_error: Duration::from_secs(60),
            early_refresh: 1.0,
            negative: Some(Negative { errors: vec![Kind::InvalidInput], ttl: Duration::from_secs(5) }),
            max_answer: Some(2048),
            shared: true,
            max_temperature: 0.0,
            cache_control: false,
            chunks_per_second: Some(80.0),
            semantic: None,
        };
        let text = "cache = { ttl = \"1ms\", max_bytes = 65536, jitter = 0.5, stale_while_revalidate = \"30s\", \
                    stale_if_error = \"1m\", cache_control = false, scope = \"all\", max_temperature = 0, early_refresh = 1, \
                    replay = { chunks_per_second = 80 }, max_answer = \"2KiB\", negative = { errors = [\"invalid_input\"], ttl = \"5s\" } }";
        assert_eq!(cache(text), Some(expected));
    }

    #[test]
    fn a_store_stands_alone_unless_there_is_memory_in_front_of_it() {
        let place = |cache: &str| {
            let store = "[stores.shared.redis]\nurl = \"redis://h\"\n";
            let text = format!("{store}[models.a]\ncache = {{ ttl = \"5m\", {cache} }}\n{ROUTE}");
            accepted(&text).models["a"].cache.clone().unwrap().place
        };
        assert_eq!(place("store = \"shared\""), Place::Store("shared".to_owned()));
        let both = place("store = \"shared\", max_bytes = \"1MiB\"");
        assert_eq!(both, Place::Both(1 << 20, "shared".to_owned()));
    }

    #[test]
    fn a_store_that_is_not_configured_is_refused() {
        assert_eq!(
            refusal("cache = { ttl = \"1s\", store = \"shared\" }"),
            "t.toml:2:31: there is no store `shared`: add [stores.shared.redis]\n    \
             2 | cache = { ttl = \"1s\", store = \"shared\" }\n      |                               ^^^^^^^^"
        );
        let text = "[stores.shared.redis]\nurl = \"redis://h\"\n[models.a]\n\
                    cache = { ttl = \"1s\", store = \"shred\" }\n";
        let said = refused(&format!("{text}{ROUTE}"));
        assert!(
            said.starts_with(
                "t.toml:4:31: unknown store `shred`, did you mean `shared`? (configured: shared)\n"
            ),
            "{said}"
        );
    }

    #[test]
    fn a_ttl_of_zero_is_refused() {
        assert_eq!(
            refusal("cache = { ttl = \"0s\" }"),
            "t.toml:2:17: `ttl` is 0s: write 1ms to 24h\n    2 | cache = { ttl = \"0s\" }\n      |                 ^^^^"
        );
    }

    #[test]
    fn an_error_that_is_not_to_be_given_again_is_refused() {
        let said = refusal("cache = { ttl = \"1s\", negative = { errors = [\"timeout\"], ttl = \"1s\" } }");
        let allowed = "(allowed: invalid_input, rate_limited, rejected, circuit_open, upstream, internal)";
        assert!(said.starts_with(&format!("t.toml:2:46: unknown error `timeout` {allowed}\n")), "{said}");
        let said = refusal("cache = { ttl = \"1s\", negative = { errors = [], ttl = \"1s\" } }");
        assert!(said.starts_with("t.toml:2:45: `errors` is empty: name at least one"), "{said}");
    }

    #[test]
    fn a_scope_that_nobody_knows_is_refused() {
        let said = refusal("cache = { ttl = \"1s\", scope = \"tenants\" }");
        assert!(
            said.starts_with(
                "t.toml:2:31: unknown scope `tenants`, did you mean `tenant`? (allowed: tenant, all)\n"
            ),
            "{said}"
        );
    }

    #[test]
    fn a_replay_is_at_once_or_has_a_pace() {
        let pace = |replay: &str| cache(&format!("cache = {{ ttl = \"5m\", replay = {replay} }}")).unwrap();
        assert_eq!(pace("\"at_once\"").chunks_per_second, None);
        assert_eq!(pace("{ chunks_per_second = 12.5 }").chunks_per_second, Some(12.5));
        let refused = |replay: &str| refusal(&format!("cache = {{ ttl = \"1s\", replay = {replay} }}"));
        let form = "`replay` is not known in this form: write \"at_once\" or { chunks_per_second = 50 }";
        for (replay, problem) in [
            ("\"paced\"", form),
            ("50", form),
            ("{ tokens_per_second = 5 }", form),
            ("{ chunks_per_second = \"5\" }", form),
            ("{ chunks_per_second = 5, burst = 1 }", form),
            ("{ chunks_per_second = 0 }", "`chunks_per_second` is 0: write 1 to 10000"),
            ("{ chunks_per_second = nan }", "`chunks_per_second` is NaN: write 1 to 10000"),
        ] {
            let said = refused(replay);
            assert!(said.starts_with(&format!("t.toml:2:32: {problem}\n")), "{said}");
        }
    }

    #[test]
    fn a_replay_may_not_pause_for_longer_than_streams_may() {
        let text = |pace: u32| {
            format!(
                "cache = {{ ttl = \"5m\", replay = {{ chunks_per_second = {pace} }} }}\n\
                 timeout = {{ limit = \"9s\", between_chunks = \"500ms\" }}"
            )
        };
        assert_eq!(cache(&text(3)).unwrap().chunks_per_second, Some(3.0));
        let said = refusal(&text(2));
        let problem = "`chunks_per_second` is 2, which is a pause of 500ms, and the model's `between_chunks` is 500ms: \
                       write more than 2";
        assert!(said.starts_with(&format!("t.toml:2:32: {problem}\n")), "{said}");
    }

    #[test]
    fn more_jitter_than_half_is_refused() {
        assert_eq!(
            refusal("cache = { ttl = \"1s\", jitter = 0.6 }"),
            "t.toml:2:32: `jitter` is 0.6: write a number from 0 to 0.5\n    \
             2 | cache = { ttl = \"1s\", jitter = 0.6 }\n      |                                ^^^"
        );
    }
}
