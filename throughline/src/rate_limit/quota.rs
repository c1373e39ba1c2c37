//! How much may pass in which time.

use std::time::Duration;

use super::gcra::Gcra;
use crate::error::ConfigError;

/// The shortest and the longest period.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(31 * 24 * 60 * 60);
/// Nanoseconds a unit must take at least, so that rounding them up makes a rate slower by 1 % at most.
const LEAST_INTERVAL: u64 = 100;

/// How much may pass in which time, and how much of it at once.
///
/// What passes is spread by the generic cell rate algorithm: in any span of time it is at most the span's
/// share of the amount, plus the burst. A provider that counts by fixed windows can see up to an amount and a
/// burst in one of them; a small burst keeps below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    amount: u64,
    period: Duration,
    interval: u64,
    burst: u64,
}

// === impl Quota ===

impl Quota {
    /// `amount` in every `period`, all of it at once if it has not been used.
    ///
    /// # Errors
    /// When the amount is zero, or more than one in 100 ns, or the period is not from 1 ms to 31 days.
    pub fn new(amount: u64, period: Duration) -> Result<Self, ConfigError> {
        if !(SHORTEST..=LONGEST).contains(&period) {
            let allowed = format_args!("from {SHORTEST:?} to {LONGEST:?}");
            return Err(ConfigError::refused("quota period", period, allowed));
        }
        let nanos = u64::try_from(period.as_nanos()).expect("31 days of nanoseconds fit");
        let most = nanos / LEAST_INTERVAL;
        if amount == 0 || amount > most {
            let given = format_args!("{amount} in {period:?}");
            return Err(ConfigError::refused("quota amount", given, format_args!("from 1 to {most}")));
        }
        Ok(Self { amount, period, interval: nanos.div_ceil(amount), burst: amount })
    }

    /// As [`Quota::new`], in every second.
    ///
    /// # Errors
    /// When the amount is zero or more than 10 million.
    pub fn per_second(amount: u64) -> Result<Self, ConfigError> {
        Self::new(amount, Duration::from_secs(1))
    }

    /// As [`Quota::new`], in every minute.
    ///
    /// # Errors
    /// When the amount is zero or more than 600 million.
    pub fn per_minute(amount: u64) -> Result<Self, ConfigError> {
        Self::new(amount, Duration::from_secs(60))
    }

    /// How much passes at once when nothing has for a while. Nothing larger ever passes. Default: the amount.
    ///
    /// # Errors
    /// When it is zero, or takes more than 31 days to come together.
    pub fn burst(mut self, burst: u64) -> Result<Self, ConfigError> {
        let most = u64::try_from(LONGEST.as_nanos()).expect("31 days of nanoseconds fit") / self.interval;
        if burst == 0 || burst > most {
            return Err(ConfigError::refused("quota burst", burst, format_args!("from 1 to {most}")));
        }
        self.burst = burst;
        Ok(self)
    }

    /// What passes at once at most.
    #[must_use]
    pub fn most_at_once(&self) -> u64 {
        self.burst
    }

    pub(super) fn bucket(&self) -> Gcra {
        Gcra::new(self.interval, self.burst)
    }

    /// The quota in words.
    pub(super) fn of(&self, what: &str) -> String {
        format!("{} {what} in {:?} are allowed", self.amount, self.period)
    }
}
