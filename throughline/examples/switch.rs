//! How do I choose by content?
//!
//! ```text
//! cargo run -p throughline --example switch
//! ```

use std::fmt;

use throughline::{ConditionalConfig, Context, SwitchConfig, conditional, switch, workflow};

#[derive(Clone, Debug)]
struct Ticket {
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Topic {
    Refund,
    Bug,
    Other,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refund => "refund",
            Self::Bug => "bug",
            Self::Other => "other",
        })
    }
}

fn topic(ticket: &Ticket, _: &Context) -> Topic {
    match &ticket.text {
        text if text.contains("money") => Topic::Refund,
        text if text.contains("crash") => Topic::Bug,
        _ => Topic::Other,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(run())
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let shorten = workflow("shorten", |ticket: Ticket| async move {
        Ok(Ticket { text: ticket.text.chars().take(40).collect() })
    });
    let refund = workflow("refund", |t: Ticket| async move { Ok(format!("to accounting: {}", t.text)) });
    let bug = workflow("bug", |t: Ticket| async move { Ok(format!("to developers: {}", t.text)) });
    let reply = workflow("reply", |t: Ticket| async move { Ok(format!("to support: {}", t.text)) });

    // Where the predicate does not hold the ticket passes through: it is a ticket before and after.
    let when_long = ConditionalConfig::new("when long", |t: &Ticket, _| t.text.len() > 40, shorten);
    let by_topic =
        SwitchConfig::new("topic").on(topic).case(Topic::Refund, refund).case(Topic::Bug, bug).default(reply);
    let flow = (conditional(when_long) >> switch(by_topic)?).named("tickets");

    let letter = "a very long letter about nothing at all, and more";
    let expected = [
        ("I want my money back", "to accounting: I want my money back"),
        ("it crashes when I open it", "to developers: it crashes when I open it"),
        (letter, "to support: a very long letter about nothing at all,"),
    ];
    for (text, answer) in expected {
        assert_eq!(flow.run(Ticket { text: text.into() }, &Context::new()).await?, answer);
    }
    #[expect(clippy::print_stdout, reason = "an example shows what happens")]
    {
        println!("{}", flow.describe().to_tree());
    }
    Ok(())
}
