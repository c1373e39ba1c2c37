//! Whether answers that were given are right: behind some of them the provider is asked all the same.
//!
//! Nobody waits for it. The question takes the way that it would have taken without the semantic cache, with the same retries,
//! circuits and limits; what that costs is spent, and counted so. Its answer is compared with the one that was given, as in the
//! shadow, and thrown away.

use std::sync::Arc;

use bytes::Bytes;
use throughline::stream::rest;
use throughline::telemetry::{Attribute, Ended, Label as _, NoEvents, Registry, Reported, Run, Stage};
use throughline::{Context, Error, Kind, Primitive, Result};
use tokio::sync::oneshot;

use super::compare::Verdict;
use super::lookup::Shared;
use super::said;
use super::signals::SemanticSignals;
use super::tally::Tally;
use crate::answer::Answer;
use crate::chat::Spent;
use crate::openai::ChatRequest;

pub(crate) static REPORTED: Reported = Reported::new::<Ended, NoEvents>(
    "semantic_audit",
    &[
        Attribute::double("throughline.semantic.similarity", "The similarity of the question whose answer was given"),
        Attribute::string(
            "throughline.semantic.verdict",
            "How the answer that was given compares with the provider's: a verdict of `semantic_cache_comparisons_total`",
        ),
    ],
)
.spans_within("the span of the semantic cache, after its end");

/// Asks for what was answered already, and compares.
pub(crate) struct Audit<P> {
    inner: Arc<P>,
    shared: Arc<Shared>,
    tally: Tally,
}

/// A question that has had the answer of another one.
pub(crate) struct Audited {
    pub(super) request: ChatRequest,
    /// The answer, as it is in the store.
    pub(super) stored: Bytes,
    pub(super) similarity: f32,
}

impl<P: Primitive<In = ChatRequest, Out = Answer>> Audit<P> {
    pub(super) fn new(inner: Arc<P>, shared: Arc<Shared>) -> Self {
        let tally = Tally::new(shared.config.max_error);
        Self { inner, shared, tally }
    }

    /// What the provider says, to the end; `None` when that is no text, or a long one.
    async fn ask(&self, request: ChatRequest, cx: &Context) -> Result<Option<String>> {
        let mut answer = self.inner.execute(request, cx).await?;
        let (tell, mut told) = oneshot::channel();
        said::once_said(&mut answer, move |said| drop(tell.send(said)));
        if let Answer::Stream(stream) = &mut answer {
            rest(stream).await;
        }
        told.try_recv().map_err(|_| Error::new(Kind::Upstream, "the answer broke off"))
    }

    /// Warns where audits show that too much is wrong.
    fn judge(&self, verdict: Verdict, cx: &Context) {
        let Some(excess) = self.tally.note(verdict, cx.clock().now()) else { return };
        tracing::warn!(
            model = self.operation(),
            compared = excess.compared,
            different = excess.different,
            at_least = excess.at_least,
            max_error = excess.max_error,
            "audited answers of the semantic cache differ from the provider's more often than its threshold was learned for"
        );
    }
}

impl<P: Primitive<In = ChatRequest, Out = Answer>> Stage for Audit<P> {
    type In = Audited;
    type Out = ();
    type Outcome = Ended;
    type Event = NoEvents;
    type Signals = SemanticSignals;
    type Note = ();

    const PRIMITIVE: &'static str = "semantic_audit";
    const STREAMS: bool = false;

    fn operation(&self) -> &str {
        self.shared.cache.operation()
    }

    fn declare(&self, registry: &Registry) -> SemanticSignals {
        SemanticSignals::new(registry, self.operation(), self.shared.config.mode)
    }

    async fn run(&self, audited: Audited, cx: &Context, run: &mut Run<'_, Self>) -> Result<()> {
        let signals = run.signals().cloned();
        run.attribute("throughline.semantic.similarity", f64::from(audited.similarity));
        let asked = run
            .outside(cx.while_wanted(self.ask(audited.request, cx)))
            .await
            .and_then(std::convert::identity);
        if let Some(signals) = &signals {
            let spent = cx.state().get::<Spent>().and_then(|spent| spent.0);
            signals.audited(spent.unwrap_or_default());
        }
        let said = asked.as_ref().ok().and_then(Option::as_deref);
        let verdict = self.shared.verdict(audited.stored, said, signals.as_ref(), cx).await;
        run.attribute("throughline.semantic.verdict", verdict.as_str());
        self.judge(verdict, cx);
        asked.map(drop)
    }
}
