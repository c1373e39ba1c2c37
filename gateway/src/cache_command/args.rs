//! The command line of `throughline cache`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use throughline::Key;

use crate::config::bytes;

#[derive(Args, Debug)]
#[command(after_help = "\
Stores are those of the configuration: Redis (one server, Sentinel, Cluster) and disk. If the configuration has an [admin] \
table and its gateway runs on this machine, the gateway does what is asked: then what it holds in memory is seen and removed as \
well, as `memory:MODEL`, and a disk store beside it. --gateway asks another one. Memory is each gateway's own: with several \
replicas, ask each. Without a gateway, stores are reached directly; one that runs has its disk store's file to itself.

Examples:
  throughline cache stats --json | jq '.stores[].models'
  throughline cache purge --tenant acme --dry-run
  throughline cache purge --model auto --store shared
  throughline cache get 3f9c…
  throughline cache flush --store shared --yes
  throughline cache purge --model auto --gateway http://127.0.0.1:9465 --token file:admin.token
  throughline cache simulate trace.jsonl.gz
  throughline cache learn pairs.jsonl --max-error 2%

Exits with 0 if all was done, with 1 if a store or the gateway failed, and with 2 if the configuration or the command line is not good.")]
pub(crate) struct Cache {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say how many answers the stores hold, of which models and tenants
    Stats(Stats),
    /// Show what a store holds under a key
    Get(Get),
    /// Remove answers by key, tenant or model
    Purge(Purge),
    /// Remove everything that a store holds of ours
    Flush(Flush),
    /// Say what a cache would have done for the requests of a trace, by size, ttl and policy
    Simulate(Simulate),
    /// Say from which similarity on a semantic cache may answer, by labelled examples
    Learn(Learn),
}

/// Which stores.
#[derive(Args, Debug)]
pub(crate) struct Where {
    /// The configuration [default: throughline.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Only this store, with the memory in front of it, or `memory:MODEL`; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) store: Vec<String>,
    /// Have it done by the running gateway whose `[admin]` port is there [default: the configuration's, if it runs]
    #[arg(long, value_name = "URL")]
    pub(crate) gateway: Option<String>,
    /// The gateway's token, as env:NAME or file:PATH [default: env:THROUGHLINE_ADMIN_TOKEN, else the configuration's first]
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) token: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Keys hold marks of models and tenants, not their names. Models of the configuration are named by it; name tenants that \
you want to see with --tenant. All others are shown by their mark.

Stores that are scanned are slowed down a little: SCAN is used, never KEYS.")]
pub(crate) struct Stats {
    #[command(flatten)]
    pub(crate) stores: Where,
    /// A tenant to be named in the result; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Get {
    /// The key, or the beginning of one: at least 8 hexadecimal digits
    #[arg(value_name = "KEY", value_parser = digits)]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) stores: Where,
    /// Print the stored answer, and nothing else; byte for byte unless to a terminal
    #[arg(long, conflicts_with = "json")]
    pub(crate) value: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
An answer is removed if all that is given applies to it: --tenant acme --model auto is acme's part of auto. \
Gateways that hold answers in memory in front of Redis drop them at once, if their user may `client tracking`. Memory without \
a store, and in front of a disk store, is purged by its gateway only: see --gateway.

A model that is not configured, and of which nothing fits in the stores that were asked, is an error (2). Tenants are known by their answers only: where \
nothing matches, that is said, and all was done (0).")]
pub(crate) struct Purge {
    #[command(flatten)]
    pub(crate) stores: Where,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Which answers. All that is given must apply.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct Which {
    /// The answer under this key; may be repeated
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Vec<Key>,
    /// Answers under keys that begin with these hexadecimal digits
    #[arg(long, value_name = "DIGITS", value_parser = digits)]
    pub(crate) prefix: Option<String>,
    /// Answers of this tenant, by name or by the mark that `stats` shows; an empty name is those of nobody
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// Answers of this model, as clients name it
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
All stores of the configuration are flushed unless --store names some. Also removed is what other versions of \
throughline have stored under the same key prefix, which this one cannot read.")]
pub(crate) struct Flush {
    #[command(flatten)]
    pub(crate) stores: Where,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
TRACE is JSONL, plain or gzip, a request a line:
  {\"key\": …, \"at_ms\": 0, \"input_tokens\": 812, \"output_tokens\": 95}
`key` is what makes two requests the same: a text, or the whole request as JSON. `at_ms` is when it came. Also read: \
`tenant`, which never shares with another; `bytes`, the size of the answer (otherwise 4 bytes a token and 300); `model`, \
for its price; `answer`, to tell right hits from wrong ones. Lines of public traces are read as they are: \
{\"timestamp\", \"input_length\", \"output_length\", \"hash_ids\"} (Mooncake), [\"TIME\", INPUT, OUTPUT] (Azure), \
[\"QUESTION\", \"ANSWER\"].

Tokens and money count as saved only by hits that are known to be right: the same request and, where the trace says it, \
the same answer. A trace without content, as Azure's, gives an upper bound of the hits and no savings.

Examples:
  throughline cache simulate trace.jsonl.gz
  throughline cache simulate trace.jsonl --size 16MiB,64MiB --ttl 5m,1h --model gpt-4o-mini
  throughline cache simulate trace.jsonl --json | jq '.rows[] | select(.hit_rate > 0.1)'")]
pub(crate) struct Simulate {
    /// The requests
    #[arg(value_name = "TRACE")]
    pub(crate) trace: PathBuf,
    /// Sizes of the cache, at least 64KiB
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = size,
          default_values = ["1MiB", "4MiB", "16MiB", "64MiB"])]
    pub(crate) size: Vec<u64>,
    /// How long an answer may be given, or `none` for as long as it is kept
    #[arg(long, value_name = "TIME", value_delimiter = ',', value_parser = ttl,
          default_values = ["1m", "10m", "1h", "none"])]
    pub(crate) ttl: Vec<Ttl>,
    /// Who leaves when the cache is full; the table also has a cache that nobody leaves
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Policy::Memory, Policy::Lru])]
    pub(crate) policy: Vec<Policy>,
    /// Requests a second, for a trace that does not say when they came
    #[arg(long, value_name = "NUMBER", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// The model whose price counts where the trace names none
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
PAIRS is JSONL, plain or gzip, of one of two forms.

Pairs, two prompts and whether the answer to the one serves the other as well:
  {\"a\": \"how do I reset my password\", \"b\": \"I forgot my password\", \"same\": true}
Every pair is one example. Take them from your own traffic, and mostly pairs that are near each other: what is far apart \
shows nothing.

Questions, each with the answer that it should get, or with a name for that:
  {\"prompt\": \"how do I reset my password\", \"answer\": \"reset_password\"}   or   [\"QUESTION\", \"ANSWER\"]
They come in an order drawn by chance, the same each time. Every question meets those before it, as in a running \
cache: the nearest that the rules allow has the right answer or a wrong one. This is the harder and truer test, for the \
more questions are known, the more there are to be mistaken for.

A threshold is taken only if at most --max-error of the answers that it gives are wrong, with --confidence: by an upper bound \
(Clopper and Pearson), for thresholds that are tested one after the other, from strict to loose, until the first that \
fails. Each line of the table is a bound for that line alone. That takes examples: to show 1% with 95% confidence, 299 answers without an error, or 473 with one. The bound is \
one for questions like the examples, and for the embedder that they were learned with.

Examples:
  throughline cache learn pairs.jsonl --max-error 2%
  throughline cache learn questions.jsonl.gz --json | jq '.rows[] | select(.bound < 0.05)'
  throughline cache learn pairs.jsonl --config throughline.toml --provider openai --model text-embedding-3-small

Exits with 0 if there is a threshold, and with 2 if the examples do not show that there is one.")]
pub(crate) struct Learn {
    /// The labelled examples
    #[arg(value_name = "PAIRS")]
    pub(crate) pairs: PathBuf,
    /// The largest share of wrong answers in all that are given, such as 2% or 0.02
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "1%")]
    pub(crate) max_error: f64,
    /// How sure the bound is to hold
    #[arg(long, value_name = "SHARE", value_parser = confidence, default_value = "95%")]
    pub(crate) confidence: f64,
    /// Ask a provider of the configuration for embeddings, in place of the built-in embedder
    #[arg(long, value_name = "NAME", requires = "model")]
    pub(crate) provider: Option<String>,
    /// The provider's model
    #[arg(long, value_name = "NAME", requires = "provider")]
    pub(crate) model: Option<String>,
    /// The configuration with the provider [default: throughline.toml]
    #[arg(long, value_name = "FILE", requires = "provider")]
    pub(crate) config: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Who leaves when a cache is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// What a gateway's memory does (S3-FIFO)
    Memory,
    /// Who was not asked for longest
    Lru,
}

/// How long an answer may be given; `None` for as long as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ttl(pub(crate) Option<Duration>);

/// The fewest digits that a key is named by.
const FEWEST: usize = 8;

pub(crate) fn digits(text: &str) -> Result<String, String> {
    if !(FEWEST..=64).contains(&text.len()) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(format!("write {FEWEST} to 64 hexadecimal digits of a key"));
    }
    Ok(text.to_ascii_lowercase())
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = bytes(text).ok_or("write bytes, or a whole number and KiB, MiB or GiB, such as 64MiB")?;
    if bytes < 64 << 10 {
        return Err("it must be at least 64KiB".to_owned());
    }
    Ok(bytes)
}

fn ttl(text: &str) -> Result<Ttl, String> {
    if text == "none" {
        return Ok(Ttl(None));
    }
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("it must be more than 0s".to_owned()),
        Ok(ttl) => Ok(Ttl(Some(ttl))),
        Err(error) => Err(format!("{error}: use a time such as 30s, 10m or 1h, or `none`")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| (0.001..=1e6).contains(rate));
    rate.ok_or_else(|| "write a number of requests a second, from 0.001 to 1000000".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share = part_of_one(text).filter(|share| (0.0001..=0.5).contains(share));
    share.ok_or_else(|| "write a share from 0.01% to 50%, such as 2% or 0.02".to_owned())
}

fn confidence(text: &str) -> Result<f64, String> {
    let share = part_of_one(text).filter(|share| (0.5..=0.9999).contains(share));
    share.ok_or_else(|| "write a share from 50% to 99.99%, such as 95% or 0.95".to_owned())
}

fn part_of_one(text: &str) -> Option<f64> {
    match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse().ok().map(|percent: f64| percent / 100.0),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_written_either_way() {
        assert_eq!((share("2%"), share("0.02")), (Ok(0.02), Ok(0.02)));
        assert_eq!(confidence("99 %"), Ok(0.99));
        for wrong in ["0", "60%", "-1%", "NaN", "much"] {
            assert!(share(wrong).unwrap_err().ends_with("such as 2% or 0.02"), "{wrong}");
        }
        for wrong in ["1", "100%", "0.4", ""] {
            assert!(confidence(wrong).unwrap_err().ends_with("such as 95% or 0.95"), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_times_are_refused_with_what_is_allowed() {
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("1024"), Err("it must be at least 64KiB".to_owned()));
        assert!(size("64MB").unwrap_err().ends_with("such as 64MiB"));
        assert_eq!(ttl("none"), Ok(Ttl(None)));
        assert_eq!(ttl("0s"), Err("it must be more than 0s".to_owned()));
        assert!(ttl("soon").unwrap_err().ends_with("or `none`"));
        assert!(rate("0").is_err() && rate("NaN").is_err());
        assert_eq!(rate("2.5"), Ok(2.5));
        assert_eq!(digits("3F9C0a1b"), Ok("3f9c0a1b".to_owned()));
        assert!(digits("3f9c").is_err() && digits("zzzzzzzz").is_err());
    }
}
