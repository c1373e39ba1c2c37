//! What answers cost, and what they would have cost on the baseline route.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::{Amount, Family, Registry};
use crate::usd::{Usd, is_money};

pub(super) static SAVINGS: Family = Family::amount(
    "router_cost_savings_usd",
    "What answers cost less than on the baseline route, in USD; only where both prices are known",
    &["route"],
);
pub(super) static COST: Family = Family::amount("router_cost_usd", "What answers cost, in USD", &["route"]);
pub(super) static BASELINE: Family = Family::amount(
    "router_baseline_cost_usd",
    "What the same answers would have cost on the baseline route, in USD",
    &["route"],
);

/// Says what answers cost. An answer whose usage is only known later, such as a stream, takes the
/// [`Bill`] along and settles it at its end.
pub trait Pricing<Out>: Send + Sync {
    /// Settles `bill` for `answer`, now or later. A bill that is dropped counts as unknown cost.
    fn settle(&self, answer: Out, bill: Bill) -> Out;
}

/// What is to be paid for one answer.
#[must_use = "a bill that is dropped counts as unknown cost"]
pub struct Bill {
    route: Arc<str>,
    baseline: Option<Arc<str>>,
    account: Arc<Account>,
    books: Option<Books>,
    settled: bool,
}

/// What a route has cost since the router was built.
#[derive(Debug, Default)]
pub(super) struct Account {
    cost: Usd,
    baseline: Usd,
    unpriced: AtomicU64,
}

/// Handles to the families of money, for one route.
#[derive(Clone, Debug)]
pub(super) struct Books {
    cost: Amount,
    baseline: Amount,
    savings: Amount,
}

// === impl Account ===

impl Account {
    pub(super) fn cost_usd(&self) -> f64 {
        self.cost.total()
    }

    pub(super) fn baseline_usd(&self) -> f64 {
        self.baseline.total()
    }

    pub(super) fn unpriced(&self) -> u64 {
        self.unpriced.load(Ordering::Relaxed)
    }
}

// === impl Books ===

impl Books {
    pub(super) fn open(registry: &Registry, route: &str) -> Self {
        Self {
            cost: registry.amount(&COST, &[route]),
            baseline: registry.amount(&BASELINE, &[route]),
            savings: registry.amount(&SAVINGS, &[route]),
        }
    }
}

// === impl Bill ===

impl Bill {
    pub(super) fn new(
        route: Arc<str>,
        baseline: Option<Arc<str>>,
        account: Arc<Account>,
        books: Option<Books>,
    ) -> Self {
        Self { route, baseline, account, books, settled: false }
    }

    /// The route that answered.
    #[must_use]
    pub fn route(&self) -> &str {
        &self.route
    }

    /// The route to compare with, if one is configured.
    #[must_use]
    pub fn baseline(&self) -> Option<&str> {
        self.baseline.as_deref()
    }

    /// Books what the answer cost and what it would have cost on the baseline route, in USD. An unknown
    /// cost books nothing: unknown is not free, and what is no amount of money is unknown. A loss is
    /// booked as cost above the baseline.
    pub fn settle(mut self, cost: Option<f64>, baseline: Option<f64>) {
        let Some(cost) = cost.filter(|usd| is_money(*usd)) else { return };
        self.settled = true;
        self.account.cost.add(cost);
        if let Some(books) = &self.books {
            books.cost.add(cost);
        }
        let Some(baseline) = baseline.filter(|usd| is_money(*usd)) else { return };
        self.account.baseline.add(baseline);
        if let Some(books) = &self.books {
            books.baseline.add(baseline);
            books.savings.add(baseline - cost);
        }
    }
}

impl Drop for Bill {
    fn drop(&mut self) {
        if !self.settled {
            self.account.unpriced.fetch_add(1, Ordering::Relaxed);
        }
    }
}
