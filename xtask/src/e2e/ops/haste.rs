//! Makes the clock of the pack run faster: every duration in its files and queries is divided by one factor.
//!
//! Alerts wait for minutes, and windows are hours long. Names, expressions, thresholds and structure stay those of the
//! pack; only what is written as a duration (`for: 5m`, `interval: 30s`, `[1h:1m]`, `offset 1w`) shrinks, all of it
//! alike, and the stand scrapes as much faster.

/// How much faster.
pub(crate) const FACTOR: u64 = 120;

/// The keys of the pack's files that hold a duration.
const KEYS: [&str; 8] = [
    "for",
    "keep_firing_for",
    "interval",
    "scrape_interval",
    "scrape_timeout",
    "evaluation_interval",
    "group_wait",
    "group_interval",
];
/// What Prometheus and a gateway that is not optimised can keep up with on two cores: between two scrapes, …
const SCRAPE: u64 = 400;
/// … and between two of anything else.
const LEAST: u64 = 200;

/// A file of Prometheus or Alertmanager in YAML.
pub(crate) fn file(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let key = line.trim_start().trim_start_matches("- ");
        match key.split_once(": ").filter(|(key, _)| KEYS.contains(key)) {
            Some((_, value)) => {
                let bare = value.trim().trim_matches(['"', '\'']);
                match shorter(bare) {
                    // A window may be as short as it comes out; what is done again and again may not.
                    Some(ms) => line.replace(value, &format!("{}ms", floor(key, ms))),
                    None => line.to_owned(),
                }
            }
            None => query(line),
        }
    });
    lines.map(|line| line + "\n").collect()
}

fn floor(key: &str, ms: u64) -> u64 {
    match key.split_once(": ").map_or(key, |(key, _)| key) {
        "for" | "keep_firing_for" | "group_wait" => ms,
        "scrape_interval" | "scrape_timeout" => ms.max(SCRAPE),
        _ => ms.max(LEAST),
    }
}

/// An expression, or a line with one in it.
pub(crate) fn query(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(['[', 'o']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let (hastened, length) =
            range(from).or_else(|| offset(from)).unwrap_or_else(|| (from[..1].to_owned(), 1));
        out.push_str(&hastened);
        rest = &from[length..];
    }
    out + rest
}

/// `[5m]` or `[1h:1m]` at the start of `text`, hastened, and how long it was.
fn range(text: &str) -> Option<(String, usize)> {
    let inner = text.strip_prefix('[')?;
    let end = inner.find(']')?;
    let parts: Option<Vec<_>> =
        inner[..end]
            .split(':')
            .map(|part| {
                if part.is_empty() { Some(String::new()) } else { shorter(part).map(|ms| format!("{ms}ms")) }
            })
            .collect();
    Some((format!("[{}]", parts?.join(":")), end + 2))
}

fn offset(text: &str) -> Option<(String, usize)> {
    let rest = text.strip_prefix("offset ")?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
    Some((format!("offset {}ms", shorter(&rest[..end])?), "offset ".len() + end))
}

/// In milliseconds, and never none; `None` if it is no duration.
fn shorter(text: &str) -> Option<u64> {
    Some((milliseconds(text)? / FACTOR).max(1))
}

/// A duration as Prometheus writes it: `1h30m`, `250ms`.
pub(crate) fn milliseconds(text: &str) -> Option<u64> {
    let (mut sum, mut rest) = (0, text);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
        let unit = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        sum += number * unit;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortens_every_duration_of_a_rule_and_nothing_else() {
        let rule = "\
groups:
  - name: alerts
    interval: 30s
    rules:
      - alert: TooSlow
        expr: |
          job:errors:ratio_rate5m{code=~\"[45]..\"} > (14.4 * 0.001)
            and rate(x[5m]) > rate(x[1h] offset 1w) or foo offset 1d
            and max_over_time((up or vector(0))[30d:1m]) > 5
        for: 5m
        keep_firing_for: \"10m\"
        labels: { long: 1h, short: 5m }
        annotations:
          description: \"more than 5m for long\"
";
        let wanted = rule
            .replace("interval: 30s", "interval: 250ms")
            .replace("[5m]", "[2500ms]")
            .replace("[1h] offset 1w", "[30000ms] offset 5040000ms")
            .replace("offset 1d", "offset 720000ms")
            .replace("[30d:1m]", "[21600000ms:500ms]")
            .replace(
                "for: 5m\n        keep_firing_for: \"10m\"",
                "for: 2500ms\n        keep_firing_for: 5000ms",
            );
        assert_eq!(file(rule), wanted);
    }

    #[test]
    fn reads_durations_as_prometheus_writes_them() {
        assert_eq!(milliseconds("1h30m"), Some(5_400_000));
        assert_eq!(milliseconds("250ms"), Some(250));
        for not in ["", "m", "5", "5 m", "45..", "$__rate_interval"] {
            assert_eq!(milliseconds(not), None, "{not}");
        }
    }

    #[test]
    fn leaves_what_grafana_fills_in() {
        assert_eq!(
            query("rate(x[$__rate_interval]) or on (job) y"),
            "rate(x[$__rate_interval]) or on (job) y"
        );
    }
}
