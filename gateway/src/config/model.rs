//! `[models.NAME]`: what clients can ask for, and how it is served.

use std::collections::BTreeMap;

use http::HeaderName;
use serde::Deserialize;
use toml::Spanned;

use super::cache::{CacheFile, CacheLimits, Place};
use super::check::Check;
use super::error::unknown;
use super::route::{Route, RouteFile, Rule, RuleFile};
use super::semantic::EmbedderOf;
use super::timeout::{TimeLimit, TimeoutFile};

/// What a fallback calls the route that was taken.
pub(crate) const PRIMARY: &str = "primary";

/// A name that clients can put into `model`. The route is what the header names, else what the first rule
/// that holds names, else drawn by weight, else the default.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Model {
    /// The name of a route that exists. Default: the only route.
    pub(crate) default_route: String,
    /// The route that spend is compared with. Default: none.
    pub(crate) baseline: Option<String>,
    /// The request header whose value names the route. Default: none.
    pub(crate) route_header: Option<HeaderName>,
    /// Whether a request that names an unknown route fails; else it takes the default one. Default: false.
    pub(crate) fail_on_unknown_route: bool,
    /// How requests that no rule decides are split; above zero in sum, or empty. Default: empty.
    pub(crate) weights: BTreeMap<String, u32>,
    /// What decides before the weights; the first that holds wins. Default: none.
    pub(crate) rules: Vec<Rule>,
    /// What is kept of the answers. Default: nothing.
    pub(crate) cache: Option<CacheLimits>,
    /// How long the whole workflow may take. Default: without limit.
    pub(crate) timeout: Option<TimeLimit>,
    /// The routes to try, in this order, when the one that was taken has failed; each exists and is named once.
    /// Default: none.
    pub(crate) fallback: Vec<String>,
    /// The routes by name; at least one.
    pub(crate) routes: BTreeMap<String, Route>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct ModelFile {
    default_route: Option<Spanned<String>>,
    baseline: Option<Spanned<String>>,
    route_header: Option<Spanned<String>>,
    on_unknown_route: Option<Spanned<String>>,
    weights: Option<Spanned<BTreeMap<Spanned<String>, Spanned<i64>>>>,
    #[serde(default)]
    rules: Vec<RuleFile>,
    cache: Option<CacheFile>,
    timeout: Option<TimeoutFile>,
    #[serde(default)]
    fallback: Vec<Spanned<String>>,
    #[serde(default)]
    routes: BTreeMap<Spanned<String>, RouteFile>,
}

/// The names that a model can refer to.
pub(super) struct Named<'a> {
    pub(super) providers: &'a [String],
    pub(super) stores: &'a [String],
    /// The providers that can have embeddings.
    pub(super) embedders: &'a [String],
}

// === impl Model ===

impl Model {
    /// The store that its answers are kept in, unless that is memory alone.
    pub(crate) fn store(&self) -> Option<&String> {
        match &self.cache.as_ref()?.place {
            Place::Memory(_) => None,
            Place::Store(store) | Place::Both(_, store) => Some(store),
        }
    }

    /// The provider whose embeddings are asked for.
    pub(crate) fn embedder(&self) -> Option<&String> {
        match &self.cache.as_ref()?.semantic.as_ref()?.embedder {
            EmbedderOf::Ngrams => None,
            EmbedderOf::Provider { provider, .. } => Some(provider),
        }
    }
}

// === impl ModelFile ===

impl ModelFile {
    /// Checks the section.
    pub(super) fn check(self, check: &mut Check<'_>, name: &Spanned<String>, known: &Named<'_>) -> Model {
        let routes: Vec<String> = self.routes.keys().map(|route| route.get_ref().clone()).collect();
        if routes.is_empty() {
            let problem = format!("model `{0}` has no route: add [models.{0}.routes.ROUTE]", name.get_ref());
            check.refuse(name.span(), problem);
        }
        let default_route = default_route(self.default_route, name, &routes, check);
        let weights = self.weights.map(|written| weights(written, &routes, check)).unwrap_or_default();
        let timeout = self.timeout.map(|timeout| timeout.check(check));
        let cache = self.cache.map(|cache| cache.check(check, known, timeout.as_ref()));
        Model {
            default_route,
            baseline: self.baseline.map(|route| known_route(route, &routes, check)),
            route_header: self.route_header.map(|header| check.header(&header)),
            fail_on_unknown_route: self.on_unknown_route.is_some_and(|policy| fails(&policy, check)),
            weights,
            rules: self.rules.into_iter().map(|rule| rule.check(check, &routes)).collect(),
            cache,
            timeout,
            fallback: fallback(self.fallback, &routes, check),
            routes: check.named("route", self.routes, |check, _, route| route.check(check, known.providers)),
        }
    }
}

fn default_route(
    written: Option<Spanned<String>>,
    model: &Spanned<String>,
    routes: &[String],
    check: &mut Check<'_>,
) -> String {
    if let Some(route) = written {
        return known_route(route, routes, check);
    }
    if routes.len() > 1 {
        let problem = format!(
            "model `{}` has {} routes and no default_route: name one of them (routes: {})",
            model.get_ref(),
            routes.len(),
            routes.join(", ")
        );
        check.refuse(model.span(), problem);
    }
    routes.first().cloned().unwrap_or_default()
}

fn known_route(written: Spanned<String>, routes: &[String], check: &mut Check<'_>) -> String {
    // That there is no route at all has been said.
    if !routes.is_empty() {
        check.known("route", &written, "routes", routes.iter().map(String::as_str));
    }
    written.into_inner()
}

fn fallback(written: Vec<Spanned<String>>, routes: &[String], check: &mut Check<'_>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for route in written {
        let name = route.get_ref();
        if found.contains(name) {
            check.refuse(route.span(), format!("`{name}` is in `fallback` already: name a route once"));
        }
        if name == PRIMARY {
            let problem = format!(
                "`{PRIMARY}` cannot be in `fallback`: it stands for the route that was taken; give the route another name"
            );
            check.refuse(route.span(), problem);
        }
        found.push(known_route(route, routes, check));
    }
    found
}

fn fails(policy: &Spanned<String>, check: &mut Check<'_>) -> bool {
    match policy.get_ref().as_str() {
        "default" => false,
        "error" => true,
        other => {
            check.refuse(policy.span(), unknown("policy", other, "allowed", ["default", "error"]));
            false
        }
    }
}

fn weights(
    written: Spanned<BTreeMap<Spanned<String>, Spanned<i64>>>,
    routes: &[String],
    check: &mut Check<'_>,
) -> BTreeMap<String, u32> {
    let at = written.span();
    let weights: BTreeMap<String, u32> = written
        .into_inner()
        .into_iter()
        .map(|(route, weight)| {
            let weight =
                check.whole(&format!("weights.{}", route.get_ref()), Some(&weight), 0..=1_000_000, 1);
            (known_route(route, routes, check), weight)
        })
        .collect();
    if weights.values().all(|weight| *weight == 0) {
        check.refuse(at, "the weights sum to 0: give at least one route a weight above 0");
    }
    weights
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::fixture::{accepted, parse, refused};

    const ROUTES: &str = "\
        [models.a.routes]\n\
        cheap = { provider = \"sim\", model = \"s\" }\n\
        premium = { provider = \"sim\", model = \"l\" }\n";

    fn model(text: &str) -> Model {
        accepted(&format!("[models.a]\n{text}\n{ROUTES}")).models["a"].clone()
    }

    fn refusal(text: &str) -> String {
        refused(&format!("[models.a]\n{text}\n{ROUTES}"))
    }

    #[test]
    fn the_only_route_is_the_default_and_nothing_else_is_set() {
        let config = accepted("");
        let found = &config.models["m"];
        assert_eq!(found.default_route, "r");
        assert_eq!(
            (&found.baseline, &found.route_header, &found.cache, &found.timeout),
            (&None, &None, &None, &None)
        );
        assert_eq!(found.fallback, [""; 0]);
        assert!(!found.fail_on_unknown_route && found.weights.is_empty() && found.rules.is_empty());
    }

    #[test]
    fn all_keys_are_read() {
        let found = model(
            "default_route = \"cheap\"\nbaseline = \"premium\"\nroute_header = \"X-Route\"\n\
             on_unknown_route = \"error\"\nweights = { cheap = 9, premium = 0 }\n\
             rules = [{ route = \"premium\", when = { prompt_chars_at_least = 8 } }]\n\
             cache = { ttl = \"5m\" }\ntimeout = { limit = \"60s\" }\nfallback = [\"premium\", \"cheap\"]",
        );
        assert_eq!(found.default_route, "cheap");
        assert_eq!(found.baseline.as_deref(), Some("premium"));
        assert_eq!(found.route_header, Some(HeaderName::from_static("x-route")));
        assert!(found.fail_on_unknown_route);
        assert_eq!(found.weights, BTreeMap::from([("cheap".to_owned(), 9), ("premium".to_owned(), 0)]));
        assert_eq!(found.rules.len(), 1);
        assert_eq!(found.fallback, ["premium", "cheap"], "in the order as written");
        assert_eq!(found.cache.unwrap().ttl, Duration::from_secs(300));
        assert_eq!(found.timeout.unwrap().limit, Duration::from_secs(60));
        assert_eq!(found.routes.into_keys().collect::<Vec<_>>(), ["cheap", "premium"]);
    }

    #[test]
    fn several_routes_need_a_default() {
        assert_eq!(
            refusal(""),
            "t.toml:1:9: model `a` has 2 routes and no default_route: name one of them (routes: cheap, premium)\n    \
             1 | [models.a]\n      |         ^"
        );
    }

    #[test]
    fn a_default_route_that_does_not_exist_is_refused() {
        assert_eq!(
            refusal("default_route = \"chaep\""),
            "t.toml:2:17: unknown route `chaep`, did you mean `cheap`? (routes: cheap, premium)\n    \
             2 | default_route = \"chaep\"\n      |                 ^^^^^^^"
        );
    }

    #[test]
    fn a_baseline_that_does_not_exist_is_refused() {
        assert_eq!(
            refusal("default_route = \"cheap\"\nbaseline = \"gold\""),
            "t.toml:3:12: unknown route `gold` (routes: cheap, premium)\n    \
             3 | baseline = \"gold\"\n      |            ^^^^^^"
        );
    }

    #[test]
    fn a_fallback_to_a_route_that_does_not_exist_is_refused() {
        assert_eq!(
            refusal("default_route = \"cheap\"\nfallback = [\"cheap\", \"premum\"]"),
            "t.toml:3:22: unknown route `premum`, did you mean `premium`? (routes: cheap, premium)\n    \
             3 | fallback = [\"cheap\", \"premum\"]\n      |                      ^^^^^^^^"
        );
        assert!(refusal("default_route = \"cheap\"\nfallback = \"premium\"").starts_with("t.toml:3:12: "));
    }

    #[test]
    fn a_fallback_that_is_named_twice_is_refused() {
        assert_eq!(
            refusal("default_route = \"cheap\"\nfallback = [\"premium\", \"premium\"]"),
            "t.toml:3:24: `premium` is in `fallback` already: name a route once\n    \
             3 | fallback = [\"premium\", \"premium\"]\n      |                        ^^^^^^^^^"
        );
    }

    #[test]
    fn a_fallback_with_the_name_of_the_route_that_was_taken_is_refused() {
        let routes = "default_route = \"cheap\"\nfallback = [\"primary\"]\n\
                      [models.a.routes.primary]\nprovider = \"sim\"\nmodel = \"s\"\n";
        let shown = refused(&format!(
            "[models.a]\n{routes}[models.a.routes.cheap]\nprovider = \"sim\"\nmodel = \"s\"\n"
        ));
        assert!(shown.starts_with("t.toml:3:13: `primary` cannot be in `fallback`"), "{shown}");
    }

    #[test]
    fn a_weight_for_a_route_that_does_not_exist_is_refused() {
        assert_eq!(
            refusal("default_route = \"cheap\"\nweights = { cheep = 1 }"),
            "t.toml:3:13: unknown route `cheep`, did you mean `cheap`? (routes: cheap, premium)\n    \
             3 | weights = { cheep = 1 }\n      |             ^^^^^"
        );
    }

    #[test]
    fn weights_that_split_nothing_are_refused() {
        assert_eq!(
            refusal("default_route = \"cheap\"\nweights = { cheap = 0 }"),
            "t.toml:3:11: the weights sum to 0: give at least one route a weight above 0\n    \
             3 | weights = { cheap = 0 }\n      |           ^^^^^^^^^^^^^"
        );
        assert!(refusal("default_route = \"cheap\"\nweights = {}").contains("3:11: the weights sum to 0"));
        assert_eq!(
            refusal("default_route = \"cheap\"\nweights = { cheap = -1 }"),
            "t.toml:3:21: `weights.cheap` is -1: write 0 to 1000000\n    \
             3 | weights = { cheap = -1 }\n      |                     ^^"
        );
        assert!(
            refusal("weights = { cheap = 0.5 }")
                .contains("expected a whole number, found a number with a fraction")
        );
    }

    #[test]
    fn a_policy_that_does_not_exist_is_refused() {
        assert_eq!(
            refusal("default_route = \"cheap\"\non_unknown_route = \"defualt\""),
            "t.toml:3:20: unknown policy `defualt`, did you mean `default`? (allowed: default, error)\n    \
             3 | on_unknown_route = \"defualt\"\n      |                    ^^^^^^^^^"
        );
    }

    #[test]
    fn a_model_without_a_route_is_refused_and_nothing_more_is_said_of_its_routes() {
        assert_eq!(
            refused("[models.a]\ndefault_route = \"r\"\nweights = { r = 1 }\n"),
            "t.toml:1:9: model `a` has no route: add [models.a.routes.ROUTE]\n    1 | [models.a]\n      |         ^"
        );
    }

    #[test]
    fn a_file_without_a_model_is_refused() {
        assert_eq!(
            parse("[providers.sim.simulated]\n").unwrap_err().to_string(),
            "t.toml: there is no model: add at least one [models.NAME.routes.ROUTE]"
        );
        assert_eq!(
            parse("").unwrap_err().to_string(),
            "t.toml: there is no model: add at least one [models.NAME.routes.ROUTE]"
        );
    }
}
