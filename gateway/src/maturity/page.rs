//! Status pages: one status, written for different readers.

mod html;
mod markdown;
mod text;

pub(crate) use html::html;
pub(crate) use markdown::markdown;
pub(crate) use text::text;

use super::stage::Stage;
use super::status::{ComponentStatus, Status};

/// What is written where there is nothing to say.
const NONE: &str = "–";

/// The state of a component in a few words.
fn verdict(component: &ComponentStatus) -> String {
    match (component.holds, component.next, component.ready) {
        (false, _, _) => format!("claims {}, evidence supports {}", component.claimed, component.supported),
        (true, Some(next), true) => format!("ready for {next}"),
        (true, Some(next), false) => {
            let (passed, all) = component.count(next);
            format!("{passed} of {all} for {next}")
        }
        (true, None, _) => "all gates passed".to_owned(),
    }
}

/// How many components claim each stage.
fn summary(status: &Status) -> String {
    let claims = Stage::ALL.map(|stage| format!("{} in {stage}", status.claiming(stage)));
    let broken = status.broken().count();
    let holds = match broken {
        0 => "every claim holds".to_owned(),
        1 => "1 claim does not hold".to_owned(),
        more => format!("{more} claims do not hold"),
    };
    let count = status.components.len();
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} component{plural}: {}; {holds}", claims.join(", "))
}

/// A share in percent.
fn percent(share: Option<f64>) -> String {
    share.map_or(NONE.to_owned(), |share| format!("{:.2} %", share * 100.0))
}

/// Text from a file on one line, without what a terminal would act on.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
