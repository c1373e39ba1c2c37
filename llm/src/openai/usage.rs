//! The tokens that an upstream says it used.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Tokens of one call, as the upstream counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// All tokens read, the cached ones included.
    pub prompt_tokens: u64,
    /// All tokens written, those of the reasoning included.
    pub completion_tokens: u64,
    /// The part of `prompt_tokens` that the upstream had in its cache.
    pub cached_tokens: u64,
    /// The part of `prompt_tokens`, none of `cached_tokens`, that the upstream put into its cache.
    pub cache_write_tokens: u64,
    /// The part of `completion_tokens` that was thought and not said.
    pub reasoning_tokens: u64,
}

/// More than any model can read or write in one call, by a factor of some hundred.
const MOST_TOKENS: u64 = 1_000_000_000;

/// The `usage` object of an answer or a chunk, in the spellings of those who speak this dialect.
///
/// Whoever counts `prompt_tokens` counts the cached and the written ones among them, and so does OpenAI where it says
/// `input_tokens` (the details beside it are parts of it). Anthropic's `input_tokens` are those that its cache had nothing
/// to do with, and `cache_read_input_tokens` and `cache_creation_input_tokens` come on top.
#[derive(Deserialize)]
pub(super) struct RawUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    /// What DeepSeek says in place of the details.
    prompt_cache_hit_tokens: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<PromptDetails>,
    output_tokens_details: Option<CompletionDetails>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

#[derive(Deserialize, Serialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    /// OpenRouter's spelling.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_write_tokens: Option<u64>,
    /// LiteLLM's spelling.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_creation_tokens: Option<u64>,
}

#[derive(Deserialize, Serialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

/// Reads the usage of a plain answer: zero tokens are `Some`, an answer that does not say is `None`, and so
/// is a body that is not an answer. An answer that says only what it read (embeddings) wrote nothing.
#[must_use]
pub fn usage(body: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Answer {
        usage: Option<RawUsage>,
    }

    serde_json::from_slice::<Answer>(body).ok()?.usage?.read()
}

// === impl Usage ===

impl Usage {
    /// Tokens read and written, none of them cached, put into a cache or reasoned.
    #[must_use]
    pub const fn new(prompt_tokens: u64, completion_tokens: u64) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            cached_tokens: 0,
            cache_write_tokens: 0,
            reasoning_tokens: 0,
        }
    }

    /// `None` for counts that no call can have: they would drown all others in every sum they are added to.
    pub(crate) fn if_plausible(self) -> Option<Self> {
        let counts = [
            self.prompt_tokens,
            self.completion_tokens,
            self.cached_tokens,
            self.cache_write_tokens,
            self.reasoning_tokens,
        ];
        counts.iter().all(|count| *count <= MOST_TOKENS).then_some(self)
    }
}

impl Serialize for Usage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shape {
            prompt_tokens: u64,
            completion_tokens: u64,
            total_tokens: u64,
            prompt_tokens_details: PromptDetails,
            completion_tokens_details: CompletionDetails,
        }

        Shape {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            total_tokens: self.prompt_tokens.saturating_add(self.completion_tokens),
            prompt_tokens_details: PromptDetails {
                cached_tokens: Some(self.cached_tokens),
                // Most have no word for it.
                cache_write_tokens: Some(self.cache_write_tokens).filter(|written| *written > 0),
                cache_creation_tokens: None,
            },
            completion_tokens_details: CompletionDetails { reasoning_tokens: Some(self.reasoning_tokens) },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RawUsage::deserialize(deserializer)?.counts().ok_or_else(|| D::Error::missing_field("prompt_tokens"))
    }
}

// === impl RawUsage ===

impl RawUsage {
    /// The usage that `json` is.
    pub(super) fn of(json: &str) -> Option<Usage> {
        serde_json::from_str::<Self>(json).ok()?.read()
    }

    /// `None` without a prompt count, for a guess would look like a fact, and with one that no call can have.
    pub(super) fn read(&self) -> Option<Usage> {
        self.counts()?.if_plausible()
    }

    fn counts(&self) -> Option<Usage> {
        let read = self.prompt_tokens_details.as_ref().or(self.input_tokens_details.as_ref());
        let cached = read.and_then(|details| details.cached_tokens);
        let written = read.and_then(|details| details.cache_write_tokens.or(details.cache_creation_tokens));
        let wrote = self.completion_tokens_details.as_ref().or(self.output_tokens_details.as_ref());
        let reasoning = wrote.and_then(|details| details.reasoning_tokens);
        let [read_apart, written_apart] = [self.cache_read_input_tokens, self.cache_creation_input_tokens];
        let prompt_tokens = self.prompt_tokens.or_else(|| {
            let apart = read_apart.unwrap_or(0).saturating_add(written_apart.unwrap_or(0));
            Some(self.input_tokens?.saturating_add(apart))
        })?;
        Some(Usage {
            prompt_tokens,
            completion_tokens: self.completion_tokens.or(self.output_tokens).unwrap_or(0),
            cached_tokens: cached.or(read_apart).or(self.prompt_cache_hit_tokens).unwrap_or(0),
            cache_write_tokens: written.or(written_apart).unwrap_or(0),
            reasoning_tokens: reasoning.unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all_four_counts() {
        let body = br#"{"id":"x","choices":[{"message":{"content":"\"usage\":7"}}],"usage":{"prompt_tokens":100,
            "completion_tokens":20,"total_tokens":120,"prompt_tokens_details":{"cached_tokens":64,"audio_tokens":0},
            "completion_tokens_details":{"reasoning_tokens":12}}}"#;
        let expected = Usage { cached_tokens: 64, reasoning_tokens: 12, ..Usage::new(100, 20) };
        assert_eq!(usage(body), Some(expected));
    }

    #[test]
    fn zero_is_said_and_absent_is_unknown() {
        assert_eq!(usage(br#"{"usage":{"prompt_tokens":0,"completion_tokens":0}}"#), Some(Usage::default()));
        let silent = ["{}", r#"{"usage":null}"#, r#"{"usage":{}}"#, r#"{"usage":{"completion_tokens":3}}"#];
        let absurd = [
            r#"{"usage":{"prompt_tokens":18446744073709551615,"completion_tokens":1}}"#,
            r#"{"usage":{"prompt_tokens":1,"completion_tokens":1000000001}}"#,
            r#"{"usage":{"input_tokens":1,"cache_read_input_tokens":18446744073709551615}}"#,
        ];
        for silent in silent.into_iter().chain(absurd) {
            assert_eq!(usage(silent.as_bytes()), None, "{silent}");
        }
    }

    #[test]
    fn a_count_that_is_no_count_is_unknown() {
        for wrong in [r#"{"usage":{"prompt_tokens":-1}}"#, r#"{"usage":{"prompt_tokens":"9"}}"#, "<html>", ""]
        {
            assert_eq!(usage(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn embeddings_write_nothing_and_null_details_count_nothing() {
        assert_eq!(usage(br#"{"usage":{"prompt_tokens":8,"total_tokens":8}}"#), Some(Usage::new(8, 0)));
        let body = br#"{"usage":{"prompt_tokens":8,"completion_tokens":1,"prompt_tokens_details":null,
            "completion_tokens_details":{"reasoning_tokens":null}}}"#;
        assert_eq!(usage(body), Some(Usage::new(8, 1)));
    }

    #[test]
    fn reads_the_cache_hits_of_deepseek() {
        let body = br#"{"usage":{"prompt_tokens":8,"completion_tokens":1,"prompt_cache_hit_tokens":6,"prompt_cache_miss_tokens":2}}"#;
        assert_eq!(usage(body).unwrap().cached_tokens, 6);
    }

    fn cached(prompt: u64, completion: u64, read: u64, written: u64) -> Option<Usage> {
        let usage = Usage::new(prompt, completion);
        Some(Usage { cached_tokens: read, cache_write_tokens: written, ..usage })
    }

    fn said(usage: &str) -> Option<Usage> {
        super::usage(format!(r#"{{"usage":{usage}}}"#).as_bytes())
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
    fn both_spellings_at_once_are_one_count() {
        let usage = r#"{"prompt_tokens":100,"completion_tokens":5,"input_tokens":100,"output_tokens":5,
            "prompt_tokens_details":{"cached_tokens":60},"input_tokens_details":{"cached_tokens":60}}"#;
        assert_eq!(said(usage), cached(100, 5, 60, 0));
    }

    #[test]
    fn counts_that_are_absurd_do_not_run_over_and_are_unknown_of_a_provider() {
        let most = u64::MAX;
        let usage = format!(r#"{{"input_tokens":{most},"cache_read_input_tokens":{most}}}"#);
        let kept: Usage = serde_json::from_str(&usage).unwrap();
        assert_eq!(kept.prompt_tokens, most);
        assert_eq!(said(&usage), None);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let usage = cached(100, 5, 60, 30).unwrap();
        assert_eq!(said(&serde_json::to_string(&usage).unwrap()), Some(usage));
        assert!(!serde_json::to_string(&Usage::new(1, 1)).unwrap().contains("cache_write"));
    }
}
