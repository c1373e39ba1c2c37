//! The thread that telemetry does its input and output on.
//!
//! It has a small runtime of its own: a scrape is answered while the program's runtime is stuck, spans
//! are delivered after it has ended, and neither takes a thread from the program.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::health::Health;

/// A running telemetry thread. It ends when this is dropped.
pub(super) struct Worker {
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

// === impl Worker ===

impl Worker {
    /// Starts the thread, or says in `health` why not.
    pub(super) fn start(health: &Health) -> Option<Self> {
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
                // An exporter that is stuck must not hold the end of the program.
                runtime.shutdown_background();
            })?;
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn run(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.spawn(task)
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
