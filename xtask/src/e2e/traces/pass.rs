//! Sends every case once, with the spans going to one place.

use std::fs;
use std::path::Path;

use super::backend::Usage;
use super::case::Case;
use super::gateway::{self, Gateway, Target};
use super::upstream::Upstream;
use crate::e2e::interrupt::Interrupt;
use crate::failure::Failure;
use crate::workspace::Workspace;

/// A request that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) case: Case,
    /// In hexadecimal.
    pub(crate) trace_id: String,
    /// The tokens that the provider reported, an entry an answer, in order of size.
    pub(crate) reported: Vec<Usage>,
}

/// Starts a provider and a gateway, sends every case, and stops the gateway, so that all spans are out.
///
/// # Errors
/// When a program does not start, or a client does not get what it must.
pub(crate) fn run(
    workspace: &Workspace,
    folder: &Path,
    target: &Target,
    interrupt: &Interrupt,
) -> Result<Vec<Sent>, Failure> {
    fs::create_dir_all(folder)
        .map_err(|error| Failure::missing(format!("cannot make {}: {error}", folder.display())))?;
    let upstream = Upstream::start()
        .map_err(|error| Failure::missing(format!("cannot start a provider on 127.0.0.1: {error}")))?;
    let gateway = Gateway::start(workspace, folder, &upstream, target, interrupt)?;
    let mut sent = Vec::new();
    for case in Case::ALL {
        interrupt.check()?;
        let trace_id = match case.ask() {
            Some(ask) => gateway.send(case, &ask)?,
            None => gateway::ask_two_models(workspace, folder, &upstream, target, interrupt)?,
        };
        sent.push((case, trace_id));
    }
    gateway.stop();
    let with_tokens = |(case, trace_id)| Sent { case, trace_id, reported: reported(&upstream, case) };
    Ok(sent.into_iter().map(with_tokens).collect())
}

/// A hit repeats the request of the miss, and asks no provider.
fn reported(upstream: &Upstream, case: Case) -> Vec<Usage> {
    if case == Case::Hit { Vec::new() } else { upstream.reported(case) }
}
