//! Bearer tokens: whoever has one of them is let in.

use subtle::Choice;

use super::digest::Digest;
use crate::ConfigError;

/// The fewest characters of a token: what is shorter can be guessed.
const SHORTEST: usize = 16;

/// The tokens that are accepted, as digests.
#[derive(Clone, Default)]
pub(super) struct Tokens(Vec<Digest>);

// === impl Tokens ===

impl Tokens {
    /// Accepts `token` as well. The line end that files and shells like to add is no part of it.
    ///
    /// # Errors
    /// When it is too short or could not be sent in a header.
    pub(super) fn add(&mut self, token: &str) -> Result<(), ConfigError> {
        let token = token.trim_end_matches(['\r', '\n']);
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::new(
                "a bearer token holds spaces or characters that are not visible ascii: no header can carry it",
            ));
        }
        let length = token.len();
        if length < SHORTEST {
            return Err(ConfigError::new(format!(
                "a bearer token of {length} characters can be guessed: use at least {SHORTEST} random ones"
            )));
        }
        self.0.push(Digest::of(&[token.as_bytes()]));
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `token` is one of them. Each is compared, whatever the others gave.
    pub(super) fn accept(&self, token: &str) -> bool {
        let shown = Digest::of(&[token.as_bytes()]);
        self.0.iter().fold(Choice::from(0), |found, known| found | known.is(&shown)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_each_of_its_tokens_and_no_other() {
        let mut tokens = Tokens::default();
        assert!(tokens.is_empty() && !tokens.accept(""));
        tokens.add("the-first-token-of-two\n").unwrap();
        tokens.add("the-other-token-of-two").unwrap();
        assert!(tokens.accept("the-first-token-of-two") && tokens.accept("the-other-token-of-two"));
        for other in ["", "the-first-token-of-two\n", "the-first-token-of-tw", "THE-FIRST-TOKEN-OF-TWO"] {
            assert!(!tokens.accept(other), "{other}");
        }
    }

    #[test]
    fn refuses_what_can_be_guessed_or_not_be_sent() {
        let refusal = |token| Tokens::default().add(token).unwrap_err().to_string();
        assert_eq!(
            refusal("hunter2"),
            "a bearer token of 7 characters can be guessed: use at least 16 random ones"
        );
        assert_eq!(refusal(""), "a bearer token of 0 characters can be guessed: use at least 16 random ones");
        assert!(refusal("with a space in its middle").contains("no header can carry it"));
        assert!(!refusal("with a space in its middle").contains("middle"));
    }
}
