//! A panic is a line like any other: what it says may hold a secret as well.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write as _;
use std::panic::PanicHookInfo;

use throughline::redact::Redactor;

use super::{visible, writer};

/// The most that is said of a panic when there is no log yet, in bytes.
const LONGEST: usize = 8 << 10;

/// Has panics logged, in place of what the standard library writes to standard error.
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(report));
}

fn report(panic: &PanicHookInfo<'_>) {
    // The thread that writes counts its own, and would write about them for ever.
    let thread = std::thread::current();
    if thread.name() == Some(writer::THREAD) {
        return;
    }
    let message = panic.payload_as_str().unwrap_or("it does not say why");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    if !tracing::dispatcher::has_been_set() {
        let mut line = String::new();
        visible::push(&mut line, &Redactor::standard().text(message), LONGEST);
        // Nobody may be reading.
        let _ = writeln!(std::io::stderr(), "a thread panicked at {location}: {line}");
        return;
    }
    // Captured only when RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        target: "throughline::panics",
        reason = message,
        location,
        thread = thread.name().unwrap_or_default(),
        backtrace,
        "a thread panicked"
    );
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::time::Duration;

    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    use throughline::telemetry::Clock;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::condition::Condition;
    use super::super::current::within_now;
    use super::super::layer::TakeDown;
    use super::super::line::{Format, Lines};
    use super::super::repeats::{Limit, Repeats};
    use super::super::target::{Output, Target};
    use super::super::writer::{Writer, redact};
    use super::*;

    struct Broken;

    impl std::fmt::Debug for Broken {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("a value that cannot be shown")
        }
    }

    fn failing_work() {
        panic!(
            "no answer for {} of ann@example.com\r\n",
            ["sk-proj-", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4"].concat()
        );
    }

    #[test]
    fn a_panic_is_one_redacted_line_with_the_ids_of_its_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let clock = Clock::Monotonic;
        let limit = Limit { lines: NonZeroU32::new(9).unwrap(), interval: Duration::from_secs(10) };
        let repeats = Arc::new(Repeats::new(limit));
        let writer = Writer {
            lines: Lines { format: Format::Json, colours: false, redact },
            output: Output::new(Target::File(path.clone())),
            repeats: Arc::clone(&repeats),
            condition: Arc::new(Condition::new(clock)),
            clock,
            origin: clock.now(),
        };
        let queue = writer.start();
        let layer = TakeDown { queue: queue.clone(), repeats, clock, origin: clock.now() };
        let (trace, span) = (TraceId::from(7), SpanId::from(9));
        let request = SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE);

        let others = std::panic::take_hook();
        report_panics();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            within_now(&request, || std::panic::catch_unwind(failing_work).unwrap_err());
            // What cannot be shown does not take the work down.
            tracing::warn!(value = ?Broken, "it failed");
        });
        std::panic::set_hook(others);

        queue.flush(Duration::from_secs(10));
        let log = std::fs::read_to_string(path).unwrap();
        let lines: Vec<serde_json::Value> =
            log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(messages[0], "a thread panicked");
        let shown = |message: &&str| message.starts_with("event ") && message.ends_with(" cannot be shown");
        assert_eq!(messages.iter().filter(|message| shown(message)).count(), 1, "{log}");
        let line = &lines[0];
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["trace_id"], trace.to_string());
        assert_eq!(line["fields"]["reason"], "no answer for [REDACTED:API_KEY] of [REDACTED:EMAIL]\\r\\n");
        assert!(line["fields"]["location"].as_str().unwrap().contains("panics.rs:"), "{line}");
    }
}
