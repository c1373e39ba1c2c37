//! Directions in space, in a byte a dimension.

/// The direction of a text. Two texts are as alike as their directions: the similarity is the cosine of the angle.
///
/// A byte a dimension is a quarter of what floats take, and changes a cosine by less than a hundredth.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    values: Box<[i8]>,
    /// One by its length.
    scale: f32,
}

/// More dimensions than any model has.
pub(super) const MOST_DIMENSIONS: usize = 8192;

// === impl Vector ===

impl Vector {
    /// The direction of `values`; `None` for none, for too many, for no direction at all, and for what is not finite.
    #[must_use]
    pub fn new(values: &[f32]) -> Option<Self> {
        if values.is_empty()
            || values.len() > MOST_DIMENSIONS
            || !values.iter().all(|value| value.is_finite())
        {
            return None;
        }
        let largest = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        if largest < f32::MIN_POSITIVE {
            return None;
        }
        // Within -127 to 127 by what the largest is.
        #[expect(clippy::cast_possible_truncation, reason = "rounded, and at most 127")]
        let values: Box<[i8]> = values.iter().map(|value| (value / largest * 127.0).round() as i8).collect();
        #[expect(clippy::cast_precision_loss, reason = "a length needs no more than seven digits")]
        let scale = 1.0 / (dot(&values, &values) as f32).sqrt();
        Some(Self { values, scale })
    }

    /// The cosine of the angle between the two, -1 to 1; `None` when they are not of one space.
    #[must_use]
    pub fn similarity(&self, other: &Self) -> Option<f32> {
        if self.values.len() != other.values.len() {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a cosine needs no more than seven digits")]
        let dot = dot(&self.values, &other.values) as f32;
        Some((dot * self.scale * other.scale).clamp(-1.0, 1.0))
    }

    /// How many numbers it has.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.values.len()
    }
}

/// At most 127² times [`MOST_DIMENSIONS`], which an `i32` holds.
fn dot(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_has_no_direction_is_refused() {
        for none in
            [&[][..], &[0.0, 0.0], &[f32::NAN, 1.0], &[1.0, f32::INFINITY], &[0.5; MOST_DIMENSIONS + 1]]
        {
            assert_eq!(Vector::new(none), None);
        }
        assert_eq!(Vector::new(&[1.0]).unwrap().similarity(&Vector::new(&[1.0, 0.0]).unwrap()), None);
    }

    proptest! {
        #[test]
        fn the_similarity_is_the_cosine_within_a_hundredth(
            a in proptest::collection::vec(-1.0_f32..1.0, 64),
            b in proptest::collection::vec(-1.0_f32..1.0, 64),
        ) {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let cosine = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
            let (a, b) = (Vector::new(&a).unwrap(), Vector::new(&b).unwrap());
            prop_assert!((a.similarity(&b).unwrap() - cosine).abs() < 0.01);
            prop_assert!((a.similarity(&a).unwrap() - 1.0).abs() < 1e-5);
        }
    }
}
