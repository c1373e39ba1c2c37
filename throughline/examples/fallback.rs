//! What if the first model is down?
//!
//! The large model is tried twice, then a small one is asked, and if that is down as well, the user gets a
//! polite sentence instead of an error. The caller can see who answered.
//!
//! ```text
//! cargo run -p throughline --example fallback
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use throughline::fallback::AnsweredBy;
use throughline::{Context, Error, FallbackConfig, Kind, Primitive, RetryConfig, Workflow, workflow};

fn model(name: &'static str, up: bool) -> Workflow<impl Primitive<In = String, Out = String>> {
    workflow(name, move |question: String| async move {
        match up {
            true => Ok(format!("{name} says: about {question}, it depends")),
            false => Err(Error::new(Kind::Upstream, format!("{name} answered 503"))),
        }
    })
}

/// The answer, and the name of what gave it.
async fn ask(large_up: bool, small_up: bool) -> Result<(String, String), Box<dyn std::error::Error>> {
    let flow = model("large", large_up).retry(RetryConfig::new("large").max_attempts(2)?).fallback(
        FallbackConfig::new("answer")
            .then("small", model("small", small_up))
            .then_with("apology", |error| Ok(format!("sorry, nobody can answer now ({error})"))),
    )?;
    let cx = Context::new();
    let answer = flow.run("lunch".to_owned(), &cx).await?;
    let by = cx.state().get::<AnsweredBy>().ok_or("a fallback says who answered")?;
    Ok((answer, by.name.to_string()))
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let expected = [((true, true), "primary"), ((false, true), "small"), ((false, false), "apology")];
    for ((large_up, small_up), by) in expected {
        let (answer, answered_by) = ask(large_up, small_up).await?;
        println!("{answered_by:>8}: {answer}");
        assert_eq!(answered_by, by);
    }
    Ok(())
}
