//! What a semantic cache is told: when questions are alike, what it does then, and how much of that is audited.

use std::time::Duration;

use throughline::{ConfigError, labels};

labels! {
    /// What a semantic cache does with what it finds.
    #[non_exhaustive]
    pub enum Mode {
        /// It answers nobody, and compares what it would have answered with what the provider did.
        Shadow = "shadow",
        /// It answers.
        Answer = "answer",
    }
}

/// How similar questions are found. What is cached at all, and for how long, is the exact cache's to say.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `semantic`"]
pub struct SemanticConfig {
    pub(super) mode: Mode,
    pub(super) threshold: f32,
    pub(super) most_entries: usize,
    pub(super) most_bytes: usize,
    pub(super) longest_prompt: usize,
    pub(super) bands: Vec<usize>,
    pub(super) store_deadline: Duration,
    pub(super) audit: f64,
    pub(super) max_error: Option<f64>,
}

// === impl SemanticConfig ===

impl SemanticConfig {
    /// How many questions are known at most, unless something else is said.
    pub const MOST_ENTRIES: usize = 10_000;
    /// How many bytes they take at most.
    pub const MOST_BYTES: usize = 64 << 20;
    /// The longest question that is looked for, in characters.
    pub const LONGEST_PROMPT: usize = 500;
    /// The share of the given answers that are audited: one costs about what one has saved, so that of a hundred answers one
    /// is paid to know of the others.
    pub const AUDIT: f64 = 0.01;

    /// Starts in shadow mode with what counts as similar enough: a cosine.
    ///
    /// # Errors
    /// When it is not above 0 and at most 1.
    pub fn new(threshold: f64) -> Result<Self, ConfigError> {
        if !(threshold > 0.0 && threshold <= 1.0) {
            return Err(ConfigError::new(format!(
                "the threshold is {threshold}: it must be above 0 and at most 1"
            )));
        }
        #[expect(clippy::cast_possible_truncation, reason = "a cosine needs no more than seven digits")]
        let threshold = threshold as f32;
        Ok(Self {
            mode: Mode::Shadow,
            threshold,
            most_entries: Self::MOST_ENTRIES,
            most_bytes: Self::MOST_BYTES,
            longest_prompt: Self::LONGEST_PROMPT,
            bands: Vec::new(),
            store_deadline: Duration::from_millis(20),
            audit: Self::AUDIT,
            max_error: None,
        })
    }

    /// Answers, in place of comparing.
    pub fn answering(mut self) -> Self {
        self.mode = Mode::Answer;
        self
    }

    /// Knows at most so many questions, in so many bytes. Default: 10,000 in 64 MiB.
    pub fn bounds(mut self, entries: usize, bytes: usize) -> Self {
        (self.most_entries, self.most_bytes) = (entries, bytes);
        self
    }

    /// Looks for no question that is longer, in characters: a word that matters hardly moves a long text. Default: 500.
    pub fn longest_prompt(mut self, chars: usize) -> Self {
        self.longest_prompt = chars;
        self
    }

    /// Keeps apart requests of at least so many characters from others: where a router inside looks at that. Default: none.
    pub fn bands(mut self, chars: Vec<usize>) -> Self {
        self.bands = chars;
        self
    }

    /// How long the store may take to give an answer. Default: 20 ms.
    pub fn store_deadline(mut self, limit: Duration) -> Self {
        self.store_deadline = limit;
        self
    }

    /// Asks the provider all the same behind this share of the answers that are given, and compares: 0 asks nothing more, 1
    /// saves nothing. Without effect in shadow mode, which compares every hit. Default: 0.01.
    ///
    /// # Errors
    /// When it is not from 0 to 1.
    pub fn audit(mut self, share: f64) -> Result<Self, ConfigError> {
        if !(0.0..=1.0).contains(&share) {
            return Err(ConfigError::new(format!("the audited share is {share}: it must be from 0 to 1")));
        }
        self.audit = share;
        Ok(self)
    }

    /// The share of wrong answers that the threshold was learned for: there is a warning when audits show more. Default: none,
    /// and no warning.
    ///
    /// # Errors
    /// When it is not above 0 and at most 1.
    pub fn max_error(mut self, share: f64) -> Result<Self, ConfigError> {
        if !(share > 0.0 && share <= 1.0) {
            return Err(ConfigError::new(format!(
                "the share of errors is {share}: it must be above 0 and at most 1"
            )));
        }
        self.max_error = Some(share);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_cosine_above_zero() {
        for (wrong, shown) in [(0.0, "0"), (-0.5, "-0.5"), (1.01, "1.01"), (f64::NAN, "NaN")] {
            let refused = SemanticConfig::new(wrong).map_err(|error| error.to_string());
            let text = format!("the threshold is {shown}: it must be above 0 and at most 1");
            assert_eq!(refused, Err(text));
        }
        assert!(SemanticConfig::new(1.0).is_ok());
    }

    #[test]
    fn shares_are_refused_where_they_are_none() {
        let config = || SemanticConfig::new(0.9).unwrap();
        let said = |refused: Result<SemanticConfig, ConfigError>| refused.unwrap_err().to_string();
        assert_eq!(said(config().audit(1.5)), "the audited share is 1.5: it must be from 0 to 1");
        assert_eq!(said(config().audit(f64::NAN)), "the audited share is NaN: it must be from 0 to 1");
        assert_eq!(
            said(config().max_error(0.0)),
            "the share of errors is 0: it must be above 0 and at most 1"
        );
        assert!(config().audit(0.0).and_then(|config| config.max_error(1.0)).is_ok());
    }
}
