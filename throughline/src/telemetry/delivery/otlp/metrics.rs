//! The registry as OTLP says it: sums and histograms since the start, and gauges.
//!
//! A family keeps its name, without the `_total` of the text formats, which receivers add themselves.

use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, exemplar, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;

use super::super::super::family::Family;
use super::super::super::histogram::Histogram as Distribution;
use super::super::super::registry::{Reading, Registry};

/// Writes the registry down.
pub(in super::super) struct Page {
    resource: ResourceAttributesWithSchema,
    /// Since when sums are counted.
    start: u64,
}

// === impl Page ===

impl Page {
    pub(in super::super) fn new(resource: &Resource) -> Self {
        Self { resource: resource.into(), start: now() }
    }

    /// What `registry` shows now.
    pub(in super::super) fn request(&self, registry: &Registry) -> ExportMetricsServiceRequest {
        let mut metrics: Vec<Metric> = Vec::new();
        let now = now();
        registry.visit(|family, values, reading| {
            if metrics.last().is_none_or(|metric| metric.name != family.name) {
                metrics.push(empty(family, &reading));
            }
            if let Some(data) = metrics.last_mut().and_then(|metric| metric.data.as_mut()) {
                self.add(data, labels(family, values), &reading, now);
            }
        });
        let scope = InstrumentationScope { name: "throughline".to_owned(), ..Default::default() };
        let scope = ScopeMetrics { scope: Some(scope), metrics, ..Default::default() };
        let attributes = self.resource.attributes.0.clone();
        let resource = Some(OtlpResource { attributes, ..Default::default() });
        let schema_url = self.resource.schema_url.clone().unwrap_or_default();
        let resource = ResourceMetrics { resource, scope_metrics: vec![scope], schema_url };
        ExportMetricsServiceRequest { resource_metrics: vec![resource] }
    }

    fn add(&self, data: &mut Data, attributes: Vec<KeyValue>, reading: &Reading<'_>, now: u64) {
        let number = |value| NumberDataPoint {
            attributes: attributes.clone(),
            start_time_unix_nano: self.start,
            time_unix_nano: now,
            value: Some(value),
            ..Default::default()
        };
        let point = match reading {
            // A counter of more than 2^63 events is not to be expected.
            Reading::Count(count) => number(number_data_point::Value::AsInt(count.cast_signed())),
            Reading::Whole(value) => number(number_data_point::Value::AsInt(*value)),
            Reading::Amount(value) | Reading::Fraction(value) => {
                number(number_data_point::Value::AsDouble(*value))
            }
            Reading::Distribution(histogram) => {
                if let Data::Histogram(data) = data {
                    data.data_points.push(self.distribution(histogram, attributes, now));
                }
                return;
            }
        };
        match data {
            Data::Sum(sum) => sum.data_points.push(point),
            Data::Gauge(gauge) => gauge.data_points.push(point),
            _ => {}
        }
    }

    fn distribution(
        &self,
        histogram: &Distribution,
        attributes: Vec<KeyValue>,
        now: u64,
    ) -> HistogramDataPoint {
        let counts = histogram.counts();
        let exemplars = counts.iter().filter_map(|bucket| bucket.exemplar).map(|exemplar| Exemplar {
            time_unix_nano: now,
            trace_id: exemplar.trace.to_bytes().to_vec(),
            value: Some(exemplar::Value::AsDouble(exemplar.value)),
            ..Default::default()
        });
        HistogramDataPoint {
            attributes,
            start_time_unix_nano: self.start,
            time_unix_nano: now,
            count: counts.iter().map(|bucket| bucket.count).sum(),
            sum: Some(histogram.sum()),
            exemplars: exemplars.collect(),
            explicit_bounds: counts
                .iter()
                .map(|bucket| bucket.bound)
                .filter(|bound| bound.is_finite())
                .collect(),
            bucket_counts: counts.iter().map(|bucket| bucket.count).collect(),
            ..Default::default()
        }
    }
}

/// `family` without series.
fn empty(family: &Family, reading: &Reading<'_>) -> Metric {
    let cumulative = AggregationTemporality::Cumulative.into();
    let data = match reading {
        Reading::Count(_) | Reading::Amount(_) => {
            Data::Sum(Sum { aggregation_temporality: cumulative, is_monotonic: true, ..Default::default() })
        }
        Reading::Whole(_) | Reading::Fraction(_) => Data::Gauge(Gauge::default()),
        Reading::Distribution(_) => {
            Data::Histogram(Histogram { aggregation_temporality: cumulative, ..Default::default() })
        }
    };
    let unit = match family.name {
        name if name.ends_with("_seconds") => "s",
        name if name.ends_with("_bytes") => "By",
        _ => "",
    };
    let (name, description) = (family.name.to_owned(), family.help.to_owned());
    Metric { name, description, unit: unit.to_owned(), data: Some(data), ..Default::default() }
}

fn labels(family: &Family, values: &[String]) -> Vec<KeyValue> {
    let pair = |(name, value): (&&str, &String)| KeyValue {
        key: (*name).to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.clone())) }),
        ..Default::default()
    };
    family.labels.iter().zip(values).map(pair).collect()
}

#[expect(clippy::disallowed_methods, reason = "a date is meant, for the receiver")]
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceId;

    use super::super::super::otlp_settings::Protocol;
    use super::*;
    use crate::telemetry::Telemetry;

    static CALLS: Family = Family::counter("calls", "Calls", &["operation"]);
    static SPENT: Family = Family::amount("spent_usd", "Spent", &[]);
    static DEPTH: Family = Family::gauge("depth", "Depth", &[]);
    static TOOK: Family = Family::histogram("took_seconds", "Took", &[], &[0.5, 1.0]);
    static SHARE: Family = Family::rate("share", "Share", &[]);

    #[test]
    fn every_shape_has_its_counterpart() {
        let telemetry = Telemetry::builder().without_endpoint().local().init();
        let registry = telemetry.sink().registry().unwrap();
        registry.counter(&CALLS, &["a"]).add(3);
        registry.counter(&CALLS, &["b"]).inc();
        registry.amount(&SPENT, &[]).add(0.25);
        registry.gauge(&DEPTH, &[]).set(-2);
        let _silent = registry.rate(&SHARE, &[]);
        let took = registry.histogram(&TOOK, &[]);
        took.observe(0.4, None);
        took.observe(0.7, Some(TraceId::from(7)));
        took.observe(9.0, None);

        let mut request = Page::new(&Resource::builder_empty().build()).request(registry);
        let metrics = request.resource_metrics.remove(0).scope_metrics.remove(0).metrics;
        let metric = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap();
        let Some(Data::Sum(calls)) = &metric("calls").data else { panic!("not a sum") };
        assert!(calls.is_monotonic && calls.aggregation_temporality == 2 && calls.data_points.len() == 2);
        let point = &calls.data_points[0];
        assert_eq!(
            (&*point.attributes[0].key, point.value),
            ("operation", Some(number_data_point::Value::AsInt(3)))
        );
        assert!(point.time_unix_nano >= point.start_time_unix_nano && point.start_time_unix_nano > 0);
        let Some(Data::Sum(spent)) = &metric("spent_usd").data else { panic!("not a sum") };
        assert_eq!(spent.data_points[0].value, Some(number_data_point::Value::AsDouble(0.25)));
        let Some(Data::Gauge(depth)) = &metric("depth").data else { panic!("not a gauge") };
        assert_eq!(depth.data_points[0].value, Some(number_data_point::Value::AsInt(-2)));
        assert!(!metrics.iter().any(|metric| metric.name == "share"), "a rate without events shows nothing");
        let Some(Data::Histogram(took)) = &metric("took_seconds").data else { panic!("not a histogram") };
        assert_eq!((metric("took_seconds").unit.as_str(), took.aggregation_temporality), ("s", 2));
        let point = &took.data_points[0];
        assert_eq!((&*point.explicit_bounds, &*point.bucket_counts), (&[0.5, 1.0][..], &[1, 1, 1][..]));
        assert_eq!((point.count, point.sum), (3, Some(0.4 + 0.7 + 9.0)));
        assert_eq!((point.exemplars.len(), point.exemplars[0].trace_id[15]), (1, 7));
    }

    #[test]
    fn json_follows_the_rules_of_protobuf() {
        let telemetry = Telemetry::builder().without_endpoint().local().init();
        let registry = telemetry.sink().registry().unwrap();
        registry.counter(&CALLS, &["a"]).add(3);
        registry.histogram(&TOOK, &[]).observe(0.7, Some(TraceId::from(7)));
        let request = Page::new(&Resource::builder_empty().build()).request(registry);
        let json = super::super::request::written(&request, Protocol::Json).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let metrics = json["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
        let metric = |name: &str| metrics.iter().find(|metric| metric["name"] == name).unwrap();
        let sum = &metric("calls")["sum"];
        assert_eq!((&sum["aggregationTemporality"], &sum["isMonotonic"]), (&2.into(), &true.into()));
        assert_eq!(sum["dataPoints"][0]["asInt"], "3", "numbers of 64 bits are text");
        assert!(sum["dataPoints"][0]["timeUnixNano"].is_string());
        let point = &metric("took_seconds")["histogram"]["dataPoints"][0];
        assert_eq!((&point["count"], &point["sum"]), (&"1".into(), &0.7.into()));
        assert_eq!(point["bucketCounts"], serde_json::json!(["0", "1", "0"]));
        assert_eq!(point["exemplars"][0]["traceId"], "00000000000000000000000000000007");
    }
}
