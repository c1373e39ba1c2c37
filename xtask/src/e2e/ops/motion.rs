//! Whether what a query shows has moved: against the band in which it kept while nothing was wrong.

use std::collections::BTreeMap;

use super::prometheus::Series;

/// How far beyond its band a value must go: this share of the band's width, …
const OF_WIDTH: f64 = 0.25;
/// … and this share of the value.
const OF_VALUE: f64 = 0.02;

/// Whether any series of `then` is out of the band that it had in `before`, is new, or is gone at the end.
pub(crate) fn moved(before: &[Series], then: &[Series]) -> bool {
    let known: BTreeMap<_, _> = before.iter().map(|series| (&series.labels, series)).collect();
    let came_or_left = then.iter().any(|series| match known.get(&series.labels) {
        None => true,
        Some(known) => leaves(&finite(known), &finite(series)),
    });
    came_or_left || known.keys().any(|labels| !then.iter().any(|series| series.labels == **labels))
}

/// Whether a value is out of the band of the values before.
fn leaves(before: &[f64], then: &[f64]) -> bool {
    let Some((least, most)) = band(before) else { return !then.is_empty() };
    let margin = OF_WIDTH * (most - least) + OF_VALUE * most.abs().max(least.abs()) + f64::EPSILON;
    then.iter().any(|value| *value < least - margin || *value > most + margin)
}

fn band(values: &[f64]) -> Option<(f64, f64)> {
    let first = *values.first()?;
    Some(values.iter().fold((first, first), |(least, most), value| (least.min(*value), most.max(*value))))
}

fn finite(series: &Series) -> Vec<f64> {
    series.points.iter().map(|(_, value)| *value).filter(|value| value.is_finite()).collect()
}

/// Why this is no answer for a panel, if it is none.
pub(crate) fn flaw(answer: &Result<Vec<Series>, String>) -> Option<String> {
    match answer {
        Err(error) => Some(error.clone()),
        Ok(series) if series.is_empty() => Some("no data".to_owned()),
        Ok(series) => {
            let odd = series.iter().find_map(|series| {
                let odd = series.points.iter().rfind(|(_, value)| !value.is_finite())?;
                Some(format!("{} for {:?}", odd.1, series.labels))
            });
            odd.or_else(|| series.iter().all(|series| series.points.is_empty()).then(|| "no data".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, values: &[f64]) -> Series {
        let labels = BTreeMap::from([("route".to_owned(), name.to_owned())]);
        Series { labels, points: values.iter().map(|value| (0.0, *value)).collect() }
    }

    #[test]
    fn staying_in_the_band_is_no_motion() {
        let before = [series("a", &[1.0, 2.0, 1.5])];
        assert!(!moved(&before, &[series("a", &[1.0, 2.2])]));
        assert!(moved(&before, &[series("a", &[1.0, 2.5, 1.0])]));
        assert!(moved(&before, &[series("a", &[0.5])]));
    }

    #[test]
    fn what_was_still_moves_by_little() {
        let before = [series("a", &[0.0, 0.0])];
        assert!(!moved(&before, &[series("a", &[0.0])]));
        assert!(moved(&before, &[series("a", &[0.001])]));
    }

    #[test]
    fn coming_and_going_are_motion() {
        let before = [series("a", &[1.0])];
        assert!(moved(&before, &[series("a", &[1.0]), series("b", &[1.0])]));
        assert!(moved(&before, &[]));
        assert!(moved(&[], &before));
    }

    #[test]
    fn says_what_is_wrong_with_an_answer() {
        assert_eq!(flaw(&Ok(vec![series("a", &[1.0])])), None);
        assert_eq!(flaw(&Ok(Vec::new())).as_deref(), Some("no data"));
        assert_eq!(flaw(&Err("parse error".to_owned())).as_deref(), Some("parse error"));
        assert_eq!(
            flaw(&Ok(vec![series("a", &[1.0, f64::NAN])])).as_deref(),
            Some("NaN for {\"route\": \"a\"}")
        );
    }
}
