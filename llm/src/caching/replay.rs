//! A kept answer as a request wants it: plain or as a stream, with or without its usage, at once or paced.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use throughline::{ConfigError, Context, Result};

use crate::answer::{Answer, ChatStream, Completion};
use crate::openai::{ChatRequest, Pieces, Tells, Usage, joined, retold, split};
use crate::sse;

/// How fast a kept answer is given as a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Replay {
    /// All at once.
    #[default]
    AtOnce,
    /// A chunk, and this long after it the next.
    Paced(Duration),
}

/// An answer as it was kept.
pub(super) struct Kept {
    pub(super) model: Arc<str>,
    pub(super) usage: Option<Usage>,
    /// What its events tell, of a stream.
    pub(super) stream: Option<Tells>,
    pub(super) content: Bytes,
}

// === impl Replay ===

impl Replay {
    pub(super) fn paced(chunks_per_second: f64) -> Result<Self, ConfigError> {
        if !(1.0..=10_000.0).contains(&chunks_per_second) {
            return Err(ConfigError::new(format!(
                "replayed chunks per second is {chunks_per_second}: it must be from 1 to 10000"
            )));
        }
        Ok(Self::Paced(Duration::from_secs_f64(chunks_per_second.recip())))
    }
}

// === impl Kept ===

impl Kept {
    /// The answer to `request`; `None` where it cannot be given in that form.
    pub(super) fn answer(self, request: &ChatRequest, replay: Replay, cx: &Context) -> Option<Answer> {
        if !request.stream() {
            return self.plain().map(Answer::Full);
        }
        let wanted = request.wants_stream_usage();
        let stream = match replay {
            Replay::AtOnce => self.at_once(wanted)?,
            Replay::Paced(pause) => {
                let events = self.events(wanted, Pieces::Words)?;
                ChatStream::paced(events, pause, self.model, self.usage, cx)
            }
        };
        Some(Answer::Stream(stream))
    }

    fn plain(self) -> Option<Completion> {
        let body = match self.stream {
            Some(_) => joined(&self.content, self.usage.as_ref())?,
            None => self.content,
        };
        Some(Completion::new(body, self.model, self.usage))
    }

    fn at_once(self, wanted: bool) -> Option<ChatStream> {
        let events = match self.stream {
            Some(tells) if tells.suits(wanted) => self.content,
            _ => self.events(wanted, Pieces::Whole)?.concat().into(),
        };
        Some(ChatStream::replay(events, self.model, self.usage))
    }

    /// The events one by one.
    fn events(&self, wanted: bool, pieces: Pieces) -> Option<Vec<Bytes>> {
        match self.stream {
            Some(tells) if tells.suits(wanted) => {
                let events = sse::events(&self.content).ok()?;
                Some(events.into_iter().map(|event| event.raw).collect())
            }
            Some(tells) => retold(&self.content, tells, wanted, self.usage.as_ref()),
            None => split(&self.content, wanted, pieces),
        }
    }
}
