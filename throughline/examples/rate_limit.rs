//! How do I stay under the provider's requests and tokens per minute?
//!
//! A nightly job asks a model a hundred questions at once. The provider allows 60 requests and 20,000 tokens a
//! minute and refuses what is above. Without a limit most of the questions are refused; with one they wait for
//! their turn, pay what they really used, and all of them are answered.
//!
//! ```text
//! cargo run -p throughline --example rate_limit
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use throughline::{
    Allowance, Context, Error, Kind, Primitive, Quota, RateLimitConfig, Result, Workflow, workflow,
};
use tokio::time::{Instant, sleep};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Question {
    /// Tokens that the answer may have at most.
    max_tokens: u64,
    /// Tokens that it will have.
    used: u64,
}

struct Answer {
    tokens: u64,
}

/// What the provider remembers of the last minute: when, and how many tokens.
#[derive(Clone, Default)]
struct Provider(Arc<Mutex<VecDeque<(Instant, u64)>>>);

impl Provider {
    /// Counts a request, unless that is above 60 requests or 20,000 tokens in a minute.
    fn admits(&self, tokens: u64) -> bool {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while minute.front().is_some_and(|(at, _)| at.elapsed() >= MINUTE) {
            minute.pop_front();
        }
        let used: u64 = minute.iter().map(|(_, tokens)| tokens).sum();
        let admitted = minute.len() < 60 && used + tokens <= 20_000;
        if admitted {
            minute.push_back((Instant::now(), tokens));
        }
        admitted
    }

    fn workflow(&self) -> Workflow<impl Primitive<In = Question, Out = Answer>> {
        let provider = self.clone();
        workflow("provider", move |question: Question| {
            let provider = provider.clone();
            async move {
                if !provider.admits(question.used) {
                    return Err(Error::new(Kind::RateLimited, "the provider answered 429"));
                }
                sleep(Duration::from_secs(2)).await;
                Ok(Answer { tokens: question.used })
            }
        })
    }
}

async fn answered(flow: &Workflow<impl Primitive<In = Question, Out = Answer>>) -> usize {
    let cx = Context::new();
    let questions = (0..100).map(|n| Question { max_tokens: 1_000, used: 150 + n });
    let answers: Vec<Result<Answer>> = join_all(questions.map(|question| flow.run(question, &cx))).await;
    answers.iter().filter(|answer| answer.is_ok()).count()
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let alone = answered(&Provider::default().workflow()).await;
    println!("without a limit {alone} of 100 questions are answered");
    assert!(alone <= 60);

    // The provider looks at any minute, so what passes at once is taken off what passes in a minute.
    let requests = Quota::per_minute(50)?.burst(10)?;
    let tokens = Quota::per_minute(16_000)?.burst(4_000)?;
    let account = Allowance::of_both(requests, tokens);
    let config = RateLimitConfig::new("nightly", &account)
        .estimate(|question: &Question| question.max_tokens)
        .actual(|answer: &Answer| Some(answer.tokens))
        .max_wait(Duration::from_secs(3_600))?;
    let start = Instant::now();
    let limited = answered(&Provider::default().workflow().rate_limit(config)).await;
    let took = start.elapsed();
    println!("with a limit {limited} are, in {}s; afterwards {account:?}", took.as_secs());
    assert_eq!(limited, 100);
    // By the estimates it would have taken six minutes.
    assert!(took < 3 * MINUTE, "{took:?}");
    Ok(())
}
