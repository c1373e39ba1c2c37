//! Where alerts arrive: the webhook of whoever is on call.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use crate::e2e::http;
use crate::failure::Failure;

/// It fires always: that it arrives shows that alerts can.
pub(crate) const WATCHDOG: &str = "Watchdog";

/// An alert as a notification told it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Whom Alertmanager has told.
    #[serde(default)]
    pub(crate) receiver: String,
    pub(crate) status: Status,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Firing,
    Resolved,
}

/// What Alertmanager posts.
#[derive(Deserialize)]
struct Notification {
    receiver: String,
    alerts: Vec<Notice>,
}

/// A receiver of notifications that keeps them all, in the order of their arrival.
pub(crate) struct Inbox {
    pub(crate) address: SocketAddr,
    notices: Arc<Mutex<Vec<Notice>>>,
}

/// A place in an inbox: what came after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(usize);

// === impl Inbox ===

impl Inbox {
    /// # Errors
    /// When there is no free port.
    pub(crate) fn open() -> Result<Self, Failure> {
        let notices = Arc::<Mutex<Vec<Notice>>>::default();
        let taking = Arc::clone(&notices);
        let address = http::serve(move |request, stream| {
            let status = match serde_json::from_slice::<Notification>(&request.body) {
                Ok(notification) => {
                    let mut taken = taking.lock().unwrap_or_else(PoisonError::into_inner);
                    let receiver = notification.receiver;
                    taken.extend(
                        notification
                            .alerts
                            .into_iter()
                            .map(|alert| Notice { receiver: receiver.clone(), ..alert }),
                    );
                    200
                }
                Err(_) => 400,
            };
            http::respond(stream, status, "text/plain", b"")
        });
        let address = address
            .map_err(|error| Failure::missing(format!("cannot open a webhook on 127.0.0.1: {error}")))?;
        Ok(Self { address, notices })
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark(self.notices.lock().unwrap_or_else(PoisonError::into_inner).len())
    }

    /// What has come since, the watchdog left out.
    pub(crate) fn since(&self, mark: Mark) -> Vec<Notice> {
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        let after = notices.get(mark.0..).unwrap_or_default();
        after.iter().filter(|notice| notice.name() != WATCHDOG).cloned().collect()
    }

    /// Whether the watchdog has been heard.
    pub(crate) fn is_watched(&self) -> bool {
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        notices.iter().any(|notice| notice.name() == WATCHDOG && notice.status == Status::Firing)
    }
}

/// Of these notices, the last word on each alert that has ever fired.
pub(crate) fn last_words(notices: &[Notice]) -> BTreeMap<&BTreeMap<String, String>, &Notice> {
    notices.iter().map(|notice| (&notice.labels, notice)).collect()
}

// === impl Notice ===

impl Notice {
    pub(crate) fn name(&self) -> &str {
        self.label("alertname")
    }

    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The name, and whatever tells alerts of one name apart.
    pub(crate) fn shown(&self) -> String {
        let more = self.labels.iter().filter(|(name, _)| !matches!(name.as_str(), "alertname" | "component"));
        let more: Vec<_> = more.map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} {{{}}}", self.name(), more.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keeps_what_came_and_leaves_the_watchdog_out() {
        let inbox = Inbox::open().unwrap();
        let post = |name: &str, status: &str| {
            let alert = json!({ "status": status, "labels": { "alertname": name }, "annotations": {} });
            let url = format!("http://{}/", inbox.address);
            http::client()
                .post(url)
                .send(json!({ "receiver": "warning", "alerts": [alert] }).to_string())
                .unwrap()
        };
        assert!(!inbox.is_watched());
        post("StoreDown", "firing");
        let mark = inbox.mark();
        post(WATCHDOG, "firing");
        post("StoreDown", "resolved");
        assert!(inbox.is_watched());
        let since = inbox.since(mark);
        assert_eq!(since.iter().map(Notice::shown).collect::<Vec<_>>(), ["StoreDown {}"]);
        let words: Vec<_> = last_words(&since).into_values().map(|notice| notice.status).collect();
        assert_eq!(words, [Status::Resolved]);
    }
}
