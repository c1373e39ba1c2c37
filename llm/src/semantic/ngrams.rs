//! An embedder without a model: words, pairs of words and pieces of words, hashed into a fixed number of dimensions.
//!
//! It knows how words look and nothing of what they mean: "reset my password" and "change my passcode" have little in
//! common for it. It costs some microseconds and nothing else. Words that carry little meaning weigh little. The
//! hashing trick with signs is that of Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (2009).

use super::tokens::{Token, tokens};
use super::vector::Vector;
use super::words::{is_function, stem};

/// Names what [`ngrams`] makes: a change of that is another name, since thresholds are learned for one.
pub(super) const NAME: &str = "ngrams-1";

const DIMENSIONS: usize = 512;

/// What a word weighs, one that carries little meaning, a pair of words, and all pieces of a word together.
const WORD: f32 = 1.0;
const LITTLE: f32 = 0.25;
const PAIR: f32 = 0.5;
const PIECES: f32 = 1.0;

/// The direction of `text`; `None` when there is no word in it.
pub(super) fn ngrams(text: &str) -> Option<Vector> {
    let mut sum = [0.0; DIMENSIONS];
    let mut before = String::new();
    for token in tokens(text) {
        let (word, little) = match token {
            Token::Word { text, .. } => {
                let lower = text.to_lowercase().replace('’', "'");
                (stem(&lower), is_function(&lower))
            }
            Token::Number(text) | Token::Exact(text) | Token::Quoted(text) => (text.to_lowercase(), false),
        };
        add(&mut sum, &[b"w", word.as_bytes()], if little { LITTLE } else { WORD });
        add(&mut sum, &[b"p", before.as_bytes(), b" ", word.as_bytes()], if little { LITTLE } else { PAIR });
        if !little {
            pieces(&mut sum, &word);
        }
        before = word;
    }
    Vector::new(&sum)
}

/// Adds runs of three and of four letters.
fn pieces(sum: &mut [f32; DIMENSIONS], word: &str) {
    let padded: Vec<char> = format!("<{word}>").chars().collect();
    let count = (padded.len().saturating_sub(2) + padded.len().saturating_sub(3)).max(1);
    #[expect(clippy::cast_precision_loss, reason = "words are short")]
    let weight = PIECES / (count as f32).sqrt();
    for run in padded.windows(3).chain(padded.windows(4)) {
        let piece: String = run.iter().collect();
        add(sum, &[b"c", piece.as_bytes()], weight);
    }
}

fn add(sum: &mut [f32; DIMENSIONS], parts: &[&[u8]], weight: f32) {
    let hash = hash(parts);
    let at = usize::try_from(hash % DIMENSIONS as u64).expect("it is below the number of dimensions");
    sum[at] += if hash >> 63 == 0 { weight } else { -weight };
}

/// FNV-1a, 64 bits (Fowler, Noll and Vo), stirred as in SplitMix64, for FNV's high bits hardly change with the last byte.
fn hash(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn alike(one: &str, other: &str) -> f32 {
        ngrams(one).unwrap().similarity(&ngrams(other).unwrap()).unwrap()
    }

    #[test]
    fn what_looks_alike_is_nearer_than_what_does_not() {
        let question = "How do I reset my password?";
        assert!(alike(question, "how do i reset my password") > 0.999);
        assert!(alike(question, "How can I reset my passwords?") > 0.85);
        assert!(alike(question, "How do I change the address of my account?") < 0.5);
        assert!(alike(question, "When does the train leave?") < 0.3);
    }

    #[test]
    fn a_text_without_words_has_no_direction() {
        for none in ["", " \n", "?!"] {
            assert_eq!(ngrams(none), None);
        }
    }

    /// Thresholds are learned for these figures: when they change, so must [`NAME`].
    #[test]
    fn the_same_text_has_the_same_direction_in_every_version() {
        let shown = [
            ("lost my card", "my card is lost"),
            ("reset my password", "Please reset all the passwords now!"),
        ]
        .map(|(one, other)| format!("{:.3}", alike(one, other)));
        assert_eq!(shown, ["0.919", "0.667"]);
    }

    proptest! {
        #[test]
        fn every_text_is_read(text: String) {
            if let Some(vector) = ngrams(&text) {
                prop_assert_eq!(vector.dimensions(), DIMENSIONS);
            }
        }
    }
}
