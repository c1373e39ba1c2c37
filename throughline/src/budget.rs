//! Caps what retries, hedges and fallbacks together may add to the load of one target.
//!
//! Every success of the target earns a fraction of a token, every extra call costs one; a floor per second
//! keeps a quiet client able to retry. The more of the target's calls fail, the less is added to its load:
//! a dead target is called once per request, and beyond that only as often as the floor allows. What the
//! budget refuses is never an error of its own: a retry and a fallback return the error they had, a hedge
//! leaves the first call alone.
//!
//! Make one per target and give it to every wrapper that can add calls to it. Where wrappers of one
//! target stand inside each other, only the innermost should count its successes: give the others
//! [`Budget::withdraw_only`].
//!
//! ```
//! use throughline::{Budget, BudgetConfig};
//!
//! # fn main() -> Result<(), throughline::ConfigError> {
//! let budget = Budget::new(BudgetConfig::default().ratio(0.5)?.floor_per_second(0.0)?);
//! assert!(!budget.withdraw(), "nothing was earned yet");
//! (0..4).for_each(|_| budget.deposit());
//! assert_eq!([budget.withdraw(), budget.withdraw(), budget.withdraw()], [true, true, false]);
//! assert_eq!(budget.stats().refused, 2);
//! # Ok(()) }
//! ```
//!
//! Do not share one budget between targets: a dead one would spend what the others have earned.
//!
//! # Source
//! The scheme is that of Finagle's `RetryBudget` and of tower's `TpsBudget`: deposits by ratio, a reserve
//! per second, both over a sliding window. As in tower's examples it is successes that are deposited, where
//! Finagle deposits every request: a target that fails then earns no retries. Unlike there, withdrawals are
//! decided one at a time, so that threads cannot overdraw it together.

mod ledger;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::ConfigError;
use crate::sync::atomic::{AtomicU64, Ordering};
use ledger::{Ledger, TOKEN, Terms};

/// What a [`Budget`] grants.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `Budget::new`"]
pub struct BudgetConfig {
    ratio: f64,
    window: Duration,
    floor_per_second: f64,
}

/// A cap on extra calls to one target. Cheap to clone: clones share it.
#[derive(Clone)]
pub struct Budget {
    shared: Arc<Shared>,
    deposits: bool,
}

struct Shared {
    config: BudgetConfig,
    ledger: Ledger,
    origin: Instant,
    deposits: AtomicU64,
    withdrawals: AtomicU64,
    refused: AtomicU64,
}

/// A token taken from a [`Budget`], for a call that has not begun yet.
///
/// # Cancellation
/// Dropping it gives the token back.
#[derive(Debug)]
#[must_use = "dropping a token gives it back: call `spend` when the extra call begins"]
pub struct BudgetToken {
    budget: Option<Budget>,
    step: u64,
}

/// What a [`Budget`] has seen since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BudgetStats {
    /// Successes that were counted.
    pub deposits: u64,
    /// Extra calls that it granted.
    pub withdrawals: u64,
    /// Extra calls that it refused.
    pub refused: u64,
    /// Extra calls that it would grant now.
    pub available: u64,
}

// === impl BudgetConfig ===

impl BudgetConfig {
    /// Extra calls per success. Default: 0.2, which is one for five successes.
    ///
    /// # Errors
    /// When `ratio` is not a number from 0 to 10.
    pub fn ratio(mut self, ratio: f64) -> Result<Self, ConfigError> {
        self.ratio = within("ratio", ratio, 10.0)?;
        Ok(self)
    }

    /// How long a success counts. It moves on in steps of a tenth. Default: 10s.
    ///
    /// # Errors
    /// When `window` is not from one second to a minute.
    pub fn window(mut self, window: Duration) -> Result<Self, ConfigError> {
        if window < Duration::from_secs(1) || window > Duration::from_secs(60) {
            return Err(ConfigError::refused("budget window", window, "from 1s to 60s"));
        }
        self.window = window;
        Ok(self)
    }

    /// Extra calls per second that need no success. What was not used within the window can be used at
    /// once; in no stretch as long as the window are there more than `floor` times its seconds. Default: 3.
    ///
    /// # Errors
    /// When `floor` is not a number from 0 to 10000.
    pub fn floor_per_second(mut self, floor: f64) -> Result<Self, ConfigError> {
        self.floor_per_second = within("floor per second", floor, 10_000.0)?;
        Ok(self)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both are in bounds")]
    fn terms(&self) -> Terms {
        let token = TOKEN as f64;
        Terms {
            per_deposit: (self.ratio * token).round() as u64,
            floor: (self.floor_per_second * self.window.as_secs_f64() * token).round() as u64,
            window_nanos: self.window.as_nanos() as u64,
        }
    }
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { ratio: 0.2, window: Duration::from_secs(10), floor_per_second: 3.0 }
    }
}

fn within(field: &str, value: f64, most: f64) -> Result<f64, ConfigError> {
    match (0.0..=most).contains(&value) {
        true => Ok(value),
        false => {
            Err(ConfigError::refused(&format!("budget {field}"), value, format_args!("from 0 to {most}")))
        }
    }
}

// === impl Budget ===

impl Budget {
    /// Opens a budget. Its time begins now, with the floor of one window in it.
    #[must_use]
    pub fn new(config: BudgetConfig) -> Self {
        let shared = Shared {
            ledger: Ledger::new(config.terms()),
            config,
            origin: Instant::now(),
            deposits: AtomicU64::new(0),
            withdrawals: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), deposits: true }
    }

    /// The same budget for a wrapper that stands around another of the same target: what it deposits is
    /// not counted, so that one success is not counted twice.
    #[must_use]
    pub fn withdraw_only(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), deposits: false }
    }

    /// Counts a success of the target.
    pub fn deposit(&self) {
        if self.deposits {
            self.shared.ledger.deposit(self.now());
            self.shared.deposits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether one more call may be made, which is then counted as made.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        self.take().map(BudgetToken::spend).is_some()
    }

    /// As [`Budget::withdraw`], for a call that begins later, or not at all.
    pub fn take(&self) -> Option<BudgetToken> {
        let step = self.shared.ledger.withdraw(self.now());
        let count = if step.is_some() { &self.shared.withdrawals } else { &self.shared.refused };
        count.fetch_add(1, Ordering::Relaxed);
        step.map(|step| BudgetToken { budget: Some(self.clone()), step })
    }

    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> BudgetStats {
        BudgetStats {
            deposits: self.shared.deposits.load(Ordering::Relaxed),
            withdrawals: self.shared.withdrawals.load(Ordering::Relaxed),
            refused: self.shared.refused.load(Ordering::Relaxed),
            available: self.shared.ledger.available(self.now()),
        }
    }

    fn now(&self) -> u64 {
        let since = Instant::now().saturating_duration_since(self.shared.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(BudgetConfig::default())
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BudgetConfig { ratio, window, floor_per_second } = &self.shared.config;
        let BudgetStats { withdrawals, refused, available, .. } = self.stats();
        write!(f, "Budget(ratio {ratio}, floor {floor_per_second}/s, window {window:?}, ")?;
        write!(f, "{available} available, {withdrawals} granted, {refused} refused)")
    }
}

// === impl BudgetToken ===

impl BudgetToken {
    /// The extra call begins: the token is gone.
    pub fn spend(mut self) {
        self.budget = None;
    }
}

impl Drop for BudgetToken {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.shared.ledger.give_back(self.step);
            budget.shared.withdrawals.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: u64 = 10_000;
    const STEP: u64 = WINDOW / 10;

    fn config(ratio: f64, floor: f64) -> BudgetConfig {
        BudgetConfig::default().ratio(ratio).unwrap().floor_per_second(floor).unwrap()
    }

    fn granted(budget: &Budget, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(budget.withdraw())).sum()
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Wait(u64),
        Deposit,
        Withdraw,
        GiveBack,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            2 => (0..STEP * 2).prop_map(Op::Wait),
            1 => (0..WINDOW * 2).prop_map(Op::Wait),
            6 => Just(Op::Deposit),
            6 => Just(Op::Withdraw),
            1 => Just(Op::GiveBack),
        ];
        prop::collection::vec(op, 0..200)
    }

    /// All that ever happened, with its time, and the rule in its plainest form.
    #[derive(Default)]
    struct Model {
        now: u64,
        deposits: Vec<u64>,
        withdrawals: Vec<u64>,
    }

    impl Model {
        fn recent(&self, times: &[u64]) -> u64 {
            times.iter().filter(|time| **time / STEP + 11 > self.now / STEP).count() as u64
        }

        fn has_a_token(&self, terms: &Terms) -> bool {
            let granted = self.recent(&self.deposits) * terms.per_deposit + terms.floor;
            granted >= (self.recent(&self.withdrawals) + 1) * TOKEN
        }

        /// At most floor + ratio x deposits in the stretch as long as the window that ends now.
        fn is_within_its_bound(&self, terms: &Terms) -> bool {
            let within = |times: &[u64], stretch: u64| {
                times.iter().filter(|time| **time + stretch > self.now).count() as u64
            };
            let granted = within(&self.deposits, WINDOW + STEP) * terms.per_deposit + terms.floor;
            within(&self.withdrawals, WINDOW) * TOKEN <= granted
        }
    }

    proptest! {
        #[test]
        fn grants_what_a_list_of_all_that_happened_would_grant(
            ops in ops(),
            per_deposit in 0..2 * TOKEN,
            floor in 0..4 * TOKEN,
        ) {
            let terms = Terms { per_deposit, floor, window_nanos: WINDOW };
            let (ledger, mut model) = (Ledger::new(terms), Model::default());
            let mut given = None;
            for op in ops {
                match op {
                    Op::Wait(time) => model.now += time,
                    Op::Deposit => {
                        ledger.deposit(model.now);
                        model.deposits.push(model.now);
                    }
                    Op::Withdraw => {
                        let expected = model.has_a_token(&terms);
                        let got = ledger.withdraw(model.now);
                        prop_assert_eq!(got.is_some(), expected, "at {}", model.now);
                        if let Some(step) = got {
                            model.withdrawals.push(model.now);
                            given = Some(step);
                            prop_assert!(model.is_within_its_bound(&terms));
                        }
                    }
                    Op::GiveBack => if let Some(step) = given.take() {
                        ledger.give_back(step);
                        model.withdrawals.pop();
                    }
                }
                prop_assert_eq!(ledger.available(model.now) > 0, model.has_a_token(&terms));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_client_has_the_floor_of_one_window_and_no_more() {
        let budget = Budget::new(config(0.2, 3.0));
        assert_eq!(granted(&budget, 100), 30);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(granted(&budget, 100), 0, "all of it was used within the last ten seconds");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(granted(&budget, 100), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn successes_earn_their_ratio_and_are_forgotten_after_the_window() {
        let budget = Budget::new(config(0.2, 0.0));
        (0..14).for_each(|_| budget.deposit());
        assert_eq!(granted(&budget, 10), 2);
        budget.deposit();
        assert_eq!(granted(&budget, 10), 1);
        (0..50).for_each(|_| budget.deposit());
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(granted(&budget, 10), 0);
        assert_eq!(budget.stats().deposits, 65);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ratio_above_one_earns_several_tokens_a_success() {
        let budget = Budget::new(config(2.5, 0.0));
        budget.deposit();
        assert_eq!(granted(&budget, 10), 2);
        budget.deposit();
        assert_eq!(granted(&budget, 10), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_dropped_is_given_back_and_one_that_is_spent_is_not() {
        let budget = Budget::new(config(0.0, 0.1));
        let token = budget.take().unwrap();
        assert!(budget.take().is_none());
        drop(token);
        budget.take().unwrap().spend();
        let expected = BudgetStats { deposits: 0, withdrawals: 1, refused: 1, available: 0 };
        assert_eq!(budget.stats(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_given_back_after_its_window_adds_nothing() {
        let budget = Budget::new(config(0.0, 0.1));
        let token = budget.take().unwrap();
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(budget.withdraw());
        drop(token);
        assert_eq!(budget.stats().available, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn clones_share_it_and_a_withdraw_only_one_does_not_count_successes_again() {
        let budget = Budget::new(config(1.0, 0.0));
        let outer = budget.withdraw_only();
        outer.deposit();
        assert!(!budget.withdraw());
        budget.deposit();
        assert!(outer.withdraw());
        assert!(!budget.withdraw());
        assert_eq!((budget.stats(), budget.stats().deposits), (outer.stats(), 1));
    }

    #[test]
    fn refuses_what_is_no_budget_and_says_what_is() {
        let default = BudgetConfig::default;
        for (ratio, shown) in [(-0.1, "-0.1"), (10.5, "10.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
            let text = default().ratio(ratio).unwrap_err().to_string();
            assert_eq!(text, format!("budget ratio is {shown}: it must be from 0 to 10"));
        }
        assert_eq!(
            default().floor_per_second(-1.0).unwrap_err().to_string(),
            "budget floor per second is -1.0: it must be from 0 to 10000"
        );
        for (window, shown) in [(Duration::from_millis(999), "999ms"), (Duration::from_secs(61), "61s")] {
            let text = default().window(window).unwrap_err().to_string();
            assert_eq!(text, format!("budget window is {shown}: it must be from 1s to 60s"));
        }
        assert!(default().window(Duration::from_secs(60)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn shows_its_terms_and_what_it_granted() {
        let budget = Budget::default();
        assert!(budget.withdraw());
        assert_eq!(
            format!("{budget:?}"),
            "Budget(ratio 0.2, floor 3/s, window 10s, 29 available, 1 granted, 0 refused)"
        );
    }
}
