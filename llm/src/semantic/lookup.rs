//! One question against what is known: what the cache in the request and what is behind it have in common.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use throughline::cache::{CachePolicy, Found, Lookup, Refreshing, StoreHealth};
use throughline::telemetry::Tick;
use throughline::{CacheConfig, CacheOutcome, Caching as _, Context, Error, Key, Kind, Result, Store};

use super::compare::{Verdict, compare};
use super::config::SemanticConfig;
use super::embedder::Embedder;
use super::guard::Marks;
use super::index::{Entry, Index, Nearest};
use super::memo::Memo;
use super::said;
use super::signals::{Counts, SemanticOutcome, SemanticSignals};
use super::tokens::tokens;
use super::vector::Vector;
use crate::answer::Answer;
use crate::caching::ChatCaching;
use crate::openai::ChatRequest;

/// An answer may be on its way into the store for so long after its question is known.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// Where the exact cache keeps its answers: a store, whichever it is.
pub(super) trait Answers: Send + Sync {
    fn find<'a>(
        &'a self,
        key: &'a Key,
        now: Tick,
    ) -> Pin<Box<dyn Future<Output = Result<Lookup>> + Send + 'a>>;
}

impl<S: Store> Answers for S {
    fn find<'a>(
        &'a self,
        key: &'a Key,
        now: Tick,
    ) -> Pin<Box<dyn Future<Output = Result<Lookup>> + Send + 'a>> {
        Box::pin(self.get(key, now))
    }
}

/// What all lookups share.
pub(super) struct Shared {
    pub(super) config: SemanticConfig,
    pub(super) cache: CacheConfig,
    pub(super) caching: ChatCaching,
    pub(super) answers: Box<dyn Answers>,
    /// Of what is behind `answers`, if that can fail.
    pub(super) health: Option<Arc<StoreHealth>>,
    pub(super) embedder: Embedder,
    pub(super) index: Index,
    pub(super) memo: Memo,
    pub(super) counts: Counts,
}

/// A request as a question to look for.
pub(super) struct Question {
    request: ChatRequest,
    pub(super) text: String,
    /// Everything else that the answer depends on.
    scope: Key,
    /// Under which the exact cache stores the answer.
    key: Key,
    marks: Marks,
    policy: CachePolicy,
    /// Whether an answer to another question will do.
    pub(super) looks: bool,
    /// Whether the exact cache could not read the store for it.
    unread: bool,
}

/// What was found for a question.
pub(super) struct Looked {
    pub(super) outcome: SemanticOutcome,
    /// Of the nearest question that counts.
    pub(super) similarity: Option<f32>,
    /// The answer, for a hit.
    pub(super) answer: Option<Given>,
}

/// An answer to another question.
pub(super) struct Given {
    pub(super) answer: Answer,
    pub(super) age: Duration,
    /// As it is in the store.
    pub(super) stored: Bytes,
}

// === impl Shared ===

impl Shared {
    /// The question in a request; `None` where there is none to look for or to remember.
    pub(super) fn question(&self, request: &ChatRequest, cx: &Context) -> Option<Question> {
        let policy = cx.state().get::<CachePolicy>().filter(|_| self.cache.asks_callers());
        let policy = policy.map(|policy| *policy).unwrap_or_default();
        if policy.is_no_store() || request.prompt_chars() == 0 {
            return None;
        }
        let band = self.config.bands.iter().filter(|chars| request.prompt_chars() >= **chars).count() as u64;
        let begin = self.cache.keys().part(&band.to_le_bytes());
        let (scope, text) = self.caching.around_prompt(request, cx, begin)?;
        if text.chars().count() > self.config.longest_prompt || tokens(&text).is_empty() {
            return None;
        }
        let key = self.caching.key(request, cx, self.cache.keys())?;
        // Whoever takes nothing that has any age gets no hit.
        let takes_any = !policy.is_no_cache() && policy.takes(Duration::from_nanos(1));
        let looks = takes_any && cx.state().get::<Refreshing>().is_none();
        let outcome = cx.state().get::<CacheOutcome>();
        let unread =
            outcome.is_some_and(|outcome| matches!(*outcome, CacheOutcome::Bypass | CacheOutcome::Error));
        let (request, marks) = (request.clone(), Marks::of(&text));
        Some(Question { request, marks, text, scope, key, policy, looks, unread })
    }

    /// The direction of a question, and what that has cost, which is counted.
    pub(super) async fn embed(
        &self,
        question: &Question,
        signals: Option<&SemanticSignals>,
        cx: &Context,
    ) -> Result<(Vector, Option<f64>)> {
        let memo = self.embedder.is_remote().then_some(&self.memo);
        if let Some(vector) = memo.and_then(|memo| memo.get(&question.scope, &question.text)) {
            return Ok((vector, Some(0.0)));
        }
        let embedded = self.embedder.ask(vec![question.text.clone()], cx).await?;
        let cost_usd = embedded.cost_usd;
        // What is of no use is paid for all the same.
        if let Some(signals) = signals {
            signals.embedded(cost_usd.unwrap_or_default());
        }
        let mut vectors = self.embedder.check(embedded, 1)?.vectors;
        let vector = vectors.pop().ok_or_else(|| Error::new(Kind::Internal, "there is no embedding"))?;
        if let Some(memo) = memo {
            memo.keep(&question.scope, &question.text, &vector);
        }
        Ok((vector, cost_usd))
    }

    /// Looks for a question that is near enough, and for its answer.
    pub(super) async fn look(
        &self,
        question: &Question,
        vector: &Vector,
        signals: Option<&SemanticSignals>,
        cx: &Context,
    ) -> Looked {
        let now = cx.clock().now();
        let (scope, nearness) = (&question.scope, (vector, &question.marks));
        let nearest = self.index.nearest(scope, &question.key, nearness, self.config.threshold, now);
        let (outcome, similarity) = match nearest {
            Nearest::Nothing(similarity) => (SemanticOutcome::Miss, similarity),
            Nearest::Guarded(similarity) => (SemanticOutcome::Guarded, Some(similarity)),
            Nearest::Match(key, similarity) => {
                return match self.fetch(question, &key, now).await {
                    Ok(Some(found)) => self.usable(found, question, similarity, cx),
                    Ok(None) => {
                        if !self.index.is_younger(scope, &key, ON_ITS_WAY, now) {
                            self.index.remove(scope, &key);
                            if let Some(signals) = signals {
                                signals.holds(&self.index);
                            }
                        }
                        Looked::without(SemanticOutcome::Gone, Some(similarity))
                    }
                    Err(_) => Looked::without(SemanticOutcome::Error, Some(similarity)),
                };
            }
        };
        Looked::without(outcome, similarity)
    }

    /// Whether the store is left alone: then nothing can be found for a question, nor is its answer stored, and an
    /// embedding is good for nothing. With the exact cache's own read refused as well, it is not only for writes.
    pub(super) fn is_without_store(&self, question: &Question) -> bool {
        question.unread && self.health.as_ref().is_some_and(|health| health.down().is_some())
    }

    /// What the exact cache has under `key`.
    async fn fetch(&self, question: &Question, key: &Key, now: Tick) -> Result<Option<Found>> {
        if self.is_without_store(question) {
            return Err(Error::new(Kind::CircuitOpen, "the store is left alone"));
        }
        let late = |_| Error::new(Kind::Store, "no answer from the store in time");
        let deadline = self.config.store_deadline;
        match tokio::time::timeout(deadline, self.answers.find(key, now)).await.map_err(late)?? {
            Lookup::Found(found) => Ok(Some(found)),
            Lookup::Missing | Lookup::Corrupt => Ok(None),
        }
    }

    fn usable(&self, found: Found, question: &Question, similarity: f32, cx: &Context) -> Looked {
        let (age, fresh, stored) = (found.age, found.lifetime.fresh, found.value.clone());
        let answer = match self.caching.decode(found.value, &question.request, cx) {
            Ok(Some(answer)) if age < fresh && question.policy.takes(age) => answer,
            _ => return Looked::without(SemanticOutcome::Gone, Some(similarity)),
        };
        let answer = Some(Given { answer: answer.borrowed(), age, stored });
        Looked { outcome: SemanticOutcome::Hit, similarity: Some(similarity), answer }
    }

    /// Takes in a question whose answer the exact cache stores.
    pub(super) fn remember(
        &self,
        question: Question,
        vector: Vector,
        signals: Option<&SemanticSignals>,
        now: Tick,
    ) {
        let entry = Entry { key: question.key, vector, marks: question.marks, since: now };
        self.index.insert(question.scope, entry);
        if let Some(signals) = signals {
            signals.holds(&self.index);
        }
    }

    /// How an answer to another question compares with what the provider has said, which is counted.
    pub(super) async fn verdict(
        &self,
        stored: Bytes,
        said: Option<&str>,
        signals: Option<&SemanticSignals>,
        cx: &Context,
    ) -> Verdict {
        let (verdict, cost) = compare(said::of_stored(stored).as_deref(), said, &self.embedder, cx).await;
        self.counts.verdict(verdict);
        if let Some(signals) = signals {
            signals.verdict(verdict);
            signals.embedded(cost.unwrap_or_default());
        }
        verdict
    }

    pub(super) fn count(&self, outcome: SemanticOutcome, signals: Option<&SemanticSignals>) {
        self.counts.outcome(outcome);
        if let Some(signals) = signals {
            signals.outcome(outcome);
        }
    }
}

// === impl Looked ===

impl Looked {
    fn without(outcome: SemanticOutcome, similarity: Option<f32>) -> Self {
        Self { outcome, similarity, answer: None }
    }
}
