//! Turns values as written into plain ones and collects what is wrong with them.
//!
//! Every method answers with a value, for a wrong one with the default or a stand-in, so that one pass finds
//! all problems. Nothing of it is used once there is a problem.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use http::HeaderName;
use toml::{Spanned, Value};

use super::error::{Problem, unknown};
use super::marks::Marks;

/// The longest duration, in milliseconds: a day.
const LONGEST_MS: u64 = 24 * 60 * 60 * 1000;
/// The largest size, in bytes.
const LARGEST: u64 = 1 << 40;
const DURATION_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
const AGE_UNITS: &[(&str, u64)] = &[("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];
/// The longest age, in milliseconds: ten years.
const OLDEST_MS: u64 = 3653 * 86_400_000;
const SIZE_UNITS: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Label values with a meaning of their own: no route was taken, and the overflow of a family.
const RESERVED: [&str; 2] = ["none", "other"];

/// Collects problems.
pub(crate) struct Check<'a> {
    /// Looks up environment variables.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// Where files with secrets are looked for.
    pub(crate) dir: &'a Path,
    /// What tells parts of this file from those of another one.
    pub(super) marks: Marks,
    problems: Vec<Problem>,
}

// === impl Check ===

impl<'a> Check<'a> {
    /// Begins without problems.
    pub(super) fn new(env: &'a dyn Fn(&str) -> Option<String>, dir: &'a Path) -> Self {
        Self { env, dir, marks: Marks::default(), problems: Vec::new() }
    }

    /// What was found to be wrong.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Notes a problem at a place.
    pub(crate) fn refuse(&mut self, at: Range<usize>, message: impl Into<String>) {
        self.problems.push(Problem { at: Some(at), message: message.into() });
    }

    /// Notes a problem of the file as a whole.
    pub(crate) fn refuse_all(&mut self, message: impl Into<String>) {
        self.problems.push(Problem { at: None, message: message.into() });
    }

    /// Checks the names of a section's tables, and each table with `each`.
    pub(crate) fn named<F, T>(
        &mut self,
        kind: &str,
        files: BTreeMap<Spanned<String>, F>,
        each: impl Fn(&mut Self, &Spanned<String>, F) -> T,
    ) -> BTreeMap<String, T> {
        files
            .into_iter()
            .map(|(name, file)| {
                let allowed = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
                if !name.get_ref().chars().all(allowed) || !(1..=64).contains(&name.get_ref().len()) {
                    let problem = format!(
                        "`{}` cannot name a {kind}: use 1 to 64 letters, digits or characters of . _ : / -",
                        name.get_ref()
                    );
                    self.refuse(name.span(), problem);
                }
                if kind == "route" && RESERVED.contains(&name.get_ref().as_str()) {
                    let problem = format!(
                        "`{}` cannot name a route: the metrics use it for something else",
                        name.get_ref()
                    );
                    self.refuse(name.span(), problem);
                }
                let around = self.marks.enter();
                let value = each(self, &name, file);
                self.marks.leave(around, kind, name.get_ref());
                (name.into_inner(), value)
            })
            .collect()
    }

    /// Refuses a reference to something that is not there.
    pub(crate) fn known<'n>(
        &mut self,
        kind: &str,
        found: &Spanned<String>,
        label: &str,
        known: impl IntoIterator<Item = &'n str> + Clone,
    ) {
        if !known.clone().into_iter().any(|name| name == found.get_ref()) {
            self.refuse(found.span(), unknown(kind, found.get_ref(), label, known));
        }
    }

    /// The name that a provider knows a model by. Its rules are the provider's, so that only what could
    /// garble a log line or a label is refused.
    pub(super) fn upstream_model(&mut self, name: &Spanned<String>) {
        let visible = name.get_ref().bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || !(1..=128).contains(&name.get_ref().len()) {
            let problem = format!(
                "`{}` cannot name a model: use 1 to 128 visible ascii characters without spaces",
                name.get_ref()
            );
            self.refuse(name.span(), problem);
        }
    }

    /// Text that says something.
    pub(crate) fn text(&mut self, key: &str, written: Spanned<String>) -> String {
        if written.get_ref().trim().is_empty() {
            self.refuse(written.span(), format!("`{key}` is empty: write some text"));
        }
        written.into_inner()
    }

    /// An address to listen on.
    pub(super) fn address(
        &mut self,
        key: &str,
        written: Option<&Spanned<String>>,
        default: SocketAddr,
    ) -> SocketAddr {
        let Some(written) = written else { return default };
        written.get_ref().parse().unwrap_or_else(|_| {
            let found = written.get_ref();
            self.refuse(
                written.span(),
                format!("`{key}` is `{found}`: write an ip address and a port, such as `{default}`"),
            );
            default
        })
    }

    /// The name of a request header.
    pub(super) fn header(&mut self, written: &Spanned<String>) -> HeaderName {
        HeaderName::from_bytes(written.get_ref().as_bytes()).unwrap_or_else(|_| {
            let found = written.get_ref();
            self.refuse(
                written.span(),
                format!("`{found}` cannot name a header: use letters, digits and -, such as `x-route`"),
            );
            HeaderName::from_static("x")
        })
    }

    /// A whole number within bounds.
    pub(crate) fn whole<T>(
        &mut self,
        key: &str,
        written: Option<&Spanned<i64>>,
        allowed: RangeInclusive<T>,
        default: T,
    ) -> T
    where
        T: TryFrom<i64> + PartialOrd + Display,
    {
        let Some(written) = written else { return default };
        match T::try_from(*written.get_ref()) {
            Ok(value) if allowed.contains(&value) => value,
            _ => {
                let (found, least, most) = (written.get_ref(), allowed.start(), allowed.end());
                self.refuse(written.span(), format!("`{key}` is {found}: write {least} to {most}"));
                default
            }
        }
    }

    /// A number within bounds that `wanted` puts into words.
    pub(crate) fn number(
        &mut self,
        key: &str,
        written: Option<&Spanned<f64>>,
        allowed: RangeInclusive<f64>,
        wanted: &str,
        default: f64,
    ) -> f64 {
        let Some(written) = written else { return default };
        if allowed.contains(written.get_ref()) {
            return *written.get_ref();
        }
        self.refuse(written.span(), format!("`{key}` is {}: write {wanted}", written.get_ref()));
        default
    }

    /// A duration above zero.
    pub(super) fn timeout(
        &mut self,
        key: &str,
        written: Option<&Spanned<Value>>,
        default: Duration,
    ) -> Duration {
        self.milliseconds(key, written, 1..=LONGEST_MS, "1ms to 24h", default)
    }

    /// A duration that may be zero.
    pub(super) fn duration(
        &mut self,
        key: &str,
        written: Option<&Spanned<Value>>,
        default: Duration,
    ) -> Duration {
        self.milliseconds(key, written, 0..=LONGEST_MS, "0s to 24h", default)
    }

    /// How old something may be, above zero.
    pub(crate) fn age(&mut self, key: &str, written: Option<&Spanned<Value>>, default: Duration) -> Duration {
        let Some(written) = written else { return default };
        let Some(found) = written.get_ref().as_str().and_then(|text| amount(text, AGE_UNITS)) else {
            let problem = format!(
                "`{key}` is not an age: write a whole number and h, d or w in quotes, such as \"7d\""
            );
            self.refuse(written.span(), problem);
            return default;
        };
        let found = self.amount_within(key, written, found, &(1..=OLDEST_MS), "1h to 3653d");
        found.map_or(default, Duration::from_millis)
    }

    fn milliseconds(
        &mut self,
        key: &str,
        written: Option<&Spanned<Value>>,
        allowed: RangeInclusive<u64>,
        wanted: &str,
        default: Duration,
    ) -> Duration {
        let Some(written) = written else { return default };
        let Some(found) = written.get_ref().as_str().and_then(|text| amount(text, DURATION_UNITS)) else {
            let problem = format!(
                "`{key}` is not a duration: write a whole number and ms, s, m or h in quotes, such as \"30s\""
            );
            self.refuse(written.span(), problem);
            return default;
        };
        self.amount_within(key, written, found, &allowed, wanted).map_or(default, Duration::from_millis)
    }

    /// A number of bytes above zero.
    pub(super) fn size(&mut self, key: &str, written: Option<&Spanned<Value>>, default: usize) -> usize {
        let Some(written) = written else { return default };
        let found = match written.get_ref() {
            Value::Integer(bytes) => Some(i128::from(*bytes)),
            value => value.as_str().and_then(|text| amount(text, SIZE_UNITS)),
        };
        let Some(found) = found else {
            let problem = format!(
                "`{key}` is not a size: write bytes, or a whole number and B, KiB, MiB or GiB in quotes, such as \
                 \"64MiB\""
            );
            self.refuse(written.span(), problem);
            return default;
        };
        let bytes = self.amount_within(key, written, found, &(1..=LARGEST), "1B to 1024GiB");
        bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default)
    }

    fn amount_within(
        &mut self,
        key: &str,
        written: &Spanned<Value>,
        found: i128,
        allowed: &RangeInclusive<u64>,
        wanted: &str,
    ) -> Option<u64> {
        let amount = u64::try_from(found).ok().filter(|amount| allowed.contains(amount));
        if amount.is_none() {
            let found = written.get_ref().as_str().map_or_else(|| found.to_string(), ToOwned::to_owned);
            self.refuse(written.span(), format!("`{key}` is {found}: write {wanted}"));
        }
        amount
    }
}

/// A number of bytes as sizes are written: `1000`, `64MiB`.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let found = text.parse().ok().or_else(|| amount(text, SIZE_UNITS));
    found.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| (1..=LARGEST).contains(bytes))
}

/// Reads a whole number and its unit. Negative numbers and those too large for any use are read too, so that
/// they can be refused as what they are.
fn amount(text: &str, units: &[(&str, u64)]) -> Option<i128> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let digits = text.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start_matches(' '))?;
    Some(sign * i128::from(number.parse().unwrap_or(u64::MAX)) * i128::from(*factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{accepted, refused};

    #[test]
    fn reads_durations_and_sizes_with_their_units() {
        for (text, milliseconds) in [("250ms", 250), ("30s", 30_000), ("5 m", 300_000), ("24h", 86_400_000)] {
            assert_eq!(amount(text, DURATION_UNITS), Some(milliseconds), "{text}");
        }
        for (text, bytes) in [("512B", 512), ("1KiB", 1024), ("64MiB", 67_108_864), ("1GiB", 1 << 30)] {
            assert_eq!(amount(text, SIZE_UNITS), Some(bytes), "{text}");
        }
    }

    #[test]
    fn reads_no_amount_where_unit_or_number_is_missing_or_there_is_more() {
        for text in ["", "5", "s", "1.5s", "1h30m", "5S", "5 sec", "+5s", "--5s", "5s ", "５s", "-", "1e3s"]
        {
            assert_eq!(amount(text, DURATION_UNITS), None, "{text}");
        }
    }

    #[test]
    fn takes_sizes_as_bytes_or_with_a_unit() {
        assert_eq!(accepted("[server]\nmax_body = 1000").server.max_body, 1000);
        assert_eq!(accepted("[server]\nmax_body = \"2KiB\"").server.max_body, 2048);
    }

    #[test]
    fn a_timeout_of_zero_is_refused() {
        assert_eq!(
            refused("[server]\nheader_timeout = \"0s\"\n"),
            "t.toml:2:18: `header_timeout` is 0s: write 1ms to 24h\n    \
             2 | header_timeout = \"0s\"\n      |                  ^^^^"
        );
    }

    #[test]
    fn a_negative_duration_is_refused() {
        assert_eq!(
            refused("[server]\ndrain_timeout = \"-5s\"\n"),
            "t.toml:2:17: `drain_timeout` is -5s: write 1ms to 24h\n    \
             2 | drain_timeout = \"-5s\"\n      |                 ^^^^^"
        );
    }

    #[test]
    fn a_duration_of_more_than_a_day_is_refused() {
        for long in ["86400001ms", "25h", "99999999999999999999999h"] {
            let marks = "^".repeat(long.len() + 2);
            assert_eq!(
                refused(&format!("[server]\nheader_timeout = \"{long}\"\n")),
                format!(
                    "t.toml:2:18: `header_timeout` is {long}: write 1ms to 24h\n    \
                     2 | header_timeout = \"{long}\"\n      |                  {marks}"
                )
            );
        }
    }

    #[test]
    fn a_duration_without_unit_or_quotes_is_refused() {
        let message = "`header_timeout` is not a duration: write a whole number and ms, s, m or h in quotes, such as \"30s\"";
        for wrong in ["30", "\"30\"", "\"1.5s\"", "true", "[]", "1979-05-27"] {
            let marks = "^".repeat(wrong.len());
            assert_eq!(
                refused(&format!("[server]\nheader_timeout = {wrong}\n")),
                format!(
                    "t.toml:2:18: {message}\n    2 | header_timeout = {wrong}\n      |                  {marks}"
                )
            );
        }
    }

    #[test]
    fn a_size_of_nothing_or_of_more_than_any_machine_has_is_refused() {
        for wrong in ["0", "-1", "\"0B\"", "\"-3MiB\"", "\"1025GiB\"", "\"99999999999999999999GiB\""] {
            let (marks, found) = ("^".repeat(wrong.len()), wrong.trim_matches('"'));
            assert_eq!(
                refused(&format!("[server]\nmax_body = {wrong}\n")),
                format!(
                    "t.toml:2:12: `max_body` is {found}: write 1B to 1024GiB\n    \
                     2 | max_body = {wrong}\n      |            {marks}"
                )
            );
        }
    }

    #[test]
    fn a_size_with_a_unit_that_is_not_known_is_refused() {
        assert_eq!(
            refused("[server]\nmax_body = \"10MB\"\n"),
            "t.toml:2:12: `max_body` is not a size: write bytes, or a whole number and B, KiB, MiB or GiB in \
             quotes, such as \"64MiB\"\n    2 | max_body = \"10MB\"\n      |            ^^^^^^"
        );
    }

    #[test]
    fn a_whole_number_out_of_bounds_is_refused() {
        for wrong in ["0", "-1", "101", "9223372036854775807"] {
            let marks = "^".repeat(wrong.len());
            assert_eq!(
                refused(&format!("[server]\nmax_json_depth = {wrong}\n")),
                format!(
                    "t.toml:2:18: `max_json_depth` is {wrong}: write 1 to 100\n    \
                     2 | max_json_depth = {wrong}\n      |                  {marks}"
                )
            );
        }
    }

    #[test]
    fn a_name_that_cannot_be_a_label_is_refused() {
        assert_eq!(
            refused("[providers.\"my sim\".simulated]\n"),
            "t.toml:1:12: `my sim` cannot name a provider: use 1 to 64 letters, digits or characters of . _ : / -\n    \
             1 | [providers.\"my sim\".simulated]\n      |            ^^^^^^^^"
        );
        for name in ["", "é", &"x".repeat(65), "a\\nb"] {
            let text = format!("[models.\"{name}\".routes.r]\nprovider = \"sim\"\nmodel = \"x\"\n");
            assert!(refused(&text).contains("cannot name a model: use 1 to 64"), "{name}");
        }
        let longest = "a-Z_0.9:/".repeat(7) + "x";
        let text = format!("[models.\"{longest}\".routes.r]\nprovider = \"sim\"\nmodel = \"x\"\n");
        assert!(accepted(&text).models.contains_key(&longest));
    }
}
