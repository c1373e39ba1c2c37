//! What a call costs, from the tokens that the upstream counted and a table with source and date per row.
//!
//! **When.** After a call, to turn its usage into US dollars; and for a baseline, to ask what another model
//! would have cost for the same tokens.
//!
//! **Where.** Wherever usage is known: the accounting of the gateway, the cost function of a router.
//!
//! ```
//! use throughline_llm::openai::Usage;
//! use throughline_llm::{Price, PriceTable};
//!
//! let prices = PriceTable::builtin().with("my-finetune", Price::new(1.0, 4.0));
//! assert_eq!(prices.cost("my-finetune", &Usage::new(2_000_000, 500_000)), Some(4.0));
//! assert_eq!(prices.cost("gpt-4o-mini-2024-07-18", &Usage::new(1_000_000, 0)), Some(0.15));
//! assert_eq!(prices.cost("never-heard-of", &Usage::new(1, 1)), None);
//! ```
//!
//! **When not.** Text tokens at list price only: no batch or priority tiers, no audio, no discounts. A model that several hosts sell under one name at different prices (`openai/gpt-oss-120b`) is
//! left out, because a price by name would be wrong for most of them: add it with [`PriceTable::with`].

use std::collections::HashMap;

use crate::openai::Usage;

/// How much more it costs to keep something for an hour than for five minutes: with Anthropic, which has both, twice the
/// price of the input against 1.25 times.
const HOUR: f64 = 1.6;

const TABLE: &str = include_str!("prices.csv");

/// Prices of one model in US dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Price {
    /// Tokens read.
    pub input: f64,
    /// Tokens read from the provider's cache; `input` where it is not known.
    pub cached_input: Option<f64>,
    /// Tokens read and put into the provider's cache; `input` where it is not known.
    pub cache_write: Option<f64>,
    /// Those of them that are kept there for an hour; 1.6 times `cache_write` where it is not known, `input` where that is not.
    pub cache_write_1h: Option<f64>,
    /// Tokens written.
    pub output: f64,
    /// The longest prompt, in tokens, that these prices hold for: longer ones cost more and are unpriced.
    pub prompt_limit: Option<u64>,
}

/// One row of the built-in table.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// The model's name in requests to its provider.
    pub model: &'static str,
    /// Who sells it.
    pub provider: &'static str,
    /// What it costs.
    pub price: Price,
    /// Where the figures come from.
    pub source: &'static str,
    /// When they were read there, as `YYYY-MM-DD`.
    pub date: &'static str,
}

/// Prices by the exact name of a model.
#[derive(Clone, Debug)]
pub struct PriceTable {
    prices: HashMap<String, Price>,
}

/// The rows of the built-in table, so that they can be compared with another source: the example
/// `check_prices` does.
pub fn rows() -> impl Iterator<Item = Row> {
    TABLE.lines().skip(1).map(|line| Row::read(line).expect("a test reads every row of the built-in table"))
}

// === impl Price ===

impl Price {
    /// US dollars per million tokens, with one price for cached ones and others, and for prompts of any length.
    #[must_use]
    pub const fn new(input: f64, output: f64) -> Self {
        Self {
            input,
            cached_input: None,
            cache_write: None,
            cache_write_1h: None,
            output,
            prompt_limit: None,
        }
    }

    /// The same price with its own figure for cached tokens, in US dollars per million.
    #[must_use]
    pub const fn with_cached_input(mut self, cached_input: f64) -> Self {
        self.cached_input = Some(cached_input);
        self
    }

    /// The same price with its own figure for tokens that are put into the cache, in US dollars per million.
    #[must_use]
    pub const fn with_cache_write(mut self, cache_write: f64) -> Self {
        self.cache_write = Some(cache_write);
        self
    }

    /// The same price with its own figure for tokens that are put into the cache for an hour, in US dollars per million.
    #[must_use]
    pub const fn with_cache_write_1h(mut self, cache_write_1h: f64) -> Self {
        self.cache_write_1h = Some(cache_write_1h);
        self
    }

    /// What a million tokens cost that are put into the cache for an hour.
    fn hour(&self) -> f64 {
        self.cache_write_1h.or(self.cache_write.map(|price| price * HOUR)).unwrap_or(self.input)
    }

    /// US dollars for `usage`, or `None` for a prompt longer than these prices hold for.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Option<f64> {
        if self.prompt_limit.is_some_and(|limit| usage.prompt_tokens > limit) {
            return None;
        }
        // More cached than read is a miscount of the upstream and must not make the rest negative.
        let cached = usage.cached_tokens.min(usage.prompt_tokens);
        let written = usage.cache_write_tokens.min(usage.prompt_tokens - cached);
        let hour = usage.cache_write_1h_tokens.min(written);
        let fresh = usage.prompt_tokens - cached - written;
        let millionths = fresh as f64 * self.input
            + cached as f64 * self.cached_input.unwrap_or(self.input)
            + (written - hour) as f64 * self.cache_write.unwrap_or(self.input)
            + hour as f64 * self.hour()
            + usage.completion_tokens as f64 * self.output;
        Some(millionths / 1e6)
    }
}

// === impl Row ===

impl Row {
    fn read(line: &'static str) -> Option<Self> {
        let mut cells = line.split(',');
        let row = Self {
            model: cells.next()?,
            provider: cells.next()?,
            price: Price {
                input: cells.next()?.parse().ok()?,
                cached_input: optional(cells.next()?)?,
                cache_write: optional(cells.next()?)?,
                cache_write_1h: None,
                output: cells.next()?.parse().ok()?,
                prompt_limit: optional(cells.next()?)?,
            },
            source: cells.next()?,
            date: cells.next()?,
        };
        cells.next().is_none().then_some(row)
    }
}

/// An empty cell is `Some(None)`, a wrong one `None`.
fn optional<T: std::str::FromStr>(cell: &str) -> Option<Option<T>> {
    if cell.is_empty() { Some(None) } else { cell.parse().ok().map(Some) }
}

// === impl PriceTable ===

impl PriceTable {
    /// The table that is shipped with this crate.
    #[must_use]
    pub fn builtin() -> Self {
        Self { prices: rows().map(|row| (row.model.to_owned(), row.price)).collect() }
    }

    /// A table without any price.
    #[must_use]
    pub fn empty() -> Self {
        Self { prices: HashMap::new() }
    }

    /// The same table with one price added or replaced.
    #[must_use]
    pub fn with(mut self, model: impl Into<String>, price: Price) -> Self {
        self.prices.insert(model.into(), price);
        self
    }

    /// The price of a model by its exact name, else by its name without a trailing date (`-2024-07-18` or
    /// `-20240718`).
    #[must_use]
    pub fn price(&self, model: &str) -> Option<&Price> {
        self.prices.get(model).or_else(|| self.prices.get(undated(model)?))
    }

    /// US dollars for `usage` of `model`; `None`, never 0, where the price is not known.
    #[must_use]
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<f64> {
        self.price(model)?.cost(usage)
    }
}

/// `model` without the date of its snapshot, where it ends with one.
fn undated(model: &str) -> Option<&str> {
    const DASHED: &[u8] = b"-dddd-dd-dd";
    const PLAIN: &[u8] = b"-dddddddd";
    [DASHED, PLAIN].into_iter().find_map(|pattern| {
        let (name, date) = model.split_at_checked(model.len().checked_sub(pattern.len())?)?;
        let fits =
            |(byte, shape): (u8, &u8)| if *shape == b'd' { byte.is_ascii_digit() } else { byte == *shape };
        date.bytes().zip(pattern).all(fits).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(cost: Option<f64>, expected: f64) {
        let cost = cost.expect("a priced model");
        assert!((cost - expected).abs() < 1e-12, "{cost} is not {expected}");
    }

    fn cached(prompt: u64, cached: u64, completion: u64) -> Usage {
        Usage { cached_tokens: cached, ..Usage::new(prompt, completion) }
    }

    #[test]
    fn every_row_is_complete_and_plausible() {
        assert!(rows().count() >= 30);
        for row in rows() {
            let name = row.model;
            assert!(!name.is_empty() && !row.provider.is_empty() && !row.source.is_empty(), "{name}");
            assert!(row.price.input > 0.0 && row.price.output >= 0.0, "{name}");
            assert!(row.price.input < 1_000.0 && row.price.output < 1_000.0, "{name} is not per million");
            assert!(
                row.price.cached_input.is_none_or(|price| (0.0..=row.price.input).contains(&price)),
                "{name}"
            );
            assert!(
                row.price
                    .cache_write
                    .is_none_or(|price| (row.price.input..=2.0 * row.price.input).contains(&price)),
                "{name}"
            );
            assert!(row.price.prompt_limit.is_none_or(|limit| limit >= 32_000), "{name}");
            assert_eq!(undated(&format!("x-{}", row.date)), Some("x"), "{name}");
        }
    }

    #[test]
    fn no_model_has_two_prices() {
        let names: std::collections::BTreeSet<_> = rows().map(|row| row.model).collect();
        assert_eq!(names.len(), rows().count());
        assert_eq!(PriceTable::builtin().prices.len(), names.len());
    }

    #[test]
    fn the_columns_are_those_that_are_read() {
        let header = TABLE.lines().next();
        assert_eq!(
            header,
            Some("model,provider,input,cached_input,cache_write,output,prompt_limit,source,date")
        );
    }

    #[test]
    fn each_kind_of_token_has_its_own_price() {
        let table = PriceTable::builtin();
        close(table.cost("gpt-4o", &Usage::new(1_000_000, 0)), 2.5);
        close(table.cost("gpt-4o", &Usage::new(0, 1_000_000)), 10.0);
        close(table.cost("gpt-4o", &cached(1_000_000, 1_000_000, 0)), 1.25);
        close(
            table.cost("gpt-4o", &cached(1_000, 400, 50)),
            (600.0 * 2.5 + 400.0 * 1.25 + 50.0 * 10.0) / 1e6,
        );
        close(table.cost("gpt-4o", &Usage::default()), 0.0);
    }

    #[test]
    fn reasoning_tokens_are_not_paid_twice() {
        let usage = Usage { reasoning_tokens: 900, ..Usage::new(0, 1_000) };
        close(PriceTable::builtin().cost("gpt-4o", &usage), 0.01);
    }

    #[test]
    fn cached_tokens_cost_the_full_price_where_no_other_is_known() {
        let table = PriceTable::empty().with("m", Price::new(3.0, 5.0));
        close(table.cost("m", &cached(1_000_000, 600_000, 0)), 3.0);
        let table = table.with("m", Price::new(3.0, 5.0).with_cached_input(1.0));
        close(table.cost("m", &cached(1_000_000, 600_000, 0)), 1.8);
    }

    fn both(prompt: u64, read: u64, written: u64) -> Usage {
        Usage { cache_write_tokens: written, ..cached(prompt, read, 0) }
    }

    #[test]
    fn each_token_of_a_prompt_is_paid_once_and_at_its_own_rate() {
        let table = PriceTable::empty()
            .with("m", Price::new(4.0, 0.0).with_cached_input(0.4).with_cache_write(5.0))
            .with("one price", Price::new(4.0, 0.0));
        close(table.cost("m", &both(1_000_000, 600_000, 300_000)), 0.1 * 4.0 + 0.6 * 0.4 + 0.3 * 5.0);
        close(table.cost("one price", &both(1_000_000, 600_000, 300_000)), 4.0);
        let claude = PriceTable::builtin();
        close(claude.cost("claude-sonnet-4-6", &both(1_000_000, 0, 1_000_000)), 3.75);
    }

    fn for_an_hour(prompt: u64, read: u64, written: u64, hour: u64) -> Usage {
        Usage { cache_write_1h_tokens: hour, ..both(prompt, read, written) }
    }

    #[test]
    fn what_is_kept_for_an_hour_costs_what_anthropic_says() {
        let table = PriceTable::builtin();
        close(table.cost("claude-sonnet-4-6", &for_an_hour(1_000_000, 0, 1_000_000, 1_000_000)), 6.0);
        close(table.cost("claude-opus-5-5", &for_an_hour(1_000_000, 0, 1_000_000, 1_000_000)), 8.0);
        let usage = for_an_hour(2_100, 1_024, 1_000, 600);
        let expected = 76.0 * 3.0 + 1_024.0 * 0.3 + 400.0 * 3.75 + 600.0 * 6.0;
        close(table.cost("claude-sonnet-4-6", &usage), expected / 1e6);
    }

    #[test]
    fn what_is_kept_for_an_hour_has_its_own_price_or_one_that_follows_from_the_others() {
        let usage = for_an_hour(1_000_000, 0, 500_000, 250_000);
        let price = Price::new(4.0, 0.0);
        close(price.cost(&usage), 4.0);
        close(price.with_cache_write(5.0).cost(&usage), 0.5 * 4.0 + 0.25 * 5.0 + 0.25 * 8.0);
        let own = price.with_cache_write_1h(7.0);
        close(own.cost(&usage), 0.75 * 4.0 + 0.25 * 7.0);
        close(own.with_cache_write(5.0).cost(&usage), 0.5 * 4.0 + 0.25 * 5.0 + 0.25 * 7.0);
    }

    #[test]
    fn more_for_an_hour_than_written_is_clamped() {
        let price = Price::new(4.0, 0.0).with_cache_write(5.0);
        close(price.cost(&for_an_hour(1_000, 0, 100, 9_000)), (900.0 * 4.0 + 100.0 * 8.0) / 1e6);
    }

    #[test]
    fn more_written_than_read_is_clamped() {
        let table = PriceTable::empty().with("m", Price::new(4.0, 0.0).with_cache_write(5.0));
        close(table.cost("m", &both(1_000, 0, 9_000)), 1_000.0 * 5.0 / 1e6);
        close(table.cost("m", &both(1_000, 900, 900)), (900.0 * 4.0 + 100.0 * 5.0) / 1e6);
        close(table.cost("m", &both(u64::MAX, u64::MAX, u64::MAX)), u64::MAX as f64 * 4.0 / 1e6);
    }

    #[test]
    fn more_cached_than_read_is_clamped() {
        let table = PriceTable::builtin();
        assert_eq!(table.cost("gpt-4o", &cached(100, 5_000, 7)), table.cost("gpt-4o", &cached(100, 100, 7)));
    }

    #[test]
    fn a_prompt_longer_than_the_prices_hold_for_is_unpriced() {
        let table = PriceTable::builtin();
        close(table.cost("gemini-2.5-pro", &Usage::new(200_000, 0)), 0.25);
        assert_eq!(table.cost("gemini-2.5-pro", &Usage::new(200_001, 0)), None);
    }

    #[test]
    fn an_unknown_model_is_unpriced_and_not_free() {
        let table = PriceTable::builtin();
        for name in
            ["", "gpt", "gpt-4o-", "GPT-4O", "openai/gpt-4o", "gpt-4o-mini-finetuned", "gpt-4o-2024-07"]
        {
            assert_eq!(table.cost(name, &Usage::new(1, 1)), None, "{name}");
        }
        assert_eq!(PriceTable::empty().cost("gpt-4o", &Usage::new(1, 1)), None);
    }

    #[test]
    fn a_snapshot_costs_what_its_model_costs_unless_it_has_its_own_row() {
        let table = PriceTable::builtin();
        let price = |name| *table.price(name).expect(name);
        assert_eq!(price("gpt-4o-mini-2024-07-18"), price("gpt-4o-mini"));
        assert_eq!(price("claude-haiku-4-5-20251001"), price("claude-haiku-4-5"));
        assert_ne!(price("gpt-4o-2024-05-13"), price("gpt-4o"));
        assert_eq!(undated("é-2024-07-18"), Some("é"));
        for name in ["2024-07-18", "x-2024-7-18", "x-2024_07_18", "x-202407180", "éééééééé", "x-2024-07-1é"]
        {
            assert_eq!(undated(name), None, "{name}");
        }
    }
}
