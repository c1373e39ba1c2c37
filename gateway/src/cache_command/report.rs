//! What a simulation has found, as a table or as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::args::{Policy, Ttl};
use super::trace::{Identity, Request, Trace};

/// What caches would have done for the requests of a trace.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    trace: String,
    requests: usize,
    different_requests: usize,
    /// From the first request to the last; `None` where the trace has no times.
    span_ms: Option<u64>,
    /// Requests a second that were assumed.
    assumed_rate: Option<f64>,
    /// Whether the sizes of answers are those of the trace.
    sizes_known: bool,
    /// `content`, or `lengths` where hits are an upper bound.
    identity: &'static str,
    /// The share of requests that ask for an answer which was given before, in whichever words; where it is known.
    same_answer_rate: Option<f64>,
    rows: Vec<Row>,
}

/// What one cache would have done.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    policy: &'static str,
    size_bytes: Option<u64>,
    ttl_ms: Option<u64>,
    pub(super) hits: u64,
    /// Hits that are known to be right.
    pub(super) verified: u64,
    /// Hits that are known to be wrong.
    pub(super) wrong: u64,
    /// Hits among requests, 0 to 1.
    pub(super) hit_rate: f64,
    /// The same of verified hits.
    verified_hit_rate: f64,
    pub(super) input_tokens_saved: u64,
    pub(super) output_tokens_saved: u64,
    /// What the verified hits would have cost, as far as prices are known; `None` where none is.
    saved_usd: Option<f64>,
    /// What it holds in the end.
    pub(super) bytes: u64,
}

// === impl Row ===

impl Row {
    pub(super) fn new(policy: Option<(Policy, u64)>, ttl: Ttl) -> Self {
        let name = match policy {
            Some((Policy::Memory, _)) => "memory",
            Some((Policy::Lru, _)) => "lru",
            None => "unbounded",
        };
        Self {
            policy: name,
            size_bytes: policy.map(|(_, size)| size),
            ttl_ms: ttl.0.map(millis),
            hits: 0,
            verified: 0,
            wrong: 0,
            hit_rate: 0.0,
            verified_hit_rate: 0.0,
            input_tokens_saved: 0,
            output_tokens_saved: 0,
            saved_usd: None,
            bytes: 0,
        }
    }

    /// Counts a hit for `request`.
    pub(super) fn hit(&mut self, request: &Request, right: bool, identity: Identity) {
        self.hits += 1;
        if !right {
            // By its length alone nobody knows.
            self.wrong += u64::from(identity == Identity::Content);
            return;
        }
        self.verified += 1;
        self.input_tokens_saved += request.input_tokens;
        self.output_tokens_saved += request.output_tokens;
        if let Some(usd) = request.usd {
            *self.saved_usd.get_or_insert(0.0) += usd;
        }
    }

    pub(super) fn end(&mut self, requests: usize, bytes: u64) {
        self.hit_rate = self.hits as f64 / requests as f64;
        self.verified_hit_rate = self.verified as f64 / requests as f64;
        self.bytes = bytes;
    }
}

// === impl Report ===

impl Report {
    pub(super) fn new(name: String, trace: &Trace, rate: Option<f64>, rows: Vec<Row>) -> Self {
        let requests = trace.requests.len();
        Self {
            trace: name,
            requests,
            different_requests: trace.keys.len(),
            span_ms: trace.timed.then(|| millis(trace.span())),
            assumed_rate: rate,
            sizes_known: trace.sized,
            identity: match trace.identity {
                Identity::Content => "content",
                Identity::Lengths => "lengths",
            },
            same_answer_rate: trace.same_answers().map(|same| same as f64 / requests as f64),
            rows,
        }
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and numbers serialise") + "\n"
    }

    fn by_lengths(&self) -> bool {
        self.identity == "lengths"
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, different) = (self.requests, self.different_requests);
        write!(f, "{}: {all} requests, {different} of them different", self.trace)?;
        match (self.span_ms, self.assumed_rate) {
            (Some(_), Some(rate)) => writeln!(f, ", {rate} a second as you say")?,
            (Some(span), None) => writeln!(f, ", in {}", time(span / 1000 * 1000))?,
            (None, _) => {
                writeln!(f, "; it does not say when they came, so there is no ttl (--rate assumes one)")?;
            }
        }
        if self.by_lengths() {
            writeln!(
                f,
                "it holds no content: requests of one length may be the same, so an unbounded cache has at most these hits, \
                 and nothing can be said of savings"
            )?;
        }
        if let Some(rate) = self.same_answer_rate {
            writeln!(f, "{:.1}% ask, in whichever words, for an answer that was given before", rate * 100.0)?;
        }
        if !self.sizes_known {
            writeln!(f, "sizes of answers are estimated from their tokens")?;
        }
        let hits = if self.by_lengths() { "hits ≤" } else { "hits" };
        writeln!(
            f,
            "\n{:<10} {:>10} {:>7} {hits:>8} {:>7} {:>7} {:>12} {:>12} {:>10} {:>10}",
            "policy", "size", "ttl", "rate", "wrong", "input saved", "output saved", "USD saved", "in use"
        )?;
        self.rows.iter().try_for_each(|row| row.write(f, self.by_lengths()))
    }
}

impl Row {
    fn write(&self, f: &mut fmt::Formatter<'_>, by_lengths: bool) -> fmt::Result {
        let known = |text: String| if by_lengths { "?".to_owned() } else { text };
        let usd = self.saved_usd.map_or_else(|| "?".to_owned(), |usd| format!("{usd:.4}"));
        writeln!(
            f,
            "{:<10} {:>10} {:>7} {:>8} {:>6.2}% {:>7} {:>12} {:>12} {:>10} {:>10}",
            self.policy,
            self.size_bytes.map_or_else(|| "-".to_owned(), size),
            self.ttl_ms.map_or_else(|| "none".to_owned(), time),
            self.hits,
            self.hit_rate * 100.0,
            known(self.wrong.to_string()),
            known(self.input_tokens_saved.to_string()),
            known(self.output_tokens_saved.to_string()),
            known(usd),
            size(self.bytes),
        )
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn time(ms: u64) -> String {
    humantime::format_duration(Duration::from_millis(ms)).to_string().replace(' ', "")
}

/// A number of bytes, short.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(*unit) => format!("{}{name}", bytes / unit),
        Some((unit, name)) => format!("{:.1}{name}", bytes as f64 / *unit as f64),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!((size(0), size(1536), size(64 << 20)), ("0B".into(), "1.5KiB".into(), "64MiB".into()));
        assert_eq!((time(600_000), time(1_500)), ("10m".into(), "1s500ms".into()));
    }
}
