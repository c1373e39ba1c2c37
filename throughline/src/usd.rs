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
            self.0.fetch_add((usd * 1e9).round() as u64, Ordering::Relaxed);
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
