//! The task between the queue and the exporters: takes secrets out of spans, once, and hands them to every lane.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep, timeout_at};

use super::super::redacting::Redacting;
use super::super::registry::Refresh;
use super::super::span::Record;
use super::exporter::Stop;
use super::intake::{Command, Outlet};
use super::lane::Lane;
use super::report::{Loss, Losses};
use super::settings::Limits;
use super::shorten::shorten;
use super::undecided::Undecided;

/// So many spans are redacted before other tasks of the thread get a turn: a scrape must not wait for all of them.
const A_TURN: usize = 32;

/// Feeds the lanes.
pub(super) struct Dispatcher {
    pub(super) outlet: Outlet,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) redacting: Redacting,
    pub(super) limits: Limits,
    pub(super) delay: Duration,
    pub(super) lanes: Vec<Lane>,
    pub(super) feeders: Vec<JoinHandle<()>>,
    pub(super) stop: Stop,
    pub(super) losses: Losses,
    pub(super) undecided: Option<Arc<Undecided>>,
    /// Shown while this runs.
    pub(super) _gauges: Arc<dyn Refresh>,
}

// === impl Dispatcher ===

impl Dispatcher {
    /// Runs until it is told to stop, or nobody is left to tell it.
    pub(super) async fn run(mut self) {
        loop {
            let pause = if self.outlet.has_enough() { Duration::ZERO } else { self.delay };
            let command = tokio::select! {
                command = self.commands.recv() => Some(command),
                () = self.outlet.enough() => None,
                () = sleep(pause) => None,
            };
            match command {
                None => {
                    self.undecided.iter().for_each(|undecided| undecided.sweep());
                    self.hand_on().await;
                }
                Some(Some(Command::Flush(done))) => {
                    self.hand_on().await;
                    self.flush(done);
                }
                Some(Some(Command::Stop(limit, done))) => return self.stop(limit, &done).await,
                Some(None) => return,
            }
        }
    }

    /// Puts the spans that wait into the lanes; those that come meanwhile have their turn later.
    async fn hand_on(&mut self) {
        let mut spans = Vec::new();
        for taken in 1..=self.outlet.capacity() {
            let Some(span) = self.outlet.next() else { break };
            if self.lanes.iter().all(Lane::is_full) {
                self.losses.add(Loss::QueueFull, self.lanes.len());
                continue;
            }
            match self.made_fit(span) {
                Some(span) => spans.push(span),
                None => self.losses.add(Loss::NotRedacted, 1),
            }
            if taken % A_TURN == 0 {
                yield_now().await;
            }
        }
        // All at once, so that lanes see whole batches.
        let Some((last, others)) = self.lanes.split_last_mut() else { return };
        for lane in others {
            spans.iter().for_each(|span| lane.push(span.clone()));
        }
        spans.into_iter().for_each(|span| last.push(span));
    }

    /// Redacted first: a secret that is cut in half has no shape any more.
    fn made_fit(&mut self, span: Box<Record>) -> Option<Box<Record>> {
        let mut span = self.redacting.span(span)?;
        shorten(&mut span, self.limits);
        Some(span)
    }

    /// Tells who asked when all lanes are through; other spans go on meanwhile.
    fn flush(&self, done: SyncSender<()>) {
        let lanes: Vec<_> = self.lanes.iter().map(Lane::flushed).collect();
        tokio::spawn(async move {
            futures_util::future::join_all(lanes).await;
            // Who asked may have stopped waiting.
            let _ = done.send(());
        });
    }

    async fn stop(mut self, limit: Duration, done: &SyncSender<()>) {
        let end = Instant::now() + limit;
        self.stop.send_replace(Some(end));
        self.hand_on().await;
        self.lanes.clear();
        let through = futures_util::future::join_all(self.feeders);
        if timeout_at(end + Duration::from_millis(50), through).await.is_err() {
            tracing::warn!("an exporter of spans did not end in time");
        }
        // Who asked may have stopped waiting.
        let _ = done.send(());
    }
}
