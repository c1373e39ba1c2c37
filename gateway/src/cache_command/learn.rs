//! `throughline cache learn`: from which similarity on a semantic cache may answer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use throughline::{Clock, Context};
use throughline_llm::semantic::learn::{Trial, choose, rows};
use throughline_llm::semantic::{Embedder, Marks, Vector};

use super::args::Learn;
use super::learned::{Cost, Learned, quoted};
use super::pairs::{Examples, Labels};
use super::{Ended, progress};
use crate::check::show;
use crate::config::{Config, EmbedderOf, unknown};
use crate::{semantic, workflows};

/// So many prompts are sent to a provider at a time.
const BATCH: usize = 64;
/// How long a provider may take for them.
const PATIENCE: Duration = Duration::from_secs(60);
/// The order of questions is drawn by this.
const SEED: u64 = 7;
/// The bar moves after so many questions.
const STEP: usize = 64;

/// A prompt as it is compared.
struct Embedded {
    vector: Vector,
    marks: Marks,
}

/// Learns and reports.
///
/// # Errors
/// When the examples or the wishes are not good, or the examples show no threshold.
pub(super) async fn run(args: &Learn) -> Result<(), Ended> {
    let examples = Examples::read(&args.pairs).map_err(Ended::Refused)?;
    let embedder = embedder(args)?;
    let clock = Clock::Monotonic;
    let begun = clock.now();
    let (embedded, cost_usd) = embed(&embedder, &examples.prompts).await?;
    let embedding = clock.now().since(begun);
    let begun = clock.now();
    let trials = match &examples.labels {
        Labels::Pairs(pairs) => pairs.iter().map(|pair| of_pair(pair, &embedded)).collect(),
        Labels::Questions(questions) => replay(questions, &embedded),
    };
    let searching = clock.now().since(begun);
    let rows = rows(&trials, args.confidence);
    let chosen = choose(&rows, args.max_error, args.confidence);
    let name = args.pairs.file_name().unwrap_or(args.pairs.as_os_str()).to_string_lossy().into_owned();
    let cost = Cost { embedding, searching, usd: cost_usd };
    let learned = Learned::new(
        name,
        &examples,
        (embedder.name(), &section(args)),
        (args.max_error, args.confidence),
        rows,
        chosen,
        &cost,
    );
    show(&if args.json { learned.json() } else { learned.to_string() });
    learned.refused().map_or(Ok(()), |why| Err(Ended::Refused(why.to_owned())))
}

/// What the configuration must say of the embedder, beside what was learned with it.
fn section(args: &Learn) -> String {
    let (Some(provider), Some(model)) = (&args.provider, &args.model) else { return String::new() };
    format!(", embedder = {{ provider = {}, model = {} }}", quoted(provider), quoted(model))
}

fn embedder(args: &Learn) -> Result<Embedder, Ended> {
    let (Some(provider), Some(model)) = (&args.provider, &args.model) else { return Ok(Embedder::ngrams()) };
    let path = args.config.as_deref().unwrap_or(Path::new("throughline.toml"));
    let config = Config::load(path, &|name| std::env::var(name).ok());
    let config = config.map_err(|errors| Ended::Refused(errors.to_string()))?;
    if !config.providers.contains_key(provider) {
        let known = config.providers.keys().map(String::as_str);
        return Err(Ended::Refused(unknown("provider", provider, "configured", known)));
    }
    let wanted =
        EmbedderOf::Provider { provider: provider.clone(), model: model.clone(), deadline: PATIENCE };
    let refused = |error: throughline::ConfigError| Ended::Refused(error.to_string());
    let prices = Arc::new(workflows::prices(&config));
    let built = workflows::build(&config).map_err(refused)?;
    semantic::embedder("learn", &wanted, &built.parts.providers, &prices, None).map_err(refused)
}

async fn embed(embedder: &Embedder, prompts: &[String]) -> Result<(Vec<Embedded>, Option<f64>), Ended> {
    let bar = progress::bar(prompts.len() as u64, "embedding");
    let (mut all, mut cost) = (Vec::with_capacity(prompts.len()), Some(0.0));
    for batch in prompts.chunks(BATCH) {
        let embedded = embedder.embed(batch.to_vec(), &Context::new()).await;
        let embedded = embedded.map_err(|error| Ended::Failed(format!("embedding failed: {error}")))?;
        cost = cost.zip(embedded.cost_usd).map(|(sum, usd)| sum + usd);
        let batch = batch.iter().zip(embedded.vectors);
        all.extend(batch.map(|(prompt, vector)| Embedded { vector, marks: Marks::of(prompt) }));
        bar.inc(BATCH as u64);
    }
    bar.finish_and_clear();
    Ok((all, cost))
}

fn of_pair((a, b, same): &(usize, usize, bool), embedded: &[Embedded]) -> Trial {
    let (a, b) = (&embedded[*a], &embedded[*b]);
    let similarity = a.marks.allow(&b.marks).then(|| a.vector.similarity(&b.vector)).flatten();
    Trial { similarity, right: *same }
}

/// Every question against those before it. One that was asked before in the same words is the exact cache's, and is left
/// out.
fn replay(questions: &[(usize, usize)], embedded: &[Embedded]) -> Vec<Trial> {
    let mut questions = questions.to_vec();
    fastrand::Rng::with_seed(SEED).shuffle(&mut questions);
    let mut asked = vec![false; embedded.len()];
    questions.retain(|(prompt, _)| !std::mem::replace(&mut asked[*prompt], true));
    let bar = progress::bar(questions.len() as u64, "asking");
    let mut trials = Vec::with_capacity(questions.len());
    for (at, (prompt, answer)) in questions.iter().enumerate() {
        let found = nearest_of(&questions[..at], &embedded[*prompt], embedded);
        trials.push(Trial {
            similarity: found.map(|(similarity, _)| similarity),
            right: found.is_some_and(|(_, known)| known == *answer),
        });
        if at % STEP == STEP - 1 {
            bar.inc(STEP as u64);
        }
    }
    bar.finish_and_clear();
    trials
}

/// The similarity and the answer of the nearest known question that the rules allow.
fn nearest_of(known: &[(usize, usize)], asked: &Embedded, embedded: &[Embedded]) -> Option<(f32, usize)> {
    let mut best: Option<(f32, usize)> = None;
    for (prompt, answer) in known {
        let other = &embedded[*prompt];
        let Some(similarity) = asked.vector.similarity(&other.vector) else { continue };
        if best.is_none_or(|(best, _)| similarity > best) && other.marks.allow(&asked.marks) {
            best = Some((similarity, *answer));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn embedded(prompts: &[&str]) -> Vec<Embedded> {
        let prompts: Vec<_> = prompts.iter().map(|prompt| (*prompt).to_owned()).collect();
        embed(&Embedder::ngrams(), &prompts).await.unwrap().0
    }

    #[tokio::test]
    async fn a_pair_that_the_rules_forbid_gets_no_answer() {
        let embedded = embedded(&["refund 50 to me", "refund 500 to me", "refund 50 to me please"]).await;
        assert_eq!(of_pair(&(0, 1, false), &embedded), Trial { similarity: None, right: false });
        let allowed = of_pair(&(0, 2, true), &embedded);
        assert!(allowed.similarity.is_some_and(|similarity| similarity > 0.9) && allowed.right);
    }

    #[tokio::test]
    async fn questions_meet_those_before_them_and_repeats_are_left_out() {
        let embedded = embedded(&["open my account", "open my accounts", "where is the train"]).await;
        let trials = replay(&[(0, 0), (1, 0), (2, 1), (0, 0), (0, 0)], &embedded);
        assert_eq!(trials.len(), 3);
        assert_eq!(
            trials.iter().filter(|trial| trial.similarity.is_none()).count(),
            1,
            "the first meets nobody"
        );
        assert_eq!(trials.iter().filter(|trial| trial.right).count(), 1);
    }
}
