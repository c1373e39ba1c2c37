//! Writes the metrics down in the OpenMetrics 1.0 text format.

use std::fmt::{self, Write as _};

use super::family::{Family, Shape};
use super::histogram::Histogram;

/// A page under way.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
    /// Of the series that is being written: `key="value",key="value"`.
    labels: String,
    /// The bounds of the family that is being written, as they stand in `le`.
    bounds: Vec<String>,
}

/// Where one series of a page goes.
pub(super) struct Series<'a> {
    page: &'a mut Page,
    name: &'static str,
}

/// A number as the format wants it: with a point, without an exponent.
struct Number(f64);

// === impl Page ===

impl Page {
    /// Starts a family; its series must follow before the next one.
    pub(super) fn family(&mut self, family: &Family) -> fmt::Result {
        self.bounds.clear();
        let kind = match family.shape {
            Shape::Counter | Shape::Amount => "counter",
            Shape::Gauge | Shape::Level | Shape::Rate => "gauge",
            Shape::Histogram(_) => "histogram",
        };
        let Family { name, help, .. } = family;
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    /// A series of `family` with these label values.
    pub(super) fn series(&mut self, family: &'static Family, values: &[String]) -> Series<'_> {
        self.labels.clear();
        for (name, value) in family.labels.iter().zip(values) {
            if !self.labels.is_empty() {
                self.labels.push(',');
            }
            self.labels.push_str(name);
            self.labels.push_str("=\"");
            escape(&mut self.labels, value);
            self.labels.push('"');
        }
        Series { page: self, name: family.name }
    }

    pub(super) fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }
}

// === impl Series ===

impl Series<'_> {
    pub(super) fn counter(self, value: u64) -> fmt::Result {
        self.sample("_total", value)
    }

    pub(super) fn amount(self, value: f64) -> fmt::Result {
        self.sample("_total", Number(value))
    }

    pub(super) fn gauge(self, value: i64) -> fmt::Result {
        self.sample("", value)
    }

    pub(super) fn fraction(self, value: f64) -> fmt::Result {
        self.sample("", Number(value))
    }

    pub(super) fn histogram(mut self, histogram: &Histogram) -> fmt::Result {
        let buckets = histogram.counts();
        self.line("_sum", Number(histogram.sum()))?;
        self.line("_count", buckets.iter().map(|bucket| bucket.count).sum::<u64>())?;
        let Page { text, labels, bounds } = self.page;
        if bounds.is_empty() {
            bounds.extend(buckets.iter().map(|bucket| Number(bucket.bound).to_string()));
        }
        let mut so_far = 0;
        for (bucket, bound) in buckets.iter().zip(bounds) {
            so_far += bucket.count;
            let comma = if labels.is_empty() { "" } else { "," };
            for part in [self.name, "_bucket{le=\"", bound, "\"", comma, labels, "} "] {
                text.push_str(part);
            }
            write!(text, "{so_far}")?;
            if let Some(exemplar) = bucket.exemplar {
                write!(text, " # {{trace_id=\"{}\"}} {}", exemplar.trace, Number(exemplar.value))?;
            }
            text.push('\n');
        }
        Ok(())
    }

    fn sample(mut self, suffix: &str, value: impl fmt::Display) -> fmt::Result {
        self.line(suffix, value)
    }

    fn line(&mut self, suffix: &str, value: impl fmt::Display) -> fmt::Result {
        let Page { text, labels, .. } = &mut *self.page;
        text.push_str(self.name);
        text.push_str(suffix);
        if !labels.is_empty() {
            text.push('{');
            text.push_str(labels);
            text.push('}');
        }
        writeln!(text, " {value}")
    }
}

// === impl Number ===

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            value if value.fract() == 0.0 => write!(f, "{value:.1}"),
            value => write!(f, "{value}"),
        }
    }
}

/// Writes a label's value as it stands between its quotes.
fn escape(out: &mut String, value: &str) {
    for piece in value.split_inclusive(['\\', '"', '\n']) {
        let (plain, escaped) = match piece.as_bytes().last() {
            Some(b'\\') => (&piece[..piece.len() - 1], "\\\\"),
            Some(b'"') => (&piece[..piece.len() - 1], "\\\""),
            Some(b'\n') => (&piece[..piece.len() - 1], "\\n"),
            _ => (piece, ""),
        };
        out.push_str(plain);
        out.push_str(escaped);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::TraceId;

    use super::*;

    #[test]
    fn writes_numbers_with_a_point_and_without_an_exponent() {
        for (number, text) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (0.000_002_5, "0.0000025"),
            (1.0 / 3.0, "0.3333333333333333"),
            (1e20, "100000000000000000000.0"),
            (-0.5, "-0.5"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(Number(number).to_string(), text);
        }
    }

    #[test]
    fn a_histogram_is_written_with_its_sum_its_count_and_the_exemplars_of_its_buckets() {
        static SECONDS: Family = Family::histogram("took_seconds", "Time", &["op"], &[0.5, 1.0]);
        let histogram = Histogram::new(&[0.5, 1.0]);
        histogram.observe(0.25, None);
        histogram.observe(0.75, Some(TraceId::from(255)));
        histogram.observe(7.0, None);
        let mut page = Page::default();
        page.family(&SECONDS).unwrap();
        page.series(&SECONDS, &["a\"b\\c\nd".to_owned()]).histogram(&histogram).unwrap();
        let expected = r#"# HELP took_seconds Time
# TYPE took_seconds histogram
took_seconds_sum{op="a\"b\\c\nd"} 8.0
took_seconds_count{op="a\"b\\c\nd"} 3
took_seconds_bucket{le="0.5",op="a\"b\\c\nd"} 1
took_seconds_bucket{le="1.0",op="a\"b\\c\nd"} 2 # {trace_id="000000000000000000000000000000ff"} 0.75
took_seconds_bucket{le="+Inf",op="a\"b\\c\nd"} 3
# EOF
"#;
        assert_eq!(page.finish(), expected);
    }

    #[test]
    fn a_series_without_labels_has_no_braces_but_for_its_bounds() {
        static SECONDS: Family = Family::histogram("took_seconds", "Time", &[], &[]);
        let mut page = Page::default();
        page.series(&SECONDS, &[]).histogram(&Histogram::new(&[])).unwrap();
        assert_eq!(
            page.finish(),
            "took_seconds_sum 0.0\ntook_seconds_count 0\ntook_seconds_bucket{le=\"+Inf\"} 0\n# EOF\n"
        );
    }
}
