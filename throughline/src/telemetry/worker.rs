//! The thread that telemetry does its input and output on.
//!
//! It has a small runtime of its own: a scrape is answered while the program's runtime is stuck, spans
//! are delivered after it has ended, and neither takes a thread from the program.

use std::future::Future;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::health::Health;
use super::settings::{Settings, Traces};

/// A running telemetry thread. It ends when this is dropped.
pub(super) struct Worker {
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

// === impl Worker ===

impl Worker {
    /// Starts the thread if `settings` need one.
    pub(super) fn start(settings: &Settings, health: &Arc<Health>) -> Option<Self> {
        let needs_runtime =
            settings.metrics.is_some() || settings.traces.iter().any(|to| *to != Traces::Console);
        if !needs_runtime {
            return None;
        }
        match Self::spawn() {
            Ok(worker) => Some(worker),
            Err(error) => {
                health.degraded("thread", format!("the telemetry thread could not be started: {error}"));
                None
            }
        }
    }

    fn spawn() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread =
            std::thread::Builder::new().name("throughline-telemetry".to_owned()).spawn(move || {
                // A dropped sender says stop as well.
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }

    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only OTLP runs on it from outside"))]
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    #[cfg_attr(not(feature = "endpoint"), expect(dead_code, reason = "only the endpoint is a task"))]
    pub(super) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}
