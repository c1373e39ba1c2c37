//! Reads a /metrics page back: for reports and tests that must say what the page says.

use std::collections::BTreeMap;

/// The samples of one page.
#[derive(Clone, Debug, Default)]
pub struct Scrape(Vec<Sample>);

/// One line of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The sample's name, with its suffix.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

// === impl Scrape ===

impl Scrape {
    /// The samples of `page`, in either text format. Lines that are none are left out.
    #[must_use]
    pub fn parse(page: &str) -> Self {
        Self(page.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// Every sample.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.0
    }

    /// The samples called `name` that carry all of `labels`.
    pub fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        })
    }

    /// The sum over [`Scrape::select`]; `None` when there is no such sample.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.select(name, labels).map(|sample| sample.value).reduce(|a, b| a + b)
    }

    /// The sum per value of the label `by`.
    #[must_use]
    pub fn sum_by(&self, name: &str, by: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.select(name, &[]) {
            let group = sample.labels.get(by).cloned().unwrap_or_default();
            *sums.entry(group).or_insert(0.0) += sample.value;
        }
        sums
    }

    /// The `q`-quantile of a histogram over all series with `labels`, by linear interpolation within
    /// its bucket as PromQL's `histogram_quantile` does; `None` without observations.
    #[must_use]
    pub fn quantile(&self, q: f64, histogram: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let name = format!("{histogram}_bucket");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.select(&name, labels) {
            let bound: f64 = sample.labels.get("le")?.parse().ok()?;
            match buckets.iter_mut().find(|(le, _)| *le == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        interpolate(q, &buckets)
    }
}

fn interpolate(q: f64, buckets: &[(f64, f64)]) -> Option<f64> {
    let total = buckets.last()?.1;
    if total <= 0.0 {
        return None;
    }
    let rank = q * total;
    let at = buckets.iter().position(|(_, count)| *count >= rank)?;
    let (low, below) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
    let (high, count) = buckets[at];
    if high.is_infinite() {
        return Some(low);
    }
    Some(low + (high - low) * (rank - below) / (count - below).max(f64::MIN_POSITIVE))
}

fn sample(line: &str) -> Option<Sample> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => read_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next()?;
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

fn read_labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, after) = rest.split_once("=\"")?;
        let (value, after) = read_value(after)?;
        labels.insert(key.to_owned(), value);
        rest = after;
    }
}

fn read_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_labels_and_values() {
        let page = "# TYPE a counter\na_total{x=\"1\",y=\"q\\\"\\n,}\"} 2 # {trace_id=\"7\"} 1\nb 3.5\nnonsense\n# EOF\n";
        let scrape = Scrape::parse(page);
        assert_eq!(scrape.samples().len(), 2);
        assert_eq!(scrape.samples()[0].labels["y"], "q\"\n,}");
        assert_eq!(scrape.sum("a_total", &[("x", "1")]), Some(2.0));
        assert_eq!(scrape.sum("b", &[]), Some(3.5));
        assert_eq!(scrape.sum("c", &[]), None);
    }

    #[test]
    fn interpolates_quantiles_over_all_series() {
        let page = "h_bucket{r=\"a\",le=\"1.0\"} 5\nh_bucket{r=\"a\",le=\"2.0\"} 10\nh_bucket{r=\"a\",le=\"+Inf\"} 10\n\
                    h_bucket{r=\"b\",le=\"1.0\"} 0\nh_bucket{r=\"b\",le=\"2.0\"} 0\nh_bucket{r=\"b\",le=\"+Inf\"} 10\n";
        let scrape = Scrape::parse(page);
        assert_eq!(scrape.quantile(0.5, "h", &[("r", "a")]), Some(1.0));
        assert_eq!(scrape.quantile(0.25, "h", &[]), Some(1.0));
        assert_eq!(scrape.quantile(0.9, "h", &[("r", "b")]), Some(2.0), "beyond the last bound");
        assert_eq!(scrape.quantile(0.5, "none", &[]), None);
    }
}
