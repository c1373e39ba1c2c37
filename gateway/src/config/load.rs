//! From a file to a [`Config`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::admin::{Admin, AdminFile};
use super::check::Check;
use super::document;
use super::error::ConfigErrors;
use super::log::{Log, LogFile};
use super::marks::Marks;
use super::maturity::MaturityFile;
use super::model::{Model, ModelFile, Named};
use super::price::{self, Price, PriceFile};
use super::provider::{Provider, ProviderFile};
use super::server::{Server, ServerFile, Telemetry, TelemetryFile};
use super::store::{Store, StoreFile};
use super::trace_context::{Kind, TraceContext, TraceContextFile};

/// Everything that the configuration file says, defaults filled in.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where and within which bounds requests are taken.
    pub(crate) server: Server,
    /// What the telemetry is called and where it is served.
    pub(crate) telemetry: Telemetry,
    /// Where operators reach its stores. Default: nowhere.
    pub(crate) admin: Option<Admin>,
    /// How traces come in and go out.
    pub(crate) trace_context: TraceContext,
    /// What is logged, how it looks, and where it goes.
    pub(crate) log: Log,
    /// Where the components are whose figures are shown. Default: nowhere.
    pub(crate) maturity: Option<PathBuf>,
    /// The providers by name.
    pub(crate) providers: BTreeMap<String, Provider>,
    /// Prices that replace or add to the built-in ones, by the model's name at its provider.
    pub(crate) prices: BTreeMap<String, Price>,
    /// The stores that models can keep answers in, by name.
    pub(crate) stores: BTreeMap<String, Store>,
    /// The models that clients can ask for, by name; at least one.
    pub(crate) models: BTreeMap<String, Model>,
    /// What tells its parts from those of another configuration.
    pub(crate) marks: Marks,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct ConfigFile {
    #[serde(default)]
    server: ServerFile,
    #[serde(default)]
    telemetry: TelemetryFile,
    admin: Option<AdminFile>,
    #[serde(default)]
    trace_context: TraceContextFile,
    #[serde(default)]
    log: LogFile,
    #[serde(default)]
    maturity: MaturityFile,
    #[serde(default)]
    providers: BTreeMap<Spanned<String>, ProviderFile>,
    #[serde(default)]
    prices: BTreeMap<Spanned<String>, PriceFile>,
    #[serde(default)]
    stores: BTreeMap<Spanned<String>, StoreFile>,
    #[serde(default)]
    models: BTreeMap<Spanned<String>, ModelFile>,
}

// === impl Config ===

impl Config {
    /// Reads a file. Variables that secrets refer to are asked from `env`; files that they refer to are
    /// looked for beside the configuration file.
    ///
    /// # Errors
    /// All that is wrong with the file.
    pub(crate) fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        document::load(path, env, ConfigFile::check)
    }

    /// Reads a text. `name` stands for it in errors, and is the path that files with secrets are looked for
    /// beside.
    ///
    /// # Errors
    /// All that is wrong with the text.
    pub(crate) fn parse(
        text: &str,
        name: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        document::parse(text, name, env, ConfigFile::check)
    }
}

// === impl ConfigFile ===

impl ConfigFile {
    fn check(self, check: &mut Check<'_>) -> Config {
        if self.models.is_empty() {
            check.refuse_all("there is no model: add at least one [models.NAME.routes.ROUTE]");
        }
        let (server, telemetry) = (self.server.check(check), self.telemetry.check(check));
        let admin = self.admin.map(|file| file.check(check));
        let mut listens =
            vec![("server.listen", server.listen), ("telemetry.metrics_listen", telemetry.metrics_listen)];
        listens.extend(admin.as_ref().map(|admin| ("admin.listen", admin.listen)));
        for (n, (one, address)) in listens.iter().enumerate() {
            for (other, _) in listens[n + 1..].iter().filter(|(_, same)| same == address && same.port() != 0)
            {
                check.refuse_all(format!("{one} and {other} are both {address}: give them different ports"));
            }
        }
        let names: Vec<String> = self.providers.keys().map(|name| name.get_ref().clone()).collect();
        let providers = check.named("provider", self.providers, |check, name, file| file.check(check, name));
        let kinds: Vec<_> = providers.iter().map(|(name, found)| (name.clone(), Kind::from(found))).collect();
        let embedders = providers.iter().filter(|(_, provider)| matches!(provider, Provider::OpenAi(_)));
        let embedders: Vec<String> = embedders.map(|(name, _)| name.clone()).collect();
        let stores: Vec<String> = self.stores.keys().map(|name| name.get_ref().clone()).collect();
        Config {
            server,
            telemetry,
            admin,
            trace_context: self.trace_context.check(check, &kinds),
            log: self.log.check(check),
            maturity: self.maturity.check(check),
            providers,
            prices: price::check(self.prices, check),
            stores: check.named("store", self.stores, |check, name, file| file.check(check, name)),
            models: check.named("model", self.models, |check, name, file| {
                file.check(check, name, &Named { providers: &names, stores: &stores, embedders: &embedders })
            }),
            marks: std::mem::take(&mut check.marks),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{SMALLEST, accepted, parse, refused};

    const GUIDE: &str = include_str!("../../../docs/guides/configuration.md");

    /// What is said about a file of these bytes, with the directory's name taken out.
    fn refused_file(bytes: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        std::fs::write(&path, bytes).unwrap();
        said_without_dir(&path, dir.path())
    }

    fn said_without_dir(path: &Path, dir: &Path) -> String {
        let errors = Config::load(path, &|_| None).unwrap_err().to_string();
        errors.replace(&format!("{}/", dir.display()), "").replace(&dir.display().to_string(), "DIR")
    }

    #[test]
    fn every_problem_is_found_in_one_pass() {
        let shown = refused(
            "[server]\nheader_timeout = \"0s\"\nmax_body = 0\n\n[models.a]\ndefault_route = \"x\"\n\
             [models.a.routes.r]\nprovider = \"opnai\"\nmodel = \"x\"\n[providers.openai.openai]\n\
             base_url = \"https://h/v1\"\napi_key = \"env:NO_KEY\"\n",
        );
        let expected = "\
t.toml:2:18: `header_timeout` is 0s: write 1ms to 24h
    2 | header_timeout = \"0s\"
      |                  ^^^^
t.toml:3:12: `max_body` is 0: write 1B to 1024GiB
    3 | max_body = 0
      |            ^
t.toml:6:17: unknown route `x`, did you mean `r`? (routes: r)
    6 | default_route = \"x\"
      |                 ^^^
t.toml:8:12: unknown provider `opnai`, did you mean `openai`? (configured: openai, sim)
    8 | provider = \"opnai\"
      |            ^^^^^^^
t.toml:12:11: the environment variable `NO_KEY` of `api_key` is not set
   12 | api_key = ************
      |           ^^^^^^^^^^^^";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_file_that_is_not_there_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            said_without_dir(&dir.path().join("t.toml"), dir.path()),
            "t.toml: cannot read the configuration: there is no such file"
        );
    }

    #[test]
    fn a_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            said_without_dir(dir.path(), dir.path()),
            "DIR: cannot read the configuration: it is a directory, not a file"
        );
    }

    #[test]
    fn a_file_that_is_far_too_long_is_refused() {
        assert_eq!(
            refused_file(&[b'#'; 1024 * 1024 + 1]),
            "t.toml: cannot read the configuration: it is longer than 1048576 bytes"
        );
    }

    #[test]
    fn a_file_that_is_not_utf_8_is_refused_where_it_goes_wrong() {
        assert_eq!(
            refused_file(b"[server]\n# \xc3\xa9 \xff\n"),
            "t.toml:2:5: byte 0xff is not utf-8: save the file as utf-8\n    2 | # é \u{fffd}\n      |     ^"
        );
        let shown = refused_file(b"api_key = \"sk-live-\xff\"\n");
        assert!(shown.starts_with("t.toml:1:20: byte 0xff") && !shown.contains("sk-live"), "{shown}");
    }

    #[test]
    fn a_byte_order_mark_and_windows_line_ends_are_taken() {
        let text = format!("\u{feff}{SMALLEST}").replace('\n', "\r\n");
        assert!(parse(&text).is_ok());
        let shown = parse("\u{feff}[server]\r\nx = 1\r\n").unwrap_err().to_string();
        assert!(shown.starts_with("t.toml:2:1: unknown key `x`"), "{shown}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let config = accepted("[providers.p.openai]\nbase_url = \"https://h\"\napi_key = \"env:KEY\"\n");
        assert!(!format!("{config:?}").contains("sk-live"));
    }

    #[test]
    fn the_examples_are_accepted() {
        for (name, text) in [
            ("simulated.toml", include_str!("../../examples/simulated.toml")),
            ("openai.toml", include_str!("../../examples/openai.toml")),
            ("local.toml", include_str!("../../examples/local.toml")),
        ] {
            let env = |name: &str| (name == "OPENAI_API_KEY").then(|| "sk-test".to_owned());
            let config = Config::parse(text, name, &env).unwrap_or_else(|errors| panic!("{errors}"));
            for model in config.models.values() {
                assert!(model.routes.contains_key(&model.default_route), "{name}");
            }
        }
    }

    /// The fenced blocks of a language, each with what stands before it.
    fn blocks<'a>(text: &'a str, language: &str) -> Vec<(&'a str, &'a str)> {
        let fence = format!("```{language}\n");
        let starts = text.match_indices(&fence).map(|(start, _)| start);
        starts
            .map(|start| {
                let block = &text[start + fence.len()..];
                (&text[..start], &block[..block.find("```").expect("the block ends")])
            })
            .collect()
    }

    #[test]
    fn the_guide_shows_what_is_really_said() {
        let outputs = blocks(GUIDE, "text");
        assert_eq!(outputs.len(), 3);
        for (before, output) in outputs {
            let (_, wrong) = *blocks(before, "toml").last().expect("the file stands before the output");
            let errors = Config::parse(wrong, "throughline.toml", &|_| None).unwrap_err();
            assert_eq!(errors.to_string(), output.trim_end());
        }
    }

    #[test]
    fn the_guides_example_of_what_guards_a_route_is_accepted() {
        let example =
            blocks(GUIDE, "toml").into_iter().find(|(_, text)| text.contains("fallback =")).unwrap().1;
        let config = Config::parse(example, "t.toml", &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
        let cheap = &config.models["auto"].routes["cheap"];
        assert!(cheap.retry.is_some() && cheap.circuit_breaker.is_some() && cheap.hedge.is_some());
    }

    #[test]
    fn the_guide_begins_with_a_file_that_works() {
        let (_, first) = blocks(GUIDE, "toml")[0];
        Config::parse(first, "throughline.toml", &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    }

    #[test]
    fn the_guide_knows_every_key() {
        for table in [
            "server",
            "telemetry",
            "admin",
            "trace_context",
            "log",
            "maturity",
            "providers.p.openai",
            "providers.p.simulated",
            "providers.p.simulated.faults",
            "providers.p.simulated.latency",
            "providers.p.simulated.completion_tokens",
            "prices.p",
            "stores.s",
            "stores.s.redis",
            "stores.s.disk",
            "models.m",
            "models.m.cache",
            "models.m.cache.semantic",
            "models.m.cache.semantic.embedder",
            "models.m.timeout",
            "models.m.routes.r",
            "models.m.routes.r.retry",
            "models.m.routes.r.circuit_breaker",
            "models.m.routes.r.hedge",
        ] {
            let said = parse(&format!("{table}.zzz = 1")).unwrap_err().to_string();
            let (_, rest) = said.split_once("(allowed: ").unwrap();
            for key in rest.split_once(')').unwrap().0.split(", ") {
                assert!(GUIDE.contains(&format!("`{key}`")), "the guide is silent on {key} of {table}");
            }
        }
    }
}
