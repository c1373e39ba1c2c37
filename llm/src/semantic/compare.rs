//! Whether two answers say the same, as far as that can be seen.

use throughline::{Context, labels};

use super::embedder::Embedder;
use super::guard::Marks;

labels! {
    /// What is seen of two answers: the one that was given, or would have been, and the one that the provider gave.
    #[non_exhaustive]
    pub enum Verdict {
        /// They are the same but for case, punctuation and spaces.
        Same = "same",
        /// They are long, hold the same numbers, names and negations, and are near each other.
        Alike = "alike",
        /// They are not.
        Different = "different",
        /// At least one of them is not text, or is too long, or there was nobody to ask.
        Unknown = "unknown",
    }
}

/// Shorter ones are the same or they are not: `yes` and `no` are near each other for every embedder.
const SHORT: usize = 80;
/// Longer ones are not compared.
const LONGEST: usize = 8 * 1024;
/// How near long answers must be to count as alike.
const NEAR: f32 = 0.9;

/// Compares two answers. What embedding them has cost comes with the verdict.
pub(super) async fn compare(
    one: Option<&str>,
    other: Option<&str>,
    embedder: &Embedder,
    cx: &Context,
) -> (Verdict, Option<f64>) {
    let (Some(one), Some(other)) = (one, other) else { return (Verdict::Unknown, Some(0.0)) };
    let (plain, others) = (normal(one), normal(other));
    // Signs alone are nothing without their punctuation.
    if plain == others && (!plain.is_empty() || one.trim() == other.trim()) {
        return (Verdict::Same, Some(0.0));
    }
    if one.len().max(other.len()) > LONGEST {
        return (Verdict::Unknown, Some(0.0));
    }
    if plain.len().min(others.len()) <= SHORT || !Marks::of_answer(one).allow(&Marks::of_answer(other)) {
        return (Verdict::Different, Some(0.0));
    }
    let Ok(embedded) = embedder.ask(vec![one.to_owned(), other.to_owned()], cx).await else {
        return (Verdict::Unknown, Some(0.0));
    };
    let cost = embedded.cost_usd;
    let Ok(embedded) = embedder.check(embedded, 2) else { return (Verdict::Unknown, cost) };
    let similarity = embedded.vectors[0].similarity(&embedded.vectors[1]);
    let verdict =
        if similarity.is_some_and(|found| found >= NEAR) { Verdict::Alike } else { Verdict::Different };
    (verdict, cost)
}

/// Without case, punctuation and more than one space.
fn normal(text: &str) -> String {
    let words = text.split(|c: char| {
        !c.is_alphanumeric() && !matches!(c, '-' | '+' | '%' | '$' | '€' | '£' | '.' | '<' | '>' | '=')
    });
    let words = words.map(|word| word.trim_end_matches('.').to_lowercase()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn verdict(one: &str, other: &str) -> Verdict {
        compare(Some(one), Some(other), &Embedder::ngrams(), &Context::new()).await.0
    }

    #[tokio::test]
    async fn short_answers_are_the_same_or_different() {
        assert_eq!(verdict("Paris.", "  paris").await, Verdict::Same);
        assert_eq!(verdict("It costs $5!", "it costs $5").await, Verdict::Same);
        for (one, other) in [
            ("yes", "no"),
            ("5", "-5"),
            ("1.5", "15"),
            ("x < y", "x > y"),
            ("Paris", "Paris it is"),
            ("👍", "👎"),
        ] {
            assert_eq!(verdict(one, other).await, Verdict::Different, "{one} {other}");
        }
    }

    #[tokio::test]
    async fn long_answers_may_be_alike_unless_a_number_or_a_name_differs() {
        let long = "open the application, choose the menu of your card, touch the button for a new one and wait until it \
                    has come by mail, which takes 5 days";
        let other = long.replace("touch the button", "press the button");
        assert_eq!(verdict(long, &other).await, Verdict::Alike);
        assert_eq!(verdict(long, &long.replace('5', "6")).await, Verdict::Different);
        let unlike = "we are sorry to hear that; somebody of our support will write to you about it as soon as \
                      they can, usually after 5 days";
        assert_eq!(verdict(long, unlike).await, Verdict::Different);
    }

    #[tokio::test]
    async fn what_is_no_text_cannot_be_compared() {
        let (embedder, cx) = (Embedder::ngrams(), Context::new());
        assert_eq!(compare(None, Some("x"), &embedder, &cx).await.0, Verdict::Unknown);
        let (long, other) = ("word ".repeat(2000), "other ".repeat(2000));
        assert_eq!(compare(Some(&long), Some(&other), &embedder, &cx).await.0, Verdict::Unknown);
        let numbered = format!("{long} 5");
        assert_eq!(verdict(&long, &numbered).await, Verdict::Unknown, "marks are not read of long ones");
        assert_eq!(verdict(&long, &long).await, Verdict::Same, "nothing has to be read for that");
    }
}
