//! One fault from beginning to end: injected, told, mended, told.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fault::Fault;
use super::inbox::{Notice, Status, WATCHDOG, last_words};
use super::prometheus::{Span, now};
use super::stand::Stand;
use crate::failure::Failure;

/// How long an alert may take to arrive, and to be over. The longest `for` is 3 h of the pack's time, the longest
/// window that lets go 6 h: 90 s and 180 s here.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a fault lasts when all that is expected has arrived: whatever else it does is to arrive too.
const LINGER: Duration = Duration::from_secs(6);
/// How long it must have been quiet: longer than the pack's shortest window.
const CALM: Duration = Duration::from_secs(3);

/// What came of a fault.
#[derive(Debug)]
pub(crate) struct Drill {
    pub(crate) fault: &'static str,
    /// From its injection to its end.
    pub(crate) span: Span,
    /// Alerts that fired.
    pub(crate) arrived: BTreeSet<(String, String)>,
    pub(crate) problems: Vec<String>,
}

/// Injects `fault`, waits for what it must bring, lets `meanwhile` look, mends it, and waits until all is over; in the
/// short form all but what comes late.
///
/// # Errors
/// When something does not start, or the run is to end.
pub(crate) fn run(
    stand: &mut Stand,
    fault: &Fault,
    short: bool,
    meanwhile: impl FnOnce(&Stand, &BTreeSet<(String, String)>) -> Result<(), Failure>,
) -> Result<Drill, Failure> {
    let mark = stand.inbox.mark();
    let from = now();
    (fault.inject)(stand)?;
    let wanted: BTreeSet<_> = fault.expected.iter().map(owned).collect();
    let mut told = BTreeSet::new();
    let all_came = stand.interrupt.poll(PATIENCE, || {
        let came = fired(&stand.inbox.since(mark));
        for (name, severity) in came.difference(&told) {
            eprintln!("  after {:.0} s: {name} ({severity})", now() - from);
        }
        told = came;
        Ok(wanted.is_subset(&told).then_some(()))
    })?;
    if all_came.is_some() {
        stand.pass(LINGER)?;
    }
    let span = Span::since(from);
    meanwhile(stand, &fired(&stand.inbox.since(mark)))?;
    (fault.heal)(stand)?;
    let over = wait_until_calm(stand, PATIENCE, if short { fault.late } else { &[] })?;
    let notices = stand.inbox.since(mark);
    let mut problems = judge(fault, short, &notices);
    problems.extend(
        over.map(|what| format!("{} s after it was mended there is still {what}", PATIENCE.as_secs())),
    );
    problems.extend(notices.iter().filter_map(|notice| flawed(stand, notice)).collect::<BTreeSet<_>>());
    Ok(Drill { fault: fault.name, span, arrived: fired(&notices), problems })
}

/// Waits until nothing but the watchdog and `except` fires, or is about to, for a while; says what still does when that
/// takes too long.
///
/// # Errors
/// When Prometheus cannot be asked, or the run is to end.
fn wait_until_calm(
    stand: &Stand,
    patience: Duration,
    except: &[(&str, &str)],
) -> Result<Option<String>, Failure> {
    let (mut calm_since, mut loud) = (None, Vec::new());
    let calm = stand.interrupt.poll(patience, || {
        let alerts = stand.api.alerts().map_err(|error| Failure::missing(format!("Prometheus: {error}")))?;
        let active = alerts.iter().filter(|alert| {
            let label = |name: &str| alert.labels.get(name).map_or("", String::as_str);
            label("alertname") != WATCHDOG && !except.contains(&(label("alertname"), label("severity")))
        });
        loud = active.map(|alert| format!("{} {:?}", alert.state, alert.labels)).collect();
        if !loud.is_empty() {
            calm_since = None;
            return Ok(None);
        }
        let since = *calm_since.get_or_insert_with(now);
        Ok((now() - since >= CALM.as_secs_f64()).then_some(()))
    })?;
    Ok(calm.is_none().then(|| loud.join(", ")))
}

/// Name and severity of what has fired.
fn fired(notices: &[Notice]) -> BTreeSet<(String, String)> {
    let firing = notices.iter().filter(|notice| notice.status == Status::Firing);
    firing.map(|notice| (notice.name().to_owned(), notice.label("severity").to_owned())).collect()
}

fn owned(alert: &(&str, &str)) -> (String, String) {
    (alert.0.to_owned(), alert.1.to_owned())
}

/// What is missing, what is too much, and what is not over.
fn judge(fault: &Fault, short: bool, notices: &[Notice]) -> Vec<String> {
    let came = fired(notices);
    let late: BTreeSet<_> = fault.late.iter().map(owned).collect();
    let mut wanted: BTreeSet<_> = fault.expected.iter().map(owned).collect();
    if !short {
        wanted.extend(late.clone());
    }
    let allowed: BTreeSet<_> =
        fault.companions.iter().map(owned).chain(wanted.clone()).chain(late.clone()).collect();
    let kind = |notice: &Notice| (notice.name().to_owned(), notice.label("severity").to_owned());
    let firing = |notice: &&Notice| notice.status == Status::Firing;
    let missing =
        wanted.difference(&came).map(|(name, severity)| format!("{name} ({severity}) did not arrive"));
    let surplus = notices
        .iter()
        .filter(firing)
        .filter(|notice| !allowed.contains(&kind(notice)))
        .map(|notice| format!("{} arrived and was not expected", notice.shown()));
    let open = last_words(notices)
        .into_values()
        .filter(firing)
        .filter(|notice| !(short && late.contains(&kind(notice))))
        .map(|notice| format!("nobody was told that {} is over", notice.shown()));
    missing.chain(surplus.collect::<BTreeSet<_>>()).chain(open).collect()
}

/// What whoever is woken by it would miss.
fn flawed(stand: &Stand, notice: &Notice) -> Option<String> {
    let annotation = |name: &str| notice.annotations.get(name).map_or("", String::as_str);
    let url = annotation("runbook_url");
    let runbook = stand.pack.runbook(notice.name());
    if !url.ends_with(&format!("/{}.md", notice.name())) || !runbook.is_file() {
        return Some(format!(
            "{}: its runbook_url is `{url}`, and {} is what is there",
            notice.name(),
            runbook.display()
        ));
    }
    if notice.receiver != notice.label("severity") {
        return Some(format!("{}: told to `{}`", notice.shown(), notice.receiver));
    }
    ["summary", "description"]
        .into_iter()
        .find(|name| {
            annotation(name).is_empty()
                || annotation(name).contains("{{")
                || annotation(name).contains("<no value>")
        })
        .map(|name| format!("{}: its {name} is `{}`", notice.name(), annotation(name)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn notice(name: &str, severity: &str, status: Status) -> Notice {
        let labels = [("alertname", name), ("severity", severity)];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Notice {
            receiver: severity.to_owned(),
            status,
            labels: BTreeMap::from(labels),
            annotations: BTreeMap::new(),
        }
    }

    const FAULT: Fault = Fault {
        name: "something",
        inject: |_| Ok(()),
        heal: |_| Ok(()),
        expected: &[("StoreDown", "warning")],
        companions: &[("CircuitOpen", "warning")],
        late: &[("GatewayErrorBudgetBurn", "warning")],
        short: true,
    };

    #[test]
    fn what_is_expected_or_allowed_and_over_is_no_problem() {
        use Status::{Firing, Resolved};
        let told = [
            ("StoreDown", Firing),
            ("CircuitOpen", Firing),
            ("StoreDown", Resolved),
            ("CircuitOpen", Resolved),
        ];
        let notices = told.map(|(name, status)| notice(name, "warning", status));
        assert_eq!(judge(&FAULT, true, &notices), [""; 0]);
        assert_eq!(judge(&FAULT, false, &notices), ["GatewayErrorBudgetBurn (warning) did not arrive"]);
        assert_eq!(
            judge(&FAULT, true, &notices[..2]),
            [
                "nobody was told that CircuitOpen {severity=warning} is over",
                "nobody was told that StoreDown {severity=warning} is over"
            ]
        );
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_are_named() {
        let told = ["StoreDown", "Other", "Other"].map(|name| notice(name, "critical", Status::Firing));
        let ended = ["StoreDown", "Other"].map(|name| notice(name, "critical", Status::Resolved));
        assert_eq!(
            judge(&FAULT, true, &[&told[..], &ended].concat()),
            [
                "StoreDown (warning) did not arrive",
                "Other {severity=critical} arrived and was not expected",
                "StoreDown {severity=critical} arrived and was not expected",
            ]
        );
    }
}
