//! What turns texts into directions.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use throughline::telemetry::Sink;
use throughline::{Boxed, Context, Error, Kind, Result, Workflow};

use super::health::EmbedderHealth;
use super::ngrams;
use super::vector::Vector;

/// What turns texts into directions that are near each other where the texts say the same.
pub struct Embedder {
    name: String,
    kind: Of,
    /// Whether asking it waits for somebody else.
    remote: bool,
}

enum Of {
    Ngrams,
    Asked { model: Workflow<Boxed<Vec<String>, Embedded>>, space: Mutex<Space>, health: Arc<EmbedderHealth> },
}

/// How many numbers embeddings have. A single one with others is a mistake and never a hit; with the second in a row the
/// service has another model, and what is known of the old one is near to nothing any more.
#[derive(Default)]
struct Space {
    dimensions: Option<usize>,
    other: Option<usize>,
}

/// The directions of several texts, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Embedded {
    /// One for each text.
    pub vectors: Vec<Vector>,
    /// What that has cost, in USD; `None` when unknown.
    pub cost_usd: Option<f64>,
}

// === impl Embedded ===

impl Embedded {
    /// Directions that have cost so much.
    #[must_use]
    pub fn new(vectors: Vec<Vector>, cost_usd: Option<f64>) -> Self {
        Self { vectors, cost_usd }
    }
}

// === impl Embedder ===

impl Embedder {
    /// Hashed words and pieces of words: built in, at once and for nothing. It sees how texts are written and nothing
    /// of what they mean.
    #[must_use]
    pub fn ngrams() -> Self {
        Self { name: ngrams::NAME.to_owned(), kind: Of::Ngrams, remote: false }
    }

    /// What `model` says, such as an [`embeddings`](super::embeddings()) call inside a timeout and a breaker. Thresholds
    /// are learned for its `name`.
    #[must_use]
    pub fn asked(name: impl Into<String>, model: Workflow<Boxed<Vec<String>, Embedded>>) -> Self {
        let name = name.into();
        let health = Arc::new(EmbedderHealth::new(name.clone()));
        Self { name, kind: Of::Asked { model, space: Mutex::default(), health }, remote: true }
    }

    /// Says in `health` whether it works. Default: in one of its own. The built-in one cannot fail and says nothing.
    #[must_use]
    pub fn watched_by(mut self, watch: Arc<EmbedderHealth>) -> Self {
        if let Of::Asked { health, .. } = &mut self.kind {
            *health = watch;
        }
        self
    }

    /// What thresholds are learned for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether asking it waits for another service.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.remote
    }

    /// The directions of `texts`.
    ///
    /// # Errors
    /// When there are none to be had: the service fails or is left alone, or its answer is of no use.
    ///
    /// # Cancellation
    /// Dropping it ends the call. The service may charge for it all the same, which is then not counted.
    pub async fn embed(&self, texts: Vec<String>, cx: &Context) -> Result<Embedded> {
        let wanted = texts.len();
        self.check(self.ask(texts, cx).await?, wanted)
    }

    /// What is said of `texts`, of use or not, with what it has cost.
    pub(super) async fn ask(&self, texts: Vec<String>, cx: &Context) -> Result<Embedded> {
        match &self.kind {
            Of::Ngrams => {
                let vectors: Option<Vec<_>> = texts.iter().map(|text| ngrams::ngrams(text)).collect();
                let none = || Error::new(Kind::InvalidInput, "a text without a word has no direction");
                Ok(Embedded { vectors: vectors.ok_or_else(none)?, cost_usd: Some(0.0) })
            }
            Of::Asked { model, health, .. } => {
                let embedded = model.run(texts, cx).await;
                embedded.inspect_err(|error| health.failed(error))
            }
        }
    }

    /// Refuses what is of no use for so many texts.
    pub(super) fn check(&self, embedded: Embedded, wanted: usize) -> Result<Embedded> {
        let Of::Asked { space, health, .. } = &self.kind else { return Ok(embedded) };
        match space.lock().unwrap_or_else(PoisonError::into_inner).check(&embedded, wanted) {
            Ok(()) => {
                health.works();
                Ok(embedded)
            }
            Err(error) => {
                health.failed(&error);
                Err(error)
            }
        }
    }

    /// Creates the series of what it asks.
    pub(super) fn bind(&self, sink: &Sink) {
        if let Of::Asked { model, .. } = &self.kind {
            model.bind(sink);
        }
    }
}

// === impl Space ===

impl Space {
    fn check(&mut self, embedded: &Embedded, wanted: usize) -> Result<()> {
        let got = embedded.vectors.len();
        if got != wanted {
            return Err(unusable(format!("the provider gave {got} embeddings for {wanted} texts")));
        }
        let Some(first) = embedded.vectors.first().map(Vector::dimensions) else { return Ok(()) };
        self.take(first)?;
        match embedded.vectors.iter().map(Vector::dimensions).find(|got| *got != first) {
            Some(got) => Err(of_another_space(got, first)),
            None => Ok(()),
        }
    }

    fn take(&mut self, got: usize) -> Result<()> {
        let known = *self.dimensions.get_or_insert(got);
        if got == known || self.other == Some(got) {
            *self = Self { dimensions: Some(got), other: None };
            return Ok(());
        }
        self.other = Some(got);
        Err(of_another_space(got, known))
    }
}

fn of_another_space(got: usize, known: usize) -> Error {
    unusable(format!("an embedding has {got} numbers, those before it had {known}"))
}

fn unusable(message: String) -> Error {
    Error::new(Kind::Upstream, message)
}

impl fmt::Debug for Embedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedder({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use throughline::workflow;

    use super::*;

    #[tokio::test]
    async fn what_is_of_another_space_or_number_is_refused() {
        let calls = AtomicUsize::new(0);
        let model = workflow("embed", move |texts: Vec<String>| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            let vector = Vector::new(&vec![1.0; [2, 2, 3][call]]).expect("it points somewhere");
            let vectors = vec![vector; if call == 1 { 5 } else { texts.len() }];
            async move { Ok(Embedded::new(vectors, None)) }
        });
        let (embedder, cx) = (Embedder::asked("m", model.boxed()), Context::new());
        let mut said = Vec::new();
        for _ in 0..3 {
            let embedded = embedder.embed(vec!["a".to_owned(), "b".to_owned()], &cx).await;
            said.push(embedded.map(|embedded| embedded.vectors.len()).map_err(|error| error.to_string()));
        }
        let refused = |text: &str| Err(text.to_owned());
        let expected = [
            Ok(2),
            refused("the provider gave 5 embeddings for 2 texts"),
            refused("an embedding has 3 numbers, those before it had 2"),
        ];
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn a_service_with_another_model_is_refused_once_and_a_single_odd_answer_changes_nothing() {
        let calls = AtomicUsize::new(0);
        let model = workflow("embed", move |_: Vec<String>| {
            let size = [2, 3, 2, 3, 3, 3, 2][calls.fetch_add(1, Ordering::Relaxed)];
            let vector = Vector::new(&vec![1.0; size]).expect("it points somewhere");
            async move { Ok(Embedded::new(vec![vector], None)) }
        });
        let (embedder, cx) = (Embedder::asked("m", model.boxed()), Context::new());
        let mut taken = Vec::new();
        for _ in 0..7 {
            taken.push(embedder.embed(vec!["a".to_owned()], &cx).await.is_ok());
        }
        assert_eq!(taken, [true, false, true, false, true, true, false]);
    }

    #[tokio::test]
    async fn the_built_in_one_refuses_what_has_no_word() {
        let (embedder, cx) = (Embedder::ngrams(), Context::new());
        assert!(embedder.embed(vec!["?".to_owned()], &cx).await.is_err());
        let embedded = embedder.embed(vec!["a word".to_owned()], &cx).await.unwrap();
        assert_eq!((embedded.vectors.len(), embedded.cost_usd), (1, Some(0.0)));
    }
}
