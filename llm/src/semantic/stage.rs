//! The semantic cache as a stage around what makes answers.
//!
//! It stands inside the exact cache and on the same store, and is asked for what that one does not have.
//!
//! # Cancellation
//! A caller that goes away takes its lookup along. What is embedded or compared behind a request goes on for its own short time,
//! and an audit for the time that the request had left.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use throughline::cache::CachedAge;
use throughline::stream::StreamEnding;
use throughline::telemetry::{
    Attribute, Counter, Ended, Label as _, Observed, Registry, Reported, Run, Sink, Stage,
};
use throughline::{
    CacheConfig, CacheOutcome, Caching as _, Context, Node, Primitive, Result, Store, Streaming, Workflow,
    labels,
};
use tokio::sync::Semaphore;

use super::audit::{Audit, Audited};
use super::compare::Verdict;
use super::config::{Mode, SemanticConfig};
use super::embedder::Embedder;
use super::index::Index;
use super::lookup::{Given, Looked, Question, Shared};
use super::memo::Memo;
use super::said;
use super::shadow::{Shadow, Watched};
use super::signals::{Counts, SemanticOutcome, SemanticSignals};
use crate::answer::Answer;
use crate::caching::ChatCaching;
use crate::chat::Spent;
use crate::openai::ChatRequest;

pub(crate) static REPORTED: Reported = Reported::new::<Ended, SemanticEvent>(
    "semantic_cache",
    &[
        Attribute::string(
            "throughline.semantic.outcome",
            "What it had for the question: an outcome of `semantic_cache_lookups_total`",
        ),
        Attribute::double("throughline.semantic.similarity", "The similarity of the nearest question"),
    ],
);

labels! {
    /// What can happen to a question.
    #[non_exhaustive]
    pub enum SemanticEvent {
        /// It was not compared, for too many answers are being watched.
        ShadowSkipped = "shadow_skipped",
        /// Its answer was not audited, for too many audits are under way.
        AuditSkipped = "audit_skipped",
    }
}

/// How similar the question was whose answer was given. Left in [`Context::state`] where that was another question's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity(pub f32);

/// Answers from questions that ask the same. Made by [`semantic`].
pub struct Semantic<P: Primitive<In = ChatRequest, Out = Answer>> {
    inner: Arc<P>,
    shared: Arc<Shared>,
    shadow: Arc<Observed<Shadow>>,
    audit: Arc<Observed<Audit<P>>>,
    /// How many more answers may be watched, or audited.
    free: Arc<Semaphore>,
}

/// What a [`Semantic`] has seen since it was built, with telemetry on or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SemanticStats {
    /// Questions for which there was an answer, or would have been.
    pub hits: u64,
    /// Questions that nothing was near to.
    pub misses: u64,
    /// Questions that only the rules kept from an answer.
    pub guarded: u64,
    /// Questions whose answer was gone.
    pub gone: u64,
    /// Requests that were not looked for.
    pub ineligible: u64,
    /// Questions without an embedding, or behind a store that failed.
    pub errors: u64,
    /// Answers in the shadow, or audited, that were the same as the provider's, or alike.
    pub agreed: u64,
    /// Answers in the shadow, or audited, that were not.
    pub disagreed: u64,
    /// Questions that are known.
    pub entries: usize,
    /// About how many bytes they take.
    pub bytes: usize,
}

/// Answers that are watched at the same time, each from its beginning until it is compared, which bounds what is held of
/// them; more are skipped.
const SHADOWS: usize = 64;
/// The longest that what is compared in the shadow, or embedded, behind a request may take.
const SHADOW_LIMIT: Duration = Duration::from_secs(30);
/// Answers that are audited at the same time: each is a call to a provider that nobody waits for.
const AUDITS: usize = 4;
/// The longest that an audit may take whose request may take longer.
const AUDIT_LIMIT: Duration = Duration::from_secs(300);

/// Puts a semantic cache around `inner`. The exact cache that `cache` and `caching` make must stand around that, with
/// `store` as its store.
pub fn semantic<P, Shape, S>(
    inner: Workflow<P, Shape>,
    config: SemanticConfig,
    (cache, caching, store): (CacheConfig, ChatCaching, S),
    embedder: Embedder,
) -> Workflow<Observed<Semantic<P>>>
where
    P: Primitive<In = ChatRequest, Out = Answer>,
    S: Store + 'static,
{
    let index = Index::new(config.most_entries, config.most_bytes, cache.ttl());
    let (health, answers) = (store.health(), Box::new(store));
    let (memo, counts) = (Memo::default(), Counts::default());
    let shared = Arc::new(Shared { config, cache, caching, answers, health, embedder, index, memo, counts });
    let inner = Arc::new(inner.into_inner());
    let free = Arc::new(Semaphore::new(if shared.config.mode == Mode::Shadow { SHADOWS } else { AUDITS }));
    let shadow = Arc::new(Observed::new(Shadow(Arc::clone(&shared))));
    let audit = Arc::new(Observed::new(Audit::new(Arc::clone(&inner), Arc::clone(&shared))));
    Workflow::from_stage(Semantic { inner, shared, shadow, audit, free })
}

// === impl Semantic ===

impl<P: Primitive<In = ChatRequest, Out = Answer>> Semantic<P> {
    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> SemanticStats {
        let (counts, index) = (&self.shared.counts, &self.shared.index);
        SemanticStats {
            hits: counts.of(SemanticOutcome::Hit),
            misses: counts.of(SemanticOutcome::Miss),
            guarded: counts.of(SemanticOutcome::Guarded),
            gone: counts.of(SemanticOutcome::Gone),
            ineligible: counts.of(SemanticOutcome::Ineligible),
            errors: counts.of(SemanticOutcome::Error),
            agreed: counts.with(Verdict::Same) + counts.with(Verdict::Alike),
            disagreed: counts.with(Verdict::Different),
            entries: index.len(),
            bytes: index.bytes(),
        }
    }

    /// Writes down what it had.
    fn note(&self, looked: &Looked, run: &mut Run<'_, Self>) {
        self.shared.count(looked.outcome, run.signals());
        run.attribute("throughline.semantic.outcome", looked.outcome.as_str());
        if let Some(similarity) = looked.similarity {
            run.attribute("throughline.semantic.similarity", f64::from(similarity));
        }
    }

    fn count(&self, outcome: SemanticOutcome, run: &mut Run<'_, Self>) {
        self.note(&Looked { outcome, similarity: None, answer: None }, run);
    }

    /// Answers from another question if it can, else from within.
    async fn answer(
        &self,
        question: Question,
        request: ChatRequest,
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> Result<Answer> {
        let (shared, signals) = (&self.shared, run.signals().cloned());
        if shared.is_without_store(&question) {
            let outcome = if question.looks { SemanticOutcome::Error } else { SemanticOutcome::Ineligible };
            self.count(outcome, run);
            return run.outside(self.inner.execute(request, cx)).await;
        }
        if !question.looks {
            self.count(SemanticOutcome::Ineligible, run);
            let mut answer = run.outside(self.inner.execute(request, cx)).await?;
            self.embed_behind(question, &mut answer, signals, cx);
            return Ok(answer);
        }
        let started = cx.clock().now();
        let embedding = cx.while_wanted(shared.embed(&question, signals.as_ref(), cx));
        // An embedding that cannot be had must not cost the answer.
        let Ok((vector, cost)) = run.outside(embedding).await.and_then(std::convert::identity) else {
            self.count(SemanticOutcome::Error, run);
            return run.outside(self.inner.execute(request, cx)).await;
        };
        // What nobody has to be asked for makes no bill, not even one of nothing.
        if shared.embedder.is_remote() {
            cx.state().update::<Spent>(|spent| spent.0 = spent.0.zip(cost).map(|(sum, cost)| sum + cost));
        }
        let looked = shared.look(&question, &vector, signals.as_ref(), cx).await;
        self.note(&looked, run);
        if let Some(signals) = &signals {
            signals.took(cx.clock().now().since(started).as_secs_f64());
        }
        if let (Some(Given { mut answer, age, stored }), Some(similarity)) =
            (looked.answer, looked.similarity)
        {
            if let Some(signals) = &signals {
                signals.saved(shared.caching.saved_usd(&answer).unwrap_or_default());
            }
            cx.state().insert(CacheOutcome::Hit);
            cx.state().insert(CachedAge(age));
            cx.state().insert(Similarity(similarity));
            self.audit_behind(Audited { request, stored, similarity }, &mut answer, cx, run);
            return Ok(answer);
        }
        let mut answer = run.outside(self.inner.execute(request, cx)).await?;
        let (shared, clock) = (Arc::clone(shared), cx.clock());
        once_whole(&mut answer, move || {
            shared.remember(question, vector, signals.as_ref(), clock.now());
        });
        Ok(answer)
    }

    /// Takes in a question that is not looked for. Nobody waits for its embedding.
    fn embed_behind(
        &self,
        question: Question,
        answer: &mut Answer,
        signals: Option<SemanticSignals>,
        cx: &Context,
    ) {
        let (shared, cx) = (Arc::clone(&self.shared), cx.detach());
        once_whole(answer, move || {
            let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
            runtime.spawn(async move {
                let embedding = shared.embed(&question, signals.as_ref(), &cx);
                if let Ok(Ok((vector, _))) = tokio::time::timeout(SHADOW_LIMIT, embedding).await {
                    shared.remember(question, vector, signals.as_ref(), cx.clock().now());
                }
            });
        });
    }

    /// Has a share of the answers audited, each once it was given. Which ones is drawn, for whoever chose would choose by
    /// something.
    fn audit_behind(&self, audited: Audited, answer: &mut Answer, cx: &Context, run: &Run<'_, Self>) {
        if fastrand::f64() >= self.shared.config.audit {
            return;
        }
        let (audit, free) = (Arc::clone(&self.audit), Arc::clone(&self.free));
        let skipped = run.counter(SemanticEvent::AuditSkipped);
        let limit = cx.time_left().map_or(AUDIT_LIMIT, |left| left.min(AUDIT_LIMIT));
        let cx = cx.detach();
        once_whole(answer, move || {
            let Ok(permit) = free.try_acquire_owned() else {
                skipped.iter().for_each(Counter::inc);
                return;
            };
            let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
            runtime.spawn(async move {
                Box::pin(audit.execute(audited, &cx.with_time_limit(limit))).await.ok();
                drop(permit);
            });
        });
    }

    /// Answers from within, and compares behind that.
    async fn watch(
        &self,
        question: Question,
        request: ChatRequest,
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> Result<Answer> {
        let mut answer = run.outside(self.inner.execute(request, cx)).await?;
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
            run.event(SemanticEvent::ShadowSkipped);
            return Ok(answer);
        };
        let (shadow, cx) = (Arc::clone(&self.shadow), cx.detach());
        let compare = move |given: Option<String>| {
            let compare = async move {
                let comparing = shadow.execute(Watched { question, given }, &cx);
                // What fails is counted, and nobody is to be told.
                let _ = tokio::time::timeout(SHADOW_LIMIT, Box::pin(comparing)).await;
                drop(permit);
            };
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(compare);
            }
        };
        said::once_said(&mut answer, compare);
        Ok(answer)
    }
}

fn once_whole(answer: &mut Answer, then: impl FnOnce() + Send + 'static) {
    match answer {
        Answer::Full(_) => then(),
        Answer::Stream(stream) => Streaming::on_end(
            stream,
            Box::new(move |how| {
                if matches!(how, StreamEnding::Complete) {
                    then();
                }
            }),
        ),
    }
}

impl<P: Primitive<In = ChatRequest, Out = Answer>> Stage for Semantic<P> {
    type In = ChatRequest;
    type Out = Answer;
    type Outcome = Ended;
    type Event = SemanticEvent;
    type Signals = SemanticSignals;
    type Note = ();

    const PRIMITIVE: &'static str = "semantic_cache";

    fn operation(&self) -> &str {
        self.shared.cache.operation()
    }

    fn declare(&self, registry: &Registry) -> SemanticSignals {
        let signals = SemanticSignals::new(registry, self.operation(), self.shared.config.mode);
        // A reload begins with none.
        signals.holds(&self.shared.index);
        signals
    }

    async fn run(&self, request: ChatRequest, cx: &Context, run: &mut Run<'_, Self>) -> Result<Answer> {
        let Some(question) = self.shared.question(&request, cx) else {
            self.count(SemanticOutcome::Ineligible, run);
            return run.outside(self.inner.execute(request, cx)).await;
        };
        match self.shared.config.mode {
            Mode::Shadow => self.watch(question, request, cx, run).await,
            Mode::Answer => Box::pin(self.answer(question, request, cx, run)).await,
        }
    }

    fn describe(&self) -> Node {
        Node::leaf(Self::PRIMITIVE, self.operation()).holding(self.inner.describe())
    }

    fn stream<'a>(&self, output: &'a mut Answer) -> Option<&'a mut dyn Streaming> {
        self.inner.stream(output)
    }

    fn bind(&self, sink: &Sink) {
        self.inner.bind(sink);
        self.shared.embedder.bind(sink);
        match self.shared.config.mode {
            Mode::Shadow => self.shadow.bind(sink),
            Mode::Answer => self.audit.bind(sink),
        }
    }
}

impl<P: Primitive<In = ChatRequest, Out = Answer>> fmt::Debug for Semantic<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        write!(f, "Semantic({}, {}, ", self.shared.cache.operation(), self.shared.config.mode.as_str())?;
        write!(f, "{} hits, {} misses, {:?})", stats.hits, stats.misses, self.shared.index)
    }
}
