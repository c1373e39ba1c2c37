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
    /// The part of `completion_tokens` that was thought and not said.
    pub reasoning_tokens: u64,
}

/// The `usage` object of an answer or a chunk, in the spellings of those who speak this dialect.
#[derive(Deserialize)]
pub(super) struct RawUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    /// What DeepSeek says in place of the details.
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize, Serialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
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
    /// Tokens read and written, none of them cached or reasoned.
    #[must_use]
    pub const fn new(prompt_tokens: u64, completion_tokens: u64) -> Self {
        Self { prompt_tokens, completion_tokens, cached_tokens: 0, reasoning_tokens: 0 }
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
            prompt_tokens_details: PromptDetails { cached_tokens: Some(self.cached_tokens) },
            completion_tokens_details: CompletionDetails { reasoning_tokens: Some(self.reasoning_tokens) },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RawUsage::deserialize(deserializer)?.read().ok_or_else(|| D::Error::missing_field("prompt_tokens"))
    }
}

// === impl RawUsage ===

impl RawUsage {
    /// `None` without a prompt count: a guess would look like a fact.
    pub(super) fn read(&self) -> Option<Usage> {
        let cached = self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens);
        let reasoning = self.completion_tokens_details.as_ref().and_then(|details| details.reasoning_tokens);
        Some(Usage {
            prompt_tokens: self.prompt_tokens?,
            completion_tokens: self.completion_tokens.unwrap_or(0),
            cached_tokens: cached.or(self.prompt_cache_hit_tokens).unwrap_or(0),
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
        let expected =
            Usage { prompt_tokens: 100, completion_tokens: 20, cached_tokens: 64, reasoning_tokens: 12 };
        assert_eq!(usage(body), Some(expected));
    }

    #[test]
    fn zero_is_said_and_absent_is_unknown() {
        assert_eq!(usage(br#"{"usage":{"prompt_tokens":0,"completion_tokens":0}}"#), Some(Usage::default()));
        for silent in ["{}", r#"{"usage":null}"#, r#"{"usage":{}}"#, r#"{"usage":{"completion_tokens":3}}"#] {
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
}
