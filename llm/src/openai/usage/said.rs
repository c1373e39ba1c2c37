//! The `usage` object of an answer or a chunk, in the spellings of those who speak this dialect.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{MOST_TOKENS, Usage};

/// What is written under a name; nothing where the name is missing or says `null`.
type Raw<'a> = Option<&'a RawValue>;

/// The object, with what is said in another form than it should be: of no use by itself, it must not spoil the rest.
///
/// Whoever counts `prompt_tokens` counts the cached and the written ones among them, and so does OpenAI where it says
/// `input_tokens` (the details beside it are parts of it). Anthropic's `input_tokens` are those that its cache had nothing
/// to do with, and `cache_read_input_tokens` and `cache_creation_input_tokens` come on top.
#[derive(Deserialize)]
pub(in crate::openai) struct RawUsage<'a> {
    #[serde(borrow)]
    prompt_tokens: Raw<'a>,
    #[serde(borrow)]
    completion_tokens: Raw<'a>,
    #[serde(borrow)]
    total_tokens: Raw<'a>,
    #[serde(borrow)]
    prompt_tokens_details: Raw<'a>,
    #[serde(borrow)]
    completion_tokens_details: Raw<'a>,
    /// What DeepSeek says in place of the details.
    #[serde(borrow)]
    prompt_cache_hit_tokens: Raw<'a>,
    #[serde(borrow)]
    input_tokens: Raw<'a>,
    #[serde(borrow)]
    output_tokens: Raw<'a>,
    #[serde(borrow)]
    input_tokens_details: Raw<'a>,
    #[serde(borrow)]
    output_tokens_details: Raw<'a>,
    #[serde(borrow)]
    cache_read_input_tokens: Raw<'a>,
    #[serde(borrow)]
    cache_creation_input_tokens: Raw<'a>,
    #[serde(borrow)]
    cache_creation: Raw<'a>,
}

#[derive(Default, Deserialize)]
struct PromptDetails<'a> {
    #[serde(borrow)]
    cached_tokens: Raw<'a>,
    #[serde(borrow)]
    cache_write_tokens: Raw<'a>,
    /// LiteLLM's spelling.
    #[serde(borrow)]
    cache_creation_tokens: Raw<'a>,
    /// Where LiteLLM hands on Anthropic's `cache_creation`.
    #[serde(borrow)]
    cache_creation_token_details: Raw<'a>,
}

/// For how long what Anthropic put into its cache is kept there.
#[derive(Default, Deserialize)]
struct Creation<'a> {
    #[serde(borrow)]
    ephemeral_5m_input_tokens: Raw<'a>,
    #[serde(borrow)]
    ephemeral_1h_input_tokens: Raw<'a>,
}

#[derive(Default, Deserialize)]
struct CompletionDetails<'a> {
    #[serde(borrow)]
    reasoning_tokens: Raw<'a>,
}

/// The counts of one `usage` object, or of the several of a stream. `None` is what it does not say.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::openai) struct Counts {
    prompt: Option<u64>,
    /// What was read, but for what a cache had to do with; with it these two are added up, and `Some(None)` is what cannot be read.
    input: Option<u64>,
    read_apart: Option<Option<u64>>,
    written_apart: Option<Option<u64>>,
    completion: Option<u64>,
    cached: Option<u64>,
    written: Option<u64>,
    written_1h: Option<u64>,
    reasoning: Option<u64>,
}

// === impl RawUsage ===

impl RawUsage<'_> {
    /// The usage that `json` is.
    pub(in crate::openai) fn of(json: &str) -> Option<Usage> {
        Self::counts_of(json).usage()
    }

    /// What `json` says, which may be anything.
    pub(in crate::openai) fn counts_of(json: &str) -> Counts {
        serde_json::from_str::<RawUsage<'_>>(json).map(|usage| usage.counts()).unwrap_or_default()
    }

    pub(in crate::openai) fn read(&self) -> Option<Usage> {
        self.counts().usage()
    }

    fn counts(&self) -> Counts {
        let read: [PromptDetails<'_>; 2] =
            [self.prompt_tokens_details, self.input_tokens_details].map(object);
        let wrote: [CompletionDetails<'_>; 2] =
            [self.completion_tokens_details, self.output_tokens_details].map(object);
        let creation = read.iter().map(|details| details.cache_creation_token_details);
        let creation: Creation<'_> = object(creation.fold(self.cache_creation, Option::or));
        let written = read
            .iter()
            .find_map(|details| count(details.cache_write_tokens).or(count(details.cache_creation_tokens)))
            .or(count(self.cache_creation_input_tokens))
            .or(creation.sum());
        let cached = read
            .iter()
            .find_map(|details| count(details.cached_tokens))
            .or(count(self.cache_read_input_tokens))
            .or(count(self.prompt_cache_hit_tokens));
        let reasoning = wrote.iter().find_map(|details| count(details.reasoning_tokens));
        let said = |raw: Raw<'_>| raw.is_some().then(|| count(raw));
        let created = count(self.cache_creation_input_tokens).or(creation.sum());
        let counts = Counts {
            prompt: count(self.prompt_tokens),
            input: count(self.input_tokens).filter(|_| self.prompt_tokens.is_none()),
            read_apart: said(self.cache_read_input_tokens),
            written_apart: created.map(Some).or_else(|| said(self.cache_creation_input_tokens)),
            completion: None,
            cached,
            written,
            written_1h: count(creation.ephemeral_1h_input_tokens),
            reasoning,
        };
        Counts { completion: self.completion(counts.read(), reasoning), ..counts }
    }

    /// All that was written. xAI leaves out what was thought, and counts it in the total: it is charged all the same.
    fn completion(&self, prompt: Option<u64>, reasoning: Option<u64>) -> Option<u64> {
        let said = count(self.completion_tokens.or(self.output_tokens))?;
        let with_thoughts = said.saturating_add(reasoning.unwrap_or(0));
        let total = prompt.map(|prompt| prompt.saturating_add(with_thoughts));
        Some(if total.is_some() && total == count(self.total_tokens) { with_thoughts } else { said })
    }
}

// === impl Creation ===

impl Creation<'_> {
    fn sum(&self) -> Option<u64> {
        let parts = [self.ephemeral_5m_input_tokens, self.ephemeral_1h_input_tokens];
        if parts.iter().all(Option::is_none) {
            return None;
        }
        parts.into_iter().try_fold(0_u64, |sum, part| Some(sum.saturating_add(none_or_count(part)?)))
    }
}

// === impl Counts ===

impl Counts {
    pub(in crate::openai) const NOTHING: Self = Self {
        prompt: None,
        input: None,
        read_apart: None,
        written_apart: None,
        completion: None,
        cached: None,
        written: None,
        written_1h: None,
        reasoning: None,
    };

    /// What is known after one more `usage` object of a stream. What it leaves out is taken from those before it: Anthropic
    /// says what was read, and for how long it is kept, at the start, and at the end what was written.
    pub(in crate::openai) fn then(self, next: Self) -> Self {
        Self {
            // What is said later in another spelling counts.
            prompt: next.prompt.or(self.prompt.filter(|_| next.input.is_none())),
            input: next.input.or(self.input),
            read_apart: next.read_apart.or(self.read_apart),
            written_apart: next.written_apart.or(self.written_apart),
            completion: next.completion.or(self.completion),
            cached: next.cached.or(self.cached),
            written: next.written.or(self.written),
            written_1h: next.written_1h.or(self.written_1h),
            reasoning: next.reasoning.or(self.reasoning),
        }
    }

    /// All that was read. `input_tokens` may be only a part of it: then the other parts are no details, and with one that cannot be
    /// read the sum is unknown.
    fn read(&self) -> Option<u64> {
        self.prompt.or_else(|| {
            let apart = [self.read_apart, self.written_apart].map(|apart| apart.unwrap_or(Some(0)));
            let parts = [self.input, apart[0], apart[1]];
            parts.into_iter().try_fold(0_u64, |sum, part| Some(sum.saturating_add(part?)))
        })
    }

    pub(in crate::openai) fn tells_what_was_written(self) -> bool {
        self.completion.is_some()
    }

    /// The usage, if it is known what was read and what was written: a guess would look like a fact, and so would counts
    /// that no call can have.
    ///
    /// A part that is larger than its whole is left out. Of two that do not fit together, the cached tokens are: they are
    /// the cheaper ones, and what is spent is not to look less than it is.
    pub(in crate::openai) fn usage(self) -> Option<Usage> {
        let prompt_tokens = self.read().filter(|count| *count <= MOST_TOKENS)?;
        let completion_tokens = self.completion.filter(|count| *count <= MOST_TOKENS)?;
        let part = |count: Option<u64>, whole: u64| count.filter(|count| *count <= whole).unwrap_or(0);
        let cache_write_tokens = part(self.written, prompt_tokens);
        Some(Usage {
            prompt_tokens,
            completion_tokens,
            cached_tokens: part(self.cached, prompt_tokens - cache_write_tokens),
            cache_write_tokens,
            cache_write_1h_tokens: part(self.written_1h, cache_write_tokens),
            reasoning_tokens: part(self.reasoning, completion_tokens),
        })
    }
}

/// A number of tokens; `None` for anything else.
fn count(raw: Raw<'_>) -> Option<u64> {
    raw?.get().parse().ok()
}

/// Zero where nothing is said, and `None` where it is no number of tokens.
fn none_or_count(raw: Raw<'_>) -> Option<u64> {
    if raw.is_some() { count(raw) } else { Some(0) }
}

/// The object that `raw` is, or an empty one.
fn object<'a, T: Default + Deserialize<'a>>(raw: Raw<'a>) -> T {
    // A list would be taken for the fields in their order.
    let object = raw.map(RawValue::get).filter(|raw| raw.starts_with('{'));
    object.and_then(|object| serde_json::from_str(object).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(usage: &str) -> Option<Usage> {
        RawUsage::of(usage)
    }

    fn cached(prompt: u64, completion: u64, read: u64, written: u64) -> Option<Usage> {
        let usage = Usage::new(prompt, completion);
        Some(Usage { cached_tokens: read, cache_write_tokens: written, ..usage })
    }

    #[test]
    fn what_is_cached_is_among_the_prompt_tokens_in_every_spelling() {
        for spelling in [
            r#"{"prompt_tokens":100,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":60,"cache_write_tokens":30}}"#,
            r#"{"prompt_tokens":100,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":60,"cache_creation_tokens":30},
                "cache_read_input_tokens":60,"cache_creation_input_tokens":30}"#,
            r#"{"prompt_tokens":100,"completion_tokens":5,"cache_read_input_tokens":60,"cache_creation_input_tokens":30}"#,
            r#"{"input_tokens":100,"output_tokens":5,"input_tokens_details":{"cached_tokens":60,"cache_write_tokens":30}}"#,
        ] {
            assert_eq!(said(spelling), cached(100, 5, 60, 30), "{spelling}");
        }
    }

    #[test]
    fn anthropic_counts_what_is_cached_apart_from_its_input_tokens() {
        let usage = r#"{"input_tokens":10,"output_tokens":5,"cache_read_input_tokens":60,"cache_creation_input_tokens":30,
            "cache_creation":{"ephemeral_5m_input_tokens":30,"ephemeral_1h_input_tokens":0},"service_tier":"standard"}"#;
        assert_eq!(said(usage), cached(100, 5, 60, 30));
        let nothing = r#"{"input_tokens":10,"output_tokens":5,"cache_read_input_tokens":null}"#;
        assert_eq!(said(nothing), cached(10, 5, 0, 0));
    }

    #[test]
    fn what_was_cached_is_known_from_the_start_where_the_end_says_again_what_was_not() {
        let start = r#"{"input_tokens":10,"cache_read_input_tokens":60,"cache_creation_input_tokens":30,"output_tokens":1}"#;
        for end in [
            r#"{"input_tokens":10,"output_tokens":5}"#,
            r#"{"input_tokens":10,"cache_read_input_tokens":null,"output_tokens":5}"#,
            r#"{"output_tokens":5}"#,
            r#"{"prompt_tokens":100,"completion_tokens":5}"#,
        ] {
            let told = RawUsage::counts_of(start).then(RawUsage::counts_of(end));
            assert_eq!(told.usage(), cached(100, 5, 60, 30), "{end}");
        }
    }

    #[test]
    fn both_spellings_at_once_are_one_count() {
        let usage = r#"{"prompt_tokens":100,"completion_tokens":5,"input_tokens":100,"output_tokens":5,
            "prompt_tokens_details":{"cached_tokens":60},"input_tokens_details":{"cached_tokens":60}}"#;
        assert_eq!(said(usage), cached(100, 5, 60, 0));
    }

    #[test]
    fn what_is_kept_for_an_hour_is_told_apart_in_every_spelling() {
        let expected = Some(Usage { cache_write_1h_tokens: 20, ..cached(100, 5, 60, 30).unwrap() });
        for spelling in [
            r#"{"input_tokens":10,"output_tokens":5,"cache_read_input_tokens":60,"cache_creation_input_tokens":30,
                "cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20}}"#,
            r#"{"input_tokens":10,"output_tokens":5,"cache_read_input_tokens":60,
                "cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20}}"#,
            r#"{"prompt_tokens":100,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":60,"cache_creation_tokens":30,
                "cache_creation_token_details":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20}}}"#,
            r#"{"prompt_tokens":100,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":60,"cache_write_tokens":30},
                "cache_creation":{"ephemeral_1h_input_tokens":20}}"#,
        ] {
            assert_eq!(said(spelling), expected, "{spelling}");
        }
    }

    #[test]
    fn nobody_knows_what_was_written_where_only_what_was_read_is_said() {
        for silent in [
            r#"{"prompt_tokens":10}"#,
            r#"{"prompt_tokens":10,"total_tokens":10}"#,
            r#"{"prompt_tokens":10,"completion_tokens":null}"#,
            r#"{"prompt_tokens":10,"completion_tokens":"5"}"#,
            r#"{"prompt_tokens":10,"completion_tokens":"5","output_tokens":5}"#,
            r#"{"prompt_tokens":10,"completion_tokens_details":{"reasoning_tokens":4}}"#,
            r#"{"input_tokens":10,"cache_read_input_tokens":60}"#,
            r#"{"output_tokens":5}"#,
        ] {
            assert_eq!(said(silent), None, "{silent}");
        }
        assert_eq!(said(r#"{"prompt_tokens":10,"completion_tokens":0}"#), Some(Usage::new(10, 0)));
    }

    #[test]
    fn a_wrong_detail_is_left_out_and_the_counts_beside_it_stay() {
        for wrong in [
            r#""prompt_tokens_details":"none""#,
            r#""prompt_tokens_details":[60]"#,
            r#""prompt_tokens_details":7"#,
            r#""prompt_tokens_details":{"cached_tokens":"60"}"#,
            r#""prompt_tokens_details":{"cached_tokens":-1}"#,
            r#""prompt_tokens_details":{"cached_tokens":1e999}"#,
            r#""prompt_tokens_details":{"cached_tokens":101}"#,
            r#""prompt_tokens_details":{"cached_tokens":1,"cached_tokens":2}"#,
            r#""prompt_tokens_details":{"cache_write_tokens":101}"#,
            r#""prompt_cache_hit_tokens":18446744073709551615"#,
            r#""cache_read_input_tokens":"60""#,
            r#""cache_creation_input_tokens":{}"#,
            r#""cache_creation":"none""#,
            r#""cache_creation":{"ephemeral_5m_input_tokens":1,"ephemeral_1h_input_tokens":"1"}"#,
            r#""completion_tokens_details":[4]"#,
            r#""completion_tokens_details":{"reasoning_tokens":true}"#,
            r#""completion_tokens_details":{"reasoning_tokens":6}"#,
            r#""total_tokens":"105""#,
        ] {
            let usage = format!(r#"{{"prompt_tokens":100,"completion_tokens":5,{wrong}}}"#);
            assert_eq!(said(&usage), Some(Usage::new(100, 5)), "{wrong}");
        }
    }

    #[test]
    fn a_right_detail_stays_beside_a_wrong_one() {
        let usage = r#"{"prompt_tokens":100,"completion_tokens":5,
            "prompt_tokens_details":{"cached_tokens":60,"cache_write_tokens":"9"},"completion_tokens_details":[]}"#;
        assert_eq!(said(usage), cached(100, 5, 60, 0));
        let elsewhere = r#"{"prompt_tokens":100,"completion_tokens":5,"prompt_tokens_details":0,
            "input_tokens_details":{"cached_tokens":60}}"#;
        assert_eq!(said(elsewhere), cached(100, 5, 60, 0));
        let hour = r#"{"input_tokens":70,"output_tokens":5,"cache_creation_input_tokens":30,
            "cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":31}}"#;
        assert_eq!(said(hour), cached(100, 5, 0, 30), "what is written is 30, whatever it is made of");
    }

    #[test]
    fn of_parts_that_do_not_fit_together_the_cheaper_one_is_left_out() {
        let usage = r#"{"prompt_tokens":100,"completion_tokens":5,
            "prompt_tokens_details":{"cached_tokens":60,"cache_write_tokens":50}}"#;
        assert_eq!(said(usage), cached(100, 5, 0, 50));
    }

    #[test]
    fn where_a_part_of_the_prompt_cannot_be_read_the_prompt_is_unknown() {
        for wrong in [
            r#"{"input_tokens":10,"output_tokens":5,"cache_read_input_tokens":"60"}"#,
            r#"{"input_tokens":10,"output_tokens":5,"cache_creation_input_tokens":[30]}"#,
            r#"{"input_tokens":"10","output_tokens":5}"#,
            r#"{"prompt_tokens":"10","input_tokens":10,"output_tokens":5}"#,
        ] {
            assert_eq!(said(wrong), None, "{wrong}");
        }
        let known_otherwise = r#"{"input_tokens":10,"output_tokens":5,"cache_creation_input_tokens":[30],
            "cache_creation":{"ephemeral_5m_input_tokens":30}}"#;
        assert_eq!(said(known_otherwise), cached(40, 5, 0, 30));
    }

    #[test]
    fn what_xai_thinks_is_written_and_counted_once() {
        let xai = r#"{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,
            "completion_tokens_details":{"reasoning_tokens":94}}"#;
        assert_eq!(said(xai), Some(Usage { reasoning_tokens: 94, ..Usage::new(32, 103) }));
        let others = r#"{"prompt_tokens":32,"completion_tokens":103,"total_tokens":135,
            "completion_tokens_details":{"reasoning_tokens":94}}"#;
        assert_eq!(said(others), said(xai));
    }

    #[test]
    fn a_stream_may_say_what_was_read_and_what_was_written_one_after_the_other() {
        let told = |usages: &[&str]| {
            let said = usages.iter().map(|usage| RawUsage::counts_of(usage));
            said.fold(Counts::default(), Counts::then).usage()
        };
        let start = r#"{"input_tokens":10,"cache_read_input_tokens":60,"cache_creation_input_tokens":30,
            "cache_creation":{"ephemeral_1h_input_tokens":30}}"#;
        let expected = Some(Usage { cache_write_1h_tokens: 30, ..cached(100, 15, 60, 30).unwrap() });
        assert_eq!(told(&[start]), None);
        assert_eq!(told(&[start, r#"{"output_tokens":15}"#]), expected);
        assert_eq!(told(&[start, r#"{"output_tokens":7}"#, r#"{"output_tokens":15}"#]), expected);
        let sums = r#"{"input_tokens":10,"output_tokens":15,"cache_read_input_tokens":60,"cache_creation_input_tokens":30}"#;
        assert_eq!(told(&[start, sums]), expected, "the end does not say again for how long");
        let begun = r#"{"input_tokens":25,"output_tokens":1}"#;
        assert_eq!(told(&[begun, r#"{"output_tokens":15}"#]), Some(Usage::new(25, 15)));
        let placeholder = r#"{"prompt_tokens":0,"completion_tokens":0}"#;
        assert_eq!(told(&[placeholder, begun]), Some(Usage::new(25, 1)));
        assert_eq!(told(&[begun, "null", "[]", "{}"]), Some(Usage::new(25, 1)));
    }
}
