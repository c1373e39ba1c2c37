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
