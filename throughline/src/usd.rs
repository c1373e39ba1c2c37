//! Sums of US dollars that many threads add to.

use std::sync::atomic::{AtomicU64, Ordering};

/// A sum in billionths of a US dollar: integers add up without a lock.
#[derive(Debug, Default)]
pub(crate) struct Usd(AtomicU64);

// === impl Usd ===

impl Usd {
    /// Adds `usd`, unless it is no amount of money.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is money; a cast saturates"
    )]
    pub(crate) fn add(&self, usd: f64) {
        if is_money(usd) {
            let billionths = (usd * 1e9).round() as u64;
            self.0.update(Ordering::Relaxed, Ordering::Relaxed, |sum| sum.saturating_add(billionths));
        }
    }

    /// The sum in US dollars.
    pub(crate) fn total(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / 1e9
    }
}

/// Whether `usd` can be an amount that was paid.
pub(crate) fn is_money(usd: f64) -> bool {
    usd.is_finite() && usd >= 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_beyond_all_bounds_stays_there() {
        let sum = Usd::default();
        for usd in [f64::MAX, 5.0, f64::MAX, f64::NAN, f64::INFINITY, -1.0] {
            sum.add(usd);
        }
        assert!(sum.total() > 1e10, "{}", sum.total());
    }
}
