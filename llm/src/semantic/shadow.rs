//! What would have been answered, behind the request: nobody waits for it.

use std::sync::Arc;

use throughline::telemetry::{Attribute, Ended, Label as _, NoEvents, Registry, Reported, Run, Stage};
use throughline::{Context, Result};

use super::lookup::{Question, Shared};
use super::signals::{SemanticOutcome, SemanticSignals};

pub(crate) static REPORTED: Reported = Reported::new::<Ended, NoEvents>(
    "semantic_shadow",
    &[
        Attribute::string(
            "throughline.semantic.outcome",
            "What would have been: an outcome of `semantic_cache_lookups_total`",
        ),
        Attribute::double("throughline.semantic.similarity", "The similarity of the nearest question"),
        Attribute::string(
            "throughline.semantic.verdict",
            "How the answer that would have been given compares with the provider's: a verdict of \
             `semantic_cache_comparisons_total`",
        ),
    ],
)
.spans_within("the span of the request, after its end");

/// Looks for a question that has been answered already, and compares.
pub(crate) struct Shadow(pub(super) Arc<Shared>);

/// A question, and what the provider has said; `None` when that is no text, or a long one.
pub(crate) struct Watched {
    pub(super) question: Question,
    pub(super) given: Option<String>,
}

impl Shadow {
    async fn compare(&self, watched: Watched, cx: &Context, run: &mut Run<'_, Self>) -> Result<()> {
        let (shared, signals) = (&self.0, run.signals().cloned());
        let signals = signals.as_ref();
        let Watched { question, given } = watched;
        if shared.is_without_store(&question) {
            if question.looks {
                shared.count(SemanticOutcome::Error, signals);
                run.attribute("throughline.semantic.outcome", SemanticOutcome::Error.as_str());
            }
            return Ok(());
        }
        let started = cx.clock().now();
        let embedded = run.outside(shared.embed(&question, signals, cx)).await;
        let (vector, _) = match embedded {
            Ok(embedded) => embedded,
            Err(error) => {
                shared.count(SemanticOutcome::Error, signals);
                run.attribute("throughline.semantic.outcome", SemanticOutcome::Error.as_str());
                return Err(error);
            }
        };
        if question.looks {
            let looked = shared.look(&question, &vector, signals, cx).await;
            shared.count(looked.outcome, signals);
            run.attribute("throughline.semantic.outcome", looked.outcome.as_str());
            if let Some(similarity) = looked.similarity {
                run.attribute("throughline.semantic.similarity", f64::from(similarity));
            }
            if let Some(signals) = signals {
                signals.took(cx.clock().now().since(started).as_secs_f64());
            }
            if let Some(would) = looked.answer {
                let verdict = shared.verdict(would.stored, given.as_deref(), signals, cx).await;
                run.attribute("throughline.semantic.verdict", verdict.as_str());
            }
        }
        shared.remember(question, vector, signals, cx.clock().now());
        Ok(())
    }
}

impl Stage for Shadow {
    type In = Watched;
    type Out = ();
    type Outcome = Ended;
    type Event = NoEvents;
    type Signals = SemanticSignals;
    type Note = ();

    const PRIMITIVE: &'static str = "semantic_shadow";
    const STREAMS: bool = false;

    fn operation(&self) -> &str {
        self.0.cache.operation()
    }

    fn declare(&self, registry: &Registry) -> SemanticSignals {
        SemanticSignals::new(registry, self.operation(), self.0.config.mode)
    }

    async fn run(&self, watched: Watched, cx: &Context, run: &mut Run<'_, Self>) -> Result<()> {
        self.compare(watched, cx, run).await
    }
}
