//! What the environment says about how telemetry leaves: where to, in which batches, within which limits.

use std::time::Duration;

use opentelemetry_sdk::trace::TracerProviderBuilder;

use super::super::settings::Env;
use super::keep::Keep;
use super::otlp_settings::{Otlp, Protocol, Signal};
use super::sampling::Head;
use super::variables::{Variables, shown};

/// Where spans go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Traces {
    /// To an OTLP receiver, by gRPC.
    OtlpGrpc,
    /// To an OTLP receiver, by HTTP with protobuf bodies.
    OtlpHttp,
    /// To an OTLP receiver, by HTTP with JSON bodies.
    OtlpHttpJson,
    /// To standard error, a line a span.
    Console,
}

/// Where metrics go beside `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Metrics {
    /// To an OTLP receiver, by gRPC.
    OtlpGrpc,
    /// To an OTLP receiver, by HTTP with protobuf bodies.
    OtlpHttp,
    /// To an OTLP receiver, by HTTP with JSON bodies.
    OtlpHttpJson,
    /// To standard error, as the page that `/metrics` shows.
    Console,
}

/// How telemetry leaves.
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct Delivery {
    pub(in crate::telemetry) traces: Vec<Traces>,
    pub(in crate::telemetry) metrics: Vec<Metrics>,
    pub(in crate::telemetry) batching: Batching,
    pub(in crate::telemetry) interval: Interval,
    pub(in crate::telemetry) limits: Limits,
    pub(in crate::telemetry) head: Head,
    pub(in crate::telemetry) keep: Keep,
    pub(in crate::telemetry) otlp_traces: Otlp,
    pub(in crate::telemetry) otlp_metrics: Otlp,
    pub(in crate::telemetry) otlp_logs: Otlp,
    /// How events with content are sent, where they are recorded and somebody takes them.
    pub(in crate::telemetry) events: Option<Protocol>,
}

/// `OTEL_BSP_*`: how spans are gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) struct Batching {
    /// The most spans that wait for an exporter. Default: 2048.
    pub(super) queue: u32,
    /// The most spans that are sent at once. Default: 512.
    pub(super) batch: u32,
    /// How long a span may wait for others. Default: 5 s.
    pub(super) delay: Duration,
    /// How long a batch is tried to be delivered. Default: 30 s.
    pub(super) timeout: Duration,
}

/// `OTEL_METRIC_EXPORT_*`: how often metrics are pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) struct Interval {
    /// From one push to the next. Default: 60 s.
    pub(super) every: Duration,
    /// How long one push is tried. Default: 30 s.
    pub(super) timeout: Duration,
}

/// What a span may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) struct Limits {
    /// Attributes of a span. Default: 128.
    pub(in crate::telemetry) attributes: u32,
    /// Events of a span. Default: 128.
    pub(in crate::telemetry) events: u32,
    /// Links of a span. Default: 128.
    pub(in crate::telemetry) links: u32,
    /// Attributes of an event. Default: 128.
    pub(in crate::telemetry) event_attributes: u32,
    /// Attributes of a link. Default: 128.
    pub(in crate::telemetry) link_attributes: u32,
    /// Characters of a span attribute's text. Default: 8192.
    pub(super) span_text: u32,
    /// Characters of any other attribute's text. Default: 8192.
    pub(super) text: u32,
}

// === impl Delivery ===

impl Delivery {
    /// Lets the environment speak. `console` says whether spans are shown where no exporter is named. Returns whether
    /// metrics are to be served to Prometheus.
    pub(in crate::telemetry) fn apply(
        &mut self,
        env: Env<'_>,
        console: bool,
        warnings: &mut Vec<String>,
    ) -> bool {
        let mut variables = Variables::new(env, warnings);
        self.otlp_traces.apply(Signal::Traces, &mut variables);
        self.otlp_metrics.apply(Signal::Metrics, &mut variables);
        self.otlp_logs.apply(Signal::Logs, &mut variables);
        self.apply_traces(console, &mut variables);
        self.apply_events(&mut variables);
        self.batching.apply(&mut variables);
        self.interval.apply(&mut variables);
        self.limits.apply(&mut variables);
        self.head.apply(&mut variables);
        self.keep.apply(&mut variables);
        self.apply_metrics(&mut variables)
    }

    /// Whether spans leave.
    pub(in crate::telemetry) fn traces(&self) -> bool {
        !self.traces.is_empty()
    }

    /// Whether anything leaves at all, for which there has to be a thread.
    pub(in crate::telemetry) fn needs_thread(&self) -> bool {
        !self.traces.is_empty() || !self.metrics.is_empty()
    }

    /// The sampler and the limits: the SDK would read the process's environment for them.
    pub(in crate::telemetry) fn tracing(&self, builder: TracerProviderBuilder) -> TracerProviderBuilder {
        let limits = self.limits;
        builder
            .with_sampler(self.head.sampler())
            .with_max_attributes_per_span(limits.attributes)
            .with_max_events_per_span(limits.events)
            .with_max_links_per_span(limits.links)
            .with_max_attributes_per_event(limits.event_attributes)
            .with_max_attributes_per_link(limits.link_attributes)
    }

    fn apply_traces(&mut self, console: bool, variables: &mut Variables<'_>) {
        let otlp = match self.otlp_traces.protocol {
            Protocol::Grpc => Traces::OtlpGrpc,
            Protocol::Protobuf => Traces::OtlpHttp,
            Protocol::Json => Traces::OtlpHttpJson,
        };
        let Some(exporters) = variables.words("OTEL_TRACES_EXPORTER") else {
            if self.otlp_traces.has_endpoint() {
                self.traces = vec![otlp];
            } else if console {
                self.traces = vec![Traces::Console];
            }
            return;
        };
        self.traces.clear();
        for exporter in exporters {
            let target = match exporter.as_str() {
                "otlp" => otlp,
                "console" => Traces::Console,
                "none" => continue,
                other => {
                    variables.warn(format!(
                        "OTEL_TRACES_EXPORTER: `{}` is not one of otlp, console, none: ignored",
                        shown(other)
                    ));
                    continue;
                }
            };
            if !self.traces.contains(&target) {
                self.traces.push(target);
            }
        }
    }

    /// Events are the only log records that are sent.
    fn apply_events(&mut self, variables: &mut Variables<'_>) {
        let protocol = self.otlp_logs.protocol;
        let Some(exporters) = variables.words("OTEL_LOGS_EXPORTER") else {
            self.events = self.otlp_logs.has_endpoint().then_some(protocol);
            return;
        };
        self.events = None;
        for exporter in exporters {
            match exporter.as_str() {
                "otlp" => self.events = Some(protocol),
                "none" => {}
                other => variables.warn(format!(
                    "OTEL_LOGS_EXPORTER: `{}` is not one of otlp, none: ignored",
                    shown(other)
                )),
            }
        }
    }

    fn apply_metrics(&mut self, variables: &mut Variables<'_>) -> bool {
        let Some(exporters) = variables.words("OTEL_METRICS_EXPORTER") else { return true };
        let mut prometheus = false;
        self.metrics.clear();
        for exporter in exporters {
            let target = match exporter.as_str() {
                "prometheus" => {
                    prometheus = true;
                    continue;
                }
                "otlp" => match self.otlp_metrics.protocol {
                    Protocol::Grpc => Metrics::OtlpGrpc,
                    Protocol::Protobuf => Metrics::OtlpHttp,
                    Protocol::Json => Metrics::OtlpHttpJson,
                },
                "console" => Metrics::Console,
                "none" => continue,
                other => {
                    variables.warn(format!(
                        "OTEL_METRICS_EXPORTER: `{}` is not one of prometheus, otlp, console, none: ignored",
                        shown(other)
                    ));
                    continue;
                }
            };
            if !self.metrics.contains(&target) {
                self.metrics.push(target);
            }
        }
        prometheus
    }
}

// === impl Batching ===

impl Default for Batching {
    fn default() -> Self {
        let (delay, timeout) = (Duration::from_secs(5), Duration::from_secs(30));
        Self { queue: 2048, batch: 512, delay, timeout }
    }
}

impl Batching {
    fn apply(&mut self, variables: &mut Variables<'_>) {
        variables.count(&["OTEL_BSP_MAX_QUEUE_SIZE"], 1, &mut self.queue);
        variables.count(&["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"], 1, &mut self.batch);
        variables.millis(&["OTEL_BSP_SCHEDULE_DELAY"], &mut self.delay);
        variables.millis(&["OTEL_BSP_EXPORT_TIMEOUT"], &mut self.timeout);
        if self.queue > MOST_WAITING {
            variables.warn(format!(
                "OTEL_BSP_MAX_QUEUE_SIZE is {}, more than is allowed: {MOST_WAITING} is used",
                self.queue
            ));
            self.queue = MOST_WAITING;
        }
        if self.batch > self.queue {
            if variables.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").is_some() {
                variables.warn(format!(
                    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE is more than OTEL_BSP_MAX_QUEUE_SIZE: {} is used",
                    self.queue
                ));
            }
            self.batch = self.queue;
        }
    }
}

/// The queue's memory is taken at the start: half a kilobyte a span.
const MOST_WAITING: u32 = 1 << 17;

// === impl Interval ===

impl Default for Interval {
    fn default() -> Self {
        Self { every: Duration::from_secs(60), timeout: Duration::from_secs(30) }
    }
}

impl Interval {
    fn apply(&mut self, variables: &mut Variables<'_>) {
        variables.millis(&["OTEL_METRIC_EXPORT_INTERVAL"], &mut self.every);
        variables.millis(&["OTEL_METRIC_EXPORT_TIMEOUT"], &mut self.timeout);
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            attributes: 128,
            events: 128,
            links: 128,
            event_attributes: 128,
            link_attributes: 128,
            span_text: 8192,
            text: 8192,
        }
    }
}

impl Limits {
    fn apply(&mut self, variables: &mut Variables<'_>) {
        const COUNT: &str = "OTEL_ATTRIBUTE_COUNT_LIMIT";
        const LENGTH: &str = "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT";
        variables.count(&["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", COUNT], 0, &mut self.attributes);
        variables.count(&["OTEL_SPAN_EVENT_COUNT_LIMIT"], 0, &mut self.events);
        variables.count(&["OTEL_SPAN_LINK_COUNT_LIMIT"], 0, &mut self.links);
        variables.count(&["OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", COUNT], 0, &mut self.event_attributes);
        variables.count(&["OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", COUNT], 0, &mut self.link_attributes);
        variables.count(&["OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", LENGTH], 0, &mut self.span_text);
        variables.count(&[LENGTH], 0, &mut self.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Read {
        delivery: Delivery,
        prometheus: bool,
        warnings: Vec<String>,
    }

    type Set<'a> = &'a [(&'a str, &'a str)];

    fn read(variables: Set<'_>) -> Read {
        let mut read = Read { delivery: Delivery::default(), prometheus: false, warnings: Vec::new() };
        let env =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        read.prometheus = read.delivery.apply(&env, false, &mut read.warnings);
        read
    }

    #[test]
    fn spans_go_where_the_variables_say() {
        let endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let cases: [(Set<'_>, &[Traces]); 11] = [
            (&[], &[]),
            (&[("OTEL_TRACES_EXPORTER", "none")], &[]),
            (&[("OTEL_TRACES_EXPORTER", "otlp")], &[Traces::OtlpHttp]),
            (&[("OTEL_TRACES_EXPORTER", " otlp , console ")], &[Traces::OtlpHttp, Traces::Console]),
            (&[("OTEL_TRACES_EXPORTER", "console,console")], &[Traces::Console]),
            (&[(endpoint, "http://c:1")], &[Traces::OtlpHttp]),
            (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:1")], &[Traces::OtlpHttp]),
            (&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://c:1")], &[]),
            (&[(endpoint, "http://c:1"), ("OTEL_TRACES_EXPORTER", "none")], &[]),
            (&[(endpoint, "http://c:1"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], &[Traces::OtlpGrpc]),
            (
                &[(endpoint, "http://c:1"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")],
                &[Traces::OtlpHttpJson],
            ),
        ];
        for (variables, expected) in cases {
            let read = read(variables);
            assert_eq!(read.delivery.traces, expected, "{variables:?}");
            assert_eq!(read.warnings, [""; 0], "{variables:?}");
        }
    }

    #[test]
    fn metrics_are_served_and_pushed_where_the_variables_say() {
        let exporter = "OTEL_METRICS_EXPORTER";
        let cases: [(&str, bool, &[Metrics]); 5] = [
            ("prometheus", true, &[]),
            ("none", false, &[]),
            ("otlp", false, &[Metrics::OtlpHttp]),
            ("prometheus,otlp", true, &[Metrics::OtlpHttp]),
            ("console,otlp,prometheus", true, &[Metrics::Console, Metrics::OtlpHttp]),
        ];
        for (value, prometheus, metrics) in cases {
            let read = read(&[(exporter, value)]);
            assert_eq!((read.prometheus, &*read.delivery.metrics), (prometheus, metrics), "{value}");
            assert_eq!(read.warnings, [""; 0], "{value}");
        }
        assert!(read(&[]).prometheus, "the default");
        let grpc = read(&[(exporter, "otlp"), ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc")]);
        assert_eq!(grpc.delivery.metrics, [Metrics::OtlpGrpc]);
    }

    #[test]
    fn batches_follow_the_variables_and_never_exceed_the_queue() {
        let read = read(&[
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "70"),
        ]);
        let (delay, timeout) = (Duration::from_millis(50), Duration::from_millis(70));
        assert_eq!(read.delivery.batching, Batching { queue: 100, batch: 100, delay, timeout });
        assert_eq!(read.warnings, [""; 0], "only the default was too large");
    }

    #[test]
    fn limits_of_one_kind_win_over_the_general_ones() {
        let read = read(&[
            ("OTEL_ATTRIBUTE_COUNT_LIMIT", "9"),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "7"),
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", "5"),
            ("OTEL_SPAN_LINK_COUNT_LIMIT", "0"),
            ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "3"),
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "20"),
            ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "10"),
        ]);
        let expected = Limits {
            attributes: 7,
            events: 5,
            links: 0,
            event_attributes: 9,
            link_attributes: 3,
            span_text: 10,
            text: 20,
        };
        assert_eq!(read.delivery.limits, expected);
        assert_eq!(read.warnings, [""; 0]);
    }

    #[test]
    fn metrics_are_pushed_as_often_as_the_variables_say() {
        let read = read(&[("OTEL_METRIC_EXPORT_INTERVAL", "10"), ("OTEL_METRIC_EXPORT_TIMEOUT", "20")]);
        let (every, timeout) = (Duration::from_millis(10), Duration::from_millis(20));
        assert_eq!(read.delivery.interval, Interval { every, timeout });
    }

    #[test]
    fn what_cannot_be_honoured_is_said_and_the_default_stays() {
        let cases = [
            (
                "OTEL_TRACES_EXPORTER",
                "zipkin",
                "OTEL_TRACES_EXPORTER: `zipkin` is not one of otlp, console, none: ignored",
            ),
            (
                "OTEL_METRICS_EXPORTER",
                "statsd",
                "OTEL_METRICS_EXPORTER: `statsd` is not one of prometheus, otlp, console, none: ignored",
            ),
            (
                "OTEL_BSP_MAX_QUEUE_SIZE",
                "0",
                "OTEL_BSP_MAX_QUEUE_SIZE is not a whole number of at least 1: 2048 is used",
            ),
            (
                "OTEL_BSP_MAX_QUEUE_SIZE",
                "99999999",
                "OTEL_BSP_MAX_QUEUE_SIZE is 99999999, more than is allowed: 131072 is used",
            ),
            (
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
                "4096",
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE is more than OTEL_BSP_MAX_QUEUE_SIZE: 2048 is used",
            ),
            (
                "OTEL_BSP_SCHEDULE_DELAY",
                "soon",
                "OTEL_BSP_SCHEDULE_DELAY is not a number of milliseconds above 0: 5000 are used",
            ),
            (
                "OTEL_SPAN_EVENT_COUNT_LIMIT",
                "-1",
                "OTEL_SPAN_EVENT_COUNT_LIMIT is not a whole number of at least 0: 128 is used",
            ),
        ];
        for (name, value, warning) in cases {
            assert_eq!(read(&[(name, value)]).warnings, [warning]);
        }
    }
}
