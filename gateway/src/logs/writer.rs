//! The thread that makes lines of records and writes them, and the bounded queue before it.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use throughline::telemetry::{Clock, Sink, Tick};
use tracing::Level;

use super::condition::{Condition, Loss, now};
use super::line::Lines;
use super::record::{Record, Value};
use super::repeats::Repeats;
use super::target::Output;

/// The name of the thread.
pub(super) const THREAD: &str = "logs";

/// The most records that wait to be written …
const QUEUE: usize = 8192;
/// … and the most bytes of them.
const QUEUE_BYTES: usize = 8 << 20;
/// About how much is written at once, in bytes.
const BATCH: usize = 64 << 10;
/// How often what was held back and a target that does not work are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How soon a full queue is tried again at the end of the program.
const AGAIN: Duration = Duration::from_millis(5);

/// What the thread is asked to do.
enum Job {
    Write(Record),
    Reopen,
    /// Write everything, then say so.
    Flush(SyncSender<()>),
}

/// The way to the thread. Cheap to clone, and never waited for.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    sender: SyncSender<Job>,
    bytes: Arc<AtomicUsize>,
    condition: Arc<Condition>,
}

/// The thread.
pub(super) struct Writer {
    pub(super) lines: Lines,
    pub(super) output: Output,
    pub(super) repeats: Arc<Repeats>,
    pub(super) condition: Arc<Condition>,
    pub(super) clock: Clock,
    /// Where the time of [`Repeats`] begins.
    pub(super) origin: Tick,
}

/// Lines that are written at once.
#[derive(Default)]
struct Batch {
    text: String,
    /// How many lines the first line says were lost; 0 if it does not say so.
    tells_of: u64,
}

// === impl Queue ===

impl Queue {
    /// Has `record` written, unless too many are waiting: then it is lost and counted.
    pub(super) fn put(&self, record: Record) {
        let size = record.size();
        if self.bytes.fetch_add(size, Ordering::Relaxed) + size > QUEUE_BYTES {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            return self.full();
        }
        match self.sender.try_send(Job::Write(record)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.bytes.fetch_sub(size, Ordering::Relaxed);
                self.full();
            }
        }
    }

    fn full(&self) {
        self.condition.lose(Loss::QueueFull, 1);
        self.condition.sick("more lines come than can be written: what has no room is lost".to_owned());
    }

    /// Has the target opened anew.
    pub(super) fn reopen(&self) {
        // A queue that is full is no reason to wait: the target is looked at before every write anyway.
        let _ = self.sender.try_send(Job::Reopen);
    }

    /// Has everything written, and waits for that at most as long as `patience`.
    #[expect(clippy::disallowed_methods, reason = "the program ends, and its runtime has ended")]
    pub(super) fn flush(&self, patience: Duration) {
        let (done, wait) = sync_channel(1);
        let (mut left, mut job) = (patience, Job::Flush(done));
        // A queue that is full is emptied in milliseconds, unless the target hangs.
        while let Err(TrySendError::Full(refused)) = self.sender.try_send(job) {
            let Some(less) = left.checked_sub(AGAIN) else { return };
            std::thread::sleep(AGAIN);
            (left, job) = (less, refused);
        }
        // Either it is done, or the target hangs and what is left is lost with the process.
        let _ = wait.recv_timeout(left);
    }
}

// === impl Writer ===

impl Writer {
    /// Starts the thread. If it cannot be started, everything that is logged is lost and counted.
    pub(super) fn start(self) -> Queue {
        let (sender, receiver) = sync_channel(QUEUE);
        let queue = Queue { sender, bytes: Arc::default(), condition: Arc::clone(&self.condition) };
        let bytes = Arc::clone(&queue.bytes);
        let started =
            std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || self.run(&receiver, &bytes));
        if let Err(error) = started {
            queue.condition.sick(format!("the thread that writes the log cannot be started: {error}"));
        }
        queue
    }

    fn run(mut self, jobs: &Receiver<Job>, bytes: &AtomicUsize) {
        loop {
            let first = match jobs.recv_timeout(TICK) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut batch = self.begin();
            let mut waiting = Vec::new();
            let mut next = first;
            while let Some(job) = next.take() {
                self.take(job, &mut batch, &mut waiting, bytes);
                if batch.text.len() < BATCH {
                    next = jobs.try_recv().ok();
                }
            }
            let drained = batch.text.len() < BATCH;
            self.summaries(&mut batch, !waiting.is_empty());
            self.write(&batch, drained);
            waiting.into_iter().for_each(|done| _ = done.try_send(()));
        }
    }

    /// A batch, which begins with what was lost if the log does not say so yet.
    fn begin(&self) -> Batch {
        let mut batch = Batch { text: String::new(), tells_of: self.condition.unsaid() };
        if batch.tells_of > 0 {
            let lost = Record {
                at: now(),
                level: Level::WARN,
                target: "throughline::logs",
                message: "log lines were lost".to_owned(),
                fields: vec![("lost", Value::Whole(batch.tells_of.into()))],
                ids: None,
            };
            self.add(&lost, &mut batch);
        }
        batch
    }

    fn take(&mut self, job: Job, batch: &mut Batch, waiting: &mut Vec<SyncSender<()>>, bytes: &AtomicUsize) {
        match job {
            Job::Write(record) => {
                bytes.fetch_sub(record.size(), Ordering::Relaxed);
                self.add(&record, batch);
            }
            Job::Reopen => self.output.reopen(),
            Job::Flush(done) => waiting.push(done),
        }
    }

    fn summaries(&self, batch: &mut Batch, all: bool) {
        let elapsed = self.clock.now().since(self.origin);
        for sum in self.repeats.due(elapsed, now(), all) {
            self.add(&sum, batch);
        }
    }

    /// Adds the line of `record`. One that cannot be redacted is not written: that is said in its place.
    fn add(&self, record: &Record, batch: &mut Batch) {
        let line = catch_unwind(AssertUnwindSafe(|| self.lines.line(record))).unwrap_or_else(|_| {
            self.condition.lose(Loss::NotRedacted, 1);
            self.instead_of(record)
        });
        batch.text.push_str(&line);
    }

    fn instead_of(&self, record: &Record) -> String {
        let message = "a line could not be redacted and is left out".to_owned();
        let record = Record { message, fields: Vec::new(), ids: record.ids, ..*record };
        Lines { redact: |_, own| Cow::Borrowed(own), ..self.lines }.line(&record)
    }

    fn write(&mut self, batch: &Batch, drained: bool) {
        if batch.text.is_empty() {
            if self.condition.is_sick() && self.output.probe().is_ok() {
                self.condition.well();
            }
            return;
        }
        self.condition.begins_to_write();
        let written = self.output.write(batch.text.as_bytes());
        self.condition.has_written();
        let lines = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
        let (all, done) = (lines(batch.text.as_bytes()), lines(&batch.text.as_bytes()[..written.bytes]));
        let told = batch.tells_of > 0 && done > 0;
        if told {
            self.condition.said(batch.tells_of);
        }
        match written.failed {
            None if drained => self.condition.well(),
            None => {}
            Some(reason) => {
                // That lines were lost is said again, and is no line that was lost.
                let own = usize::from(batch.tells_of > 0 && !told);
                self.condition.lose(Loss::WriteFailed, all - done - own);
                self.condition.sick(reason);
            }
        }
    }
}

/// Takes secrets out, and counts them where requests report to.
pub(super) fn redact<'a>(key: &str, value: &'a str) -> Cow<'a, str> {
    Sink::current().redactor().value(key, value)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::path::{Path, PathBuf};

    use super::super::line::{Format, Redact};
    use super::super::repeats::Limit;
    use super::super::target::Target;
    use super::*;

    fn record(message: &str) -> Record {
        Record {
            at: now(),
            level: Level::ERROR,
            target: "t",
            message: message.to_owned(),
            fields: vec![("who", Value::Text("ann@example.com".to_owned()))],
            ids: None,
        }
    }

    fn start(path: PathBuf, redact: Redact) -> (Queue, Arc<Condition>) {
        let clock = Clock::Monotonic;
        let condition = Arc::new(Condition::new(clock));
        let limit = Limit { lines: NonZeroU32::MIN, interval: Duration::from_secs(10) };
        let writer = Writer {
            lines: Lines { format: Format::Json, colours: false, redact },
            output: Output::new(Target::File(path)),
            repeats: Arc::new(Repeats::new(limit)),
            condition: Arc::clone(&condition),
            clock,
            origin: clock.now(),
        };
        (writer.start(), condition)
    }

    fn messages(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        let message = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["message"].as_str().unwrap().to_owned()
        };
        text.lines().map(message).collect()
    }

    #[test]
    fn lines_come_out_in_their_order_and_redacted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let (queue, condition) = start(path.clone(), redact);
        (0..1000).for_each(|i| queue.put(record(&format!("no {i}"))));
        queue.flush(Duration::from_secs(10));
        let expected: Vec<_> = (0..1000).map(|i| format!("no {i}")).collect();
        assert_eq!(messages(&path), expected);
        assert!(!std::fs::read_to_string(&path).unwrap().contains("ann@example.com"));
        assert_eq!(condition.degraded(), None);
    }

    #[test]
    fn a_line_that_cannot_be_redacted_is_replaced_by_one_that_says_so() {
        fn broken<'a>(key: &str, value: &'a str) -> Cow<'a, str> {
            assert_ne!(key, "who", "the redactor breaks");
            redact(key, value)
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let (queue, condition) = start(path.clone(), broken);
        queue.put(record("it failed"));
        queue.flush(Duration::from_secs(10));
        assert_eq!(messages(&path), ["a line could not be redacted and is left out"]);
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"level\":\"ERROR\""));
        assert_eq!(condition.degraded(), None, "the target works");
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted_and_said_when_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let (queue, condition) = start(path.clone(), redact);
        (0..3).for_each(|_| queue.put(record("lost")));
        queue.flush(Duration::from_secs(10));
        assert_eq!(condition.unsaid(), 3);
        let degraded = condition.degraded().unwrap();
        assert!(degraded.reason.contains("no space is left on its device"), "{degraded:?}");
        std::fs::remove_file(&path).unwrap();
        queue.put(record("written"));
        queue.flush(Duration::from_secs(10));
        assert_eq!(messages(&path), ["log lines were lost", "written"]);
        assert_eq!((condition.unsaid(), condition.degraded()), (0, None));
    }

    #[test]
    fn a_target_that_takes_nothing_holds_up_nobody() {
        let (sender, _jobs) = sync_channel(QUEUE);
        let condition = Arc::new(Condition::new(Clock::Monotonic));
        let queue = Queue { sender, bytes: Arc::default(), condition: Arc::clone(&condition) };
        (0..QUEUE + 5).for_each(|_| queue.put(record("x")));
        assert_eq!(condition.unsaid(), 5);
        assert!(condition.degraded().unwrap().reason.contains("more lines come than can be written"));
        let large = record(&"x".repeat(QUEUE_BYTES));
        queue.put(large);
        assert_eq!(condition.unsaid(), 6);
        queue.flush(Duration::from_millis(1));
    }
}
