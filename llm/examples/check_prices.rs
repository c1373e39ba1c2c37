//! Are the built-in prices what their source says?
//!
//! Compares every row of the built-in table, and every dated snapshot that a row stands for, with the price
//! list of LiteLLM, which is not part of this repository:
//! `cargo run -p throughline-llm --example check_prices -- model_prices_and_context_window.json`.
//! Exit code 0: all agree; 1: some do not, and are listed; 2: the list cannot be read.

use std::collections::HashMap;
use std::process::ExitCode;

use serde_json::Value;
use throughline_llm::openai::Usage;
use throughline_llm::{Price, PriceTable, rows};

const CACHE_WRITE: &str = "cache_creation_input_token_cost";
const CACHE_WRITE_1H: &str = "cache_creation_input_token_cost_above_1hr";

type List = HashMap<String, Value>;

/// What LiteLLM puts before the names of each provider's models, where our names have nothing.
const PREFIXES: [(&str, &str); 6] = [
    ("openai", ""),
    ("anthropic", ""),
    ("google", "gemini/"),
    ("mistral", "mistral/"),
    ("deepseek", "deepseek/"),
    ("xai", "xai/"),
];

#[expect(clippy::print_stdout, reason = "the list of differences is what this program is for")]
fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: check_prices <LiteLLM's price list, a JSON file>");
        return ExitCode::from(2);
    };
    let read = std::fs::read(&path).map_err(|error| error.to_string());
    let list: List =
        match read.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string())) {
            Ok(list) => list,
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                return ExitCode::from(2);
            }
        };
    let (compared, differences) = compare(&list);
    for difference in &differences {
        println!("{difference}");
    }
    println!("{compared} prices compared, {} differences", differences.len());
    if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn compare(list: &List) -> (usize, Vec<String>) {
    let (mut compared, mut differences) = (0, Vec::new());
    let table = PriceTable::builtin();
    for row in rows() {
        let Some((_, prefix)) = PREFIXES.iter().find(|(provider, _)| *provider == row.provider) else {
            differences.push(format!("{}: no prefix is known for provider {}", row.model, row.provider));
            continue;
        };
        let own = format!("{prefix}{}", row.model);
        if !list.contains_key(&own) {
            differences.push(format!("{own}: not in the list"));
        }
        // A dated name without a row of its own gets the price of the row without the date.
        let dated = format!("{own}-");
        let mut names: Vec<&String> =
            list.keys().filter(|name| **name == own || name.starts_with(&dated)).collect();
        names.sort();
        for name in names {
            let model = &name[prefix.len()..];
            let has_a_row = model != row.model && rows().any(|other| other.model == model);
            let Some(price) = table.price(model).filter(|price| **price == row.price && !has_a_row) else {
                continue;
            };
            compared += 1;
            differences.extend(differing(price, &list[name]).map(|what| format!("{name}: {what}")));
        }
    }
    (compared, differences)
}

/// What differs between a price and LiteLLM's entry.
fn differing(price: &Price, entry: &Value) -> impl Iterator<Item = String> {
    let listed = |field: &str| entry[field].as_f64();
    let amounts = [
        ("input", Some(price.input), "input_cost_per_token"),
        ("cached input", price.cached_input, "cache_read_input_token_cost"),
        ("cache write", price.cache_write, CACHE_WRITE),
        ("cache write for an hour", entry[CACHE_WRITE_1H].as_f64().and(for_an_hour(price)), CACHE_WRITE_1H),
        ("output", Some(price.output), "output_cost_per_token"),
    ];
    let amounts = amounts.map(|(name, ours, field)| {
        // No model gives away what it reads: 0 is that nothing is charged beside the input.
        let theirs = listed(field).filter(|usd| field != CACHE_WRITE || *usd > 0.0).map(|usd| usd * 1e6);
        (!same(ours, theirs)).then(|| format!("{name} is {}, the list says {}", shown(ours), shown(theirs)))
    });
    let (ours, theirs) = (price.prompt_limit, prompt_limit(entry));
    let limit = (ours != theirs).then(|| {
        let tokens = |limit: Option<u64>| limit.map_or("none".to_owned(), |tokens| tokens.to_string());
        format!("prompt limit is {}, the list says {}", tokens(ours), tokens(theirs))
    });
    let tiers =
        entry.get("tiered_pricing").map(|_| "the list has tiers, which the table cannot hold".to_owned());
    amounts.into_iter().chain([limit, tiers]).flatten()
}

/// What a million tokens cost that are put into the cache for an hour.
fn for_an_hour(price: &Price) -> Option<f64> {
    let mut usage = Usage::new(1_000, 0);
    (usage.cache_write_tokens, usage.cache_write_1h_tokens) = (1_000, 1_000);
    price.cost(&usage).map(|usd| usd * 1e3)
}

fn same(ours: Option<f64>, theirs: Option<f64>) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => (ours - theirs).abs() < 1e-9,
        (ours, theirs) => ours.is_none() && theirs.is_none(),
    }
}

fn shown(usd: Option<f64>) -> String {
    usd.map_or("nothing".to_owned(), |usd| format!("{usd:.6} USD per million"))
}

/// The least number of tokens above which the list has another price for the whole prompt.
fn prompt_limit(entry: &Value) -> Option<u64> {
    let above = |field: &String| {
        let (_, above) = field.split_once("_above_")?;
        above.strip_suffix("k_tokens")?.parse::<u64>().ok()
    };
    entry.as_object()?.keys().filter_map(above).min().map(|thousands| thousands * 1_000)
}
