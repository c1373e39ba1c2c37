//! Who is let in: the rules as they are now, kept up to date with their files.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use super::basic::{Checked, Checks};
use super::files::Files;
use super::security::{EndpointSecurity, Rules, Sources};
use crate::ConfigError;
use crate::telemetry::health::Health;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What does not work when the files are wrong.
const PART: &str = "endpoint_security";

/// The door of an endpoint.
pub(super) struct Guard {
    sources: Sources,
    /// What the first rules were read from.
    files: Arc<Files>,
    rules: ArcSwap<Rules>,
    checks: Checks,
    /// Whether other machines reach it, so that it must never stand open.
    public: bool,
}

/// A connection's other end.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// What was in force when it connected.
    pub(super) rules: Arc<Rules>,
}

/// What a client is to the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It may read everything.
    Granted,
    /// It has shown nothing.
    Anonymous,
    /// It has shown something wrong.
    Refused,
    /// It has to come again later.
    Busy,
}

// === impl Guard ===

impl Guard {
    pub(super) fn new(security: EndpointSecurity, public: bool) -> Self {
        let (sources, rules, files) = security.into_parts();
        Self { sources, files, rules: ArcSwap::new(rules), checks: Checks::default(), public }
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// What the client at `peer` is that sends `headers`.
    pub(super) async fn admit(&self, rules: &Rules, peer: &Peer, headers: &HeaderMap) -> Access {
        // It connected before certificates were asked for.
        if rules.client_certificates && !peer.rules.client_certificates {
            return Access::Refused;
        }
        if !rules.ask_for_secrets() {
            return Access::Granted;
        }
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        let Some(credentials) = shown.next() else { return Access::Anonymous };
        let (Ok(credentials), None) = (credentials.to_str(), shown.next()) else { return Access::Refused };
        let (scheme, rest) = credentials.split_once(' ').unwrap_or((credentials, ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            return if rules.tokens.accept(rest.trim()) { Access::Granted } else { Access::Refused };
        }
        if !scheme.eq_ignore_ascii_case("basic") || rules.users.is_empty() {
            return Access::Refused;
        }
        let Some((user, password)) = decode(rest.trim()) else { return Access::Refused };
        match self.checks.check(&rules.users, peer.address, &user, &password).await {
            Checked::Right => Access::Granted,
            Checked::Wrong => Access::Refused,
            Checked::Busy => Access::Busy,
        }
    }

    /// Keeps the rules up to date. A file that is wrong leaves them as they are, is said once in the log, and
    /// stands in `health` until it is mended.
    pub(super) async fn watch(self: Arc<Self>, health: Arc<Health>) {
        let (mut known, mut said) = (Arc::clone(&self.files), None::<String>);
        while !known.is_empty() {
            let looking = Arc::clone(&self);
            let Ok((files, outcome)) = tokio::task::spawn_blocking(move || looking.look(known)).await else {
                return;
            };
            known = files;
            match outcome {
                Some(Ok(())) if said.take().is_some() => {
                    health.recovered(PART);
                    tracing::info!("the security of the metrics endpoint is read from its files again");
                }
                None | Some(Ok(())) => {}
                Some(Err(error)) => {
                    let reason = format!("the metrics endpoint goes on with the security it had: {error}");
                    if said.as_ref() != Some(&reason) {
                        tracing::warn!("{reason}");
                        health.degraded(PART, reason.clone());
                        said = Some(reason);
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Reads the files again if they are not `known`.
    fn look(&self, known: Arc<Files>) -> (Arc<Files>, Option<Result<(), ConfigError>>) {
        if !known.have_changed() {
            return (known, None);
        }
        let (rules, files) = self.sources.load();
        let outcome = rules.and_then(|rules| {
            // Also where other machines do not reach it: a file that is being written is empty for a moment.
            if (self.public || self.rules().authenticate()) && !rules.authenticate() {
                return Err(ConfigError::new(
                    "nobody would have to show who they are any more, which takes a restart",
                ));
            }
            if self.rules().encrypt() && !rules.encrypt() {
                return Err(ConfigError::new("it would not be encrypted any more, which takes a restart"));
            }
            self.rules.store(Arc::new(rules));
            Ok(())
        });
        (Arc::new(files), Some(outcome))
    }
}

/// The name and the password of basic authentication.
fn decode(credentials: &str) -> Option<(String, Vec<u8>)> {
    let decoded = STANDARD.decode(credentials).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}
