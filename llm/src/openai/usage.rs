//! The tokens that an upstream says it used.

mod said;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) use said::{Counts, RawUsage};

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
    /// The part of `cache_write_tokens` that is kept there for an hour and not for five minutes, which costs more.
    pub cache_write_1h_tokens: u64,
    /// The part of `completion_tokens` that was thought and not said.
    pub reasoning_tokens: u64,
}

/// More than any model can read or write in one call, by a factor of some hundred.
const MOST_TOKENS: u64 = 1_000_000_000;

/// A usage as it is kept and shown. It is read as it was written, whatever it says.
#[derive(Deserialize, Serialize)]
struct Shape {
    prompt_tokens: u64,
    completion_tokens: u64,
    #[serde(default)]
    total_tokens: u64,
    #[serde(default)]
    prompt_tokens_details: PromptDetails,
    #[serde(default)]
    completion_tokens_details: CompletionDetails,
    /// Anthropic's word for it; nobody else keeps anything for an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache_creation: Option<CacheCreation>,
}

#[derive(Default, Deserialize, Serialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: u64,
    /// Most have no word for it.
    #[serde(default, skip_serializing_if = "is_zero")]
    cache_write_tokens: u64,
}

#[derive(Default, Deserialize, Serialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: u64,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct CacheCreation {
    ephemeral_5m_input_tokens: u64,
    ephemeral_1h_input_tokens: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Reads the usage of a plain answer: zero tokens are `Some`, an answer that does not say is `None`, and so
/// is a body that is not an answer. One that says only what it read, or only what it wrote, does not say: the other
/// was not nothing.
#[must_use]
pub fn usage(body: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        usage: Option<RawUsage<'a>>,
    }

    serde_json::from_slice::<Answer<'_>>(body).ok()?.usage?.read()
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
            cache_write_1h_tokens: 0,
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
            self.cache_write_1h_tokens,
            self.reasoning_tokens,
        ];
        counts.iter().all(|count| *count <= MOST_TOKENS).then_some(self)
    }
}

impl Serialize for Usage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (written, hour) = (self.cache_write_tokens, self.cache_write_1h_tokens);
        Shape {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            total_tokens: self.prompt_tokens.saturating_add(self.completion_tokens),
            prompt_tokens_details: PromptDetails {
                cached_tokens: self.cached_tokens,
                cache_write_tokens: written,
            },
            completion_tokens_details: CompletionDetails { reasoning_tokens: self.reasoning_tokens },
            cache_creation: (hour > 0).then(|| CacheCreation {
                ephemeral_5m_input_tokens: written.saturating_sub(hour),
                ephemeral_1h_input_tokens: hour,
            }),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let shape = Shape::deserialize(deserializer)?;
        Ok(Self {
            prompt_tokens: shape.prompt_tokens,
            completion_tokens: shape.completion_tokens,
            cached_tokens: shape.prompt_tokens_details.cached_tokens,
            cache_write_tokens: shape.prompt_tokens_details.cache_write_tokens,
            cache_write_1h_tokens: shape.cache_creation.unwrap_or_default().ephemeral_1h_input_tokens,
            reasoning_tokens: shape.completion_tokens_details.reasoning_tokens,
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
        let silent = [
            "{}",
            r#"{"usage":null}"#,
            r#"{"usage":{}}"#,
            r#"{"usage":{"completion_tokens":3}}"#,
            r#"{"usage":{"prompt_tokens":10}}"#,
            r#"{"usage":{"prompt_tokens":8,"total_tokens":8}}"#,
        ];
        let absurd = [
            r#"{"usage":{"prompt_tokens":18446744073709551615,"completion_tokens":1}}"#,
            r#"{"usage":{"prompt_tokens":1,"completion_tokens":1000000001}}"#,
            r#"{"usage":{"input_tokens":1,"output_tokens":1,"cache_read_input_tokens":18446744073709551615}}"#,
        ];
        for silent in silent.into_iter().chain(absurd) {
            assert_eq!(usage(silent.as_bytes()), None, "{silent}");
        }
    }

    #[test]
    fn a_count_that_is_no_count_is_unknown() {
        for wrong in [
            r#"{"usage":{"prompt_tokens":-1,"completion_tokens":1}}"#,
            r#"{"usage":{"prompt_tokens":"9","completion_tokens":1}}"#,
            r#"{"usage":{"prompt_tokens":9,"completion_tokens":1.0}}"#,
            "<html>",
            "",
        ] {
            assert_eq!(usage(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn null_details_count_nothing() {
        let body = br#"{"usage":{"prompt_tokens":8,"completion_tokens":1,"prompt_tokens_details":null,
            "completion_tokens_details":{"reasoning_tokens":null}}}"#;
        assert_eq!(usage(body), Some(Usage::new(8, 1)));
    }

    #[test]
    fn reads_the_cache_hits_of_deepseek() {
        let body = br#"{"usage":{"prompt_tokens":8,"completion_tokens":1,"prompt_cache_hit_tokens":6,"prompt_cache_miss_tokens":2}}"#;
        assert_eq!(usage(body).unwrap().cached_tokens, 6);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let hour = Usage { cache_write_1h_tokens: 20, cache_write_tokens: 30, ..Usage::new(100, 5) };
        for usage in [hour, Usage { cached_tokens: 60, cache_write_tokens: 30, ..Usage::new(100, 5) }] {
            let text = serde_json::to_string(&usage).unwrap();
            assert_eq!(RawUsage::of(&text), Some(usage), "by who is shown it");
            assert_eq!(serde_json::from_str::<Usage>(&text).unwrap(), usage, "and from a store");
        }
        assert!(!serde_json::to_string(&Usage::new(1, 1)).unwrap().contains("cache_"));
    }

    #[test]
    fn what_was_kept_before_there_was_an_hour_is_read() {
        let kept = r#"{"prompt_tokens":100,"completion_tokens":5,"total_tokens":105,
            "prompt_tokens_details":{"cached_tokens":60,"cache_write_tokens":30},"completion_tokens_details":{"reasoning_tokens":2}}"#;
        let expected =
            Usage { cached_tokens: 60, cache_write_tokens: 30, reasoning_tokens: 2, ..Usage::new(100, 5) };
        assert_eq!(serde_json::from_str::<Usage>(kept).unwrap(), expected);
    }
}
