//! Which threshold keeps the share of wrong answers below a bound, by labelled examples.
//!
//! Of the answers that a threshold lets through, so many are wrong by chance; what is stated is an upper confidence
//! bound of that share (Clopper and Pearson 1934, one-sided). Looking at many thresholds and taking the best would make
//! the bound a lie, so they are tested in a fixed order, from the strictest to the loosest, and the first that fails
//! ends it: then the bound holds for the one that is taken with the confidence of a single test (fixed-sequence
//! testing, as in Angelopoulos et al., "Learn then Test", 2021). The few nearest questions may be the worst labelled, so
//! it begins at a few places, which share what may go wrong (Bonferroni). Where these are is decided by how many answers
//! a threshold lets through, never by how many of them are wrong.
//!
//! The bound holds for questions like the examples. It says nothing of others.

/// What became of one example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// How similar the questions are; `None` where the rules forbid the answer, or there is none.
    pub similarity: Option<f32>,
    /// Whether the one's answer is right for the other.
    pub right: bool,
}

/// What a threshold does to the examples.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// The threshold.
    pub threshold: f64,
    /// How many get an answer.
    pub served: u64,
    /// How many of these get a wrong one.
    pub wrong: u64,
    /// The share of all that get an answer.
    pub hit_rate: f64,
    /// An upper bound of the share of wrong answers in all that are given; 1 where none is.
    pub bound: f64,
}

/// Why there is no threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// Even without an error, so few answers say too little.
    TooFew {
        /// The most that any threshold lets through.
        served: u64,
        /// How many it takes.
        needed: u64,
    },
    /// There are too many wrong answers.
    TooManyErrors,
}

/// Thresholds by hundredths and halves of them; a loose one does not keep anything apart.
const STRICTEST: u32 = 200;
const LOOSEST: u32 = 100;

/// What every threshold does, from the strictest to the loosest, with bounds of this `confidence`.
#[must_use]
pub fn rows(trials: &[Trial], confidence: f64) -> Vec<Row> {
    let thresholds = (LOOSEST..=STRICTEST).rev().map(|step| f64::from(step) / f64::from(STRICTEST));
    thresholds.map(|threshold| row(trials, threshold, confidence)).collect()
}

/// What `threshold` does.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "nobody labels so many pairs")]
pub fn row(trials: &[Trial], threshold: f64, confidence: f64) -> Row {
    let passes = |trial: &&Trial| trial.similarity.is_some_and(|found| f64::from(found) >= threshold - 1e-6);
    let served = trials.iter().filter(passes).count() as u64;
    let wrong = trials.iter().filter(passes).filter(|trial| !trial.right).count() as u64;
    let hit_rate = if trials.is_empty() { 0.0 } else { served as f64 / trials.len() as f64 };
    Row { threshold, served, wrong, hit_rate, bound: upper_bound(wrong, served, confidence) }
}

/// The loosest threshold of `rows` whose errors are at most `max_error` with this confidence, as far as there are
/// examples. Its bound is the one that it was taken by.
///
/// # Errors
/// When the examples do not show that of any.
pub fn choose(rows: &[Row], max_error: f64, confidence: f64) -> Result<Row, Refused> {
    let needed = fewest(0, max_error, confidence);
    let most = rows.iter().map(|row| row.served).max().unwrap_or(0);
    if most < needed {
        return Err(Refused::TooFew { served: most, needed });
    }
    let starts = starts(rows, most, max_error, confidence);
    #[expect(clippy::cast_precision_loss, reason = "there are a few")]
    let each = 1.0 - (1.0 - confidence) / starts.len() as f64;
    let tested = |row: &Row| Row { bound: upper_bound(row.wrong, row.served, each), ..*row };
    let passing = starts
        .iter()
        .flat_map(|start| rows[*start..].iter().map(tested).take_while(|row| row.bound <= max_error));
    let passing: Vec<_> = passing.collect();
    let looser = |one: &&Row, other: &&Row| other.threshold.total_cmp(&one.threshold);
    let loosest = passing.iter().max_by(looser).ok_or(Refused::TooManyErrors)?;
    // Between here and the loosest there is no example: nothing is shown of what it would let through.
    let same = passing.iter().filter(|row| row.served == loosest.served);
    Ok(*same.min_by(looser).unwrap_or(loosest))
}

/// Where the tests begin: at the strictest threshold that lets enough answers through to bear an error, and at those
/// with four times as many each. By how many are wrong it must not be decided.
fn starts(rows: &[Row], most: u64, max_error: f64, confidence: f64) -> Vec<usize> {
    let first = fewest(1, max_error, confidence).min(most);
    let wanted = std::iter::successors(Some(first), |served| served.checked_mul(4))
        .take_while(|served| *served <= most);
    let mut starts: Vec<_> =
        wanted.filter_map(|served| rows.iter().position(|row| row.served >= served)).collect();
    starts.dedup();
    starts
}

/// How many answers it takes to show `max_error` with so many wrong ones among them.
#[must_use]
pub fn fewest(wrong: u64, max_error: f64, confidence: f64) -> u64 {
    let shows = |served: u64| upper_bound(wrong, served, confidence) <= max_error;
    let mut enough = 1;
    while !shows(enough) {
        enough *= 2;
        if enough > 1 << 40 {
            return u64::MAX;
        }
    }
    let mut too_few = enough / 2;
    while enough - too_few > 1 {
        let middle = too_few + (enough - too_few) / 2;
        if shows(middle) {
            enough = middle;
        } else {
            too_few = middle;
        }
    }
    enough
}

/// The largest share of errors by which so few `wrong` ones of `served` are not less likely than 1 − `confidence`.
#[must_use]
pub fn upper_bound(wrong: u64, served: u64, confidence: f64) -> f64 {
    if wrong >= served {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if at_most(wrong, served, middle) > 1.0 - confidence {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The smallest share of errors by which so many `wrong` ones of `served` are not less likely than 1 − `confidence`.
#[must_use]
pub fn lower_bound(wrong: u64, served: u64, confidence: f64) -> f64 {
    // What is not wrong is right.
    if wrong == 0 { 0.0 } else { 1.0 - upper_bound(served.saturating_sub(wrong), served, confidence) }
}

/// How likely at most `wrong` errors in `served` are, at this `share`.
#[expect(clippy::cast_precision_loss, reason = "nobody labels so many pairs")]
fn at_most(wrong: u64, served: u64, share: f64) -> f64 {
    if share <= 0.0 {
        return 1.0;
    }
    let (ln_share, ln_rest, n) = (share.ln(), (-share).ln_1p(), served as f64);
    let (mut ln_choose, mut sum) = (0.0, 0.0);
    for k in 0..=wrong {
        let k = k as f64;
        if k > 0.0 {
            ln_choose += ((n - k + 1.0) / k).ln();
        }
        sum += (ln_choose + k * ln_share + (n - k) * ln_rest).exp();
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 5e-5, "{got} is not {expected}");
    }

    #[test]
    fn the_bound_is_that_of_clopper_and_pearson() {
        // Beta quantiles, one-sided 95 %.
        near(upper_bound(0, 299, 0.95), 0.00997);
        near(upper_bound(0, 10, 0.95), 0.25887);
        near(upper_bound(1, 10, 0.95), 0.39416);
        near(upper_bound(5, 100, 0.95), 0.10225);
        near(upper_bound(50, 1000, 0.99), 0.06840);
        near(upper_bound(3, 3, 0.95), 1.0);
        near(upper_bound(0, 0, 0.95), 1.0);
    }

    #[test]
    fn the_lower_bound_is_the_upper_one_of_what_is_right() {
        near(lower_bound(5, 100, 0.95), 0.01991);
        near(lower_bound(10, 10, 0.95), 0.74113);
        near(lower_bound(1, 10, 0.95), 0.00512);
        near(lower_bound(0, 10, 0.95), 0.0);
        near(lower_bound(0, 0, 0.95), 0.0);
    }

    #[test]
    fn it_takes_three_hundred_answers_without_an_error_to_show_one_percent() {
        assert_eq!(fewest(0, 0.01, 0.95), 299);
        assert_eq!(fewest(1, 0.01, 0.95), 473);
        assert_eq!(fewest(0, 0.05, 0.95), 59);
    }

    fn trials(of: &[(usize, f32, bool)]) -> Vec<Trial> {
        let one = |(count, similarity, right): &(usize, f32, bool)| {
            vec![Trial { similarity: Some(*similarity), right: *right }; *count]
        };
        of.iter().flat_map(one).collect()
    }

    #[test]
    fn takes_the_loosest_threshold_with_examples_before_the_first_that_fails() {
        let trials = trials(&[(600, 0.95, true), (400, 0.9, true), (30, 0.8, false), (3000, 0.7, true)]);
        let rows = rows(&trials, 0.95);
        let chosen = choose(&rows, 0.01, 0.95).unwrap();
        assert_eq!((chosen.served, chosen.wrong), (1000, 0));
        near(chosen.threshold, 0.9);
        // 30 wrong ones in 4,030 are few enough, but the order was fixed beforehand.
        assert!(row(&trials, 0.6, 0.95).bound <= 0.0105);
    }

    #[test]
    fn a_few_wrong_labels_among_the_nearest_do_not_end_it() {
        let trials = trials(&[(230, 0.99, true), (30, 0.99, false), (4000, 0.9, true)]);
        let rows = rows(&trials, 0.95);
        assert!(rows.iter().find(|row| row.served > 0).unwrap().bound > 0.05);
        let chosen = choose(&rows, 0.02, 0.95).unwrap();
        assert_eq!((chosen.served, chosen.wrong), (4260, 30));
        assert!(
            chosen.bound > row(&trials, chosen.threshold, 0.95).bound,
            "several beginnings have their price"
        );
    }

    #[test]
    fn what_is_forbidden_or_has_no_neighbour_gets_no_answer() {
        let trials = [Trial { similarity: None, right: false }, Trial { similarity: Some(1.0), right: true }];
        let row = row(&trials, 0.9, 0.95);
        assert_eq!((row.served, row.wrong, row.hit_rate), (1, 0, 0.5));
    }

    #[test]
    fn too_few_or_too_wrong_examples_show_nothing() {
        let few = rows(&trials(&[(298, 0.95, true)]), 0.95);
        assert_eq!(choose(&few, 0.01, 0.95), Err(Refused::TooFew { served: 298, needed: 299 }));
        assert!(choose(&rows(&trials(&[(299, 0.95, true)]), 0.95), 0.01, 0.95).is_ok());
        let wrong = rows(&trials(&[(500, 0.95, true), (20, 0.97, false)]), 0.95);
        assert_eq!(choose(&wrong, 0.01, 0.95), Err(Refused::TooManyErrors));
        assert_eq!(choose(&rows(&[], 0.95), 0.01, 0.95), Err(Refused::TooFew { served: 0, needed: 299 }));
    }

    /// The promise itself: over many sets of examples, a threshold that is too wrong is rarely taken.
    #[test]
    fn a_threshold_that_is_too_wrong_is_taken_at_most_as_often_as_the_confidence_allows() {
        let mut random = fastrand::Rng::with_seed(7);
        let (max_error, confidence, sets) = (0.05, 0.9, 400);
        // The true share of errors among what a threshold t lets through, when errors at s have the share (1 - s) / 2.
        let true_error = |t: f64| (1.0 - t) / 4.0;
        let mut broken = 0;
        for _ in 0..sets {
            let one = |random: &mut fastrand::Rng| {
                let similarity = 0.5 + random.f64() / 2.0;
                #[expect(clippy::cast_possible_truncation, reason = "it is a test value")]
                Trial { similarity: Some(similarity as f32), right: random.f64() >= (1.0 - similarity) / 2.0 }
            };
            let trials: Vec<_> = (0..600).map(|_| one(&mut random)).collect();
            if choose(&rows(&trials, confidence), max_error, confidence)
                .is_ok_and(|row| true_error(row.threshold) > max_error)
            {
                broken += 1;
            }
        }
        // 10 % of 400 are 40; three standard deviations are 18.
        assert!(broken <= 58, "{broken} of {sets}");
    }
}
