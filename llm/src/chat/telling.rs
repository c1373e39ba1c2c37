//! What is said of a call: on its span, and in its event where one is wanted.

use std::sync::{Arc, Mutex};

use opentelemetry::Value;
use throughline::Kind;
use throughline::redact::Redactor;
use throughline::stream::StreamEnding;
use throughline::telemetry::Semconv;

use super::lock;
use crate::answer::StreamEnd;
use crate::genai::{Details, Recording, Shared};

/// Puts what is said on the span, and the same into the event.
pub(super) struct Telling<'a> {
    pub(super) details: &'a mut Option<Details>,
    /// Whether spans carry content.
    pub(super) content: bool,
    pub(super) put: &'a mut dyn FnMut(&'static str, Value),
}

/// What a stream is to leave on the call's span, and in its event, at its end.
pub(super) struct Kept {
    pub(super) semconv: Semconv,
    pub(super) response: Option<Shared>,
    pub(super) recording: Option<(Arc<Mutex<Recording>>, Redactor)>,
    /// What the event is to say, where one is wanted.
    pub(super) details: Option<Details>,
}

// === impl Telling ===

impl Telling<'_> {
    pub(super) fn say(&mut self, key: &'static str, value: Value) {
        if let Some(details) = self.details {
            details.put(key, &value);
        }
        (self.put)(key, value);
    }

    /// Whether messages are to be written down at all.
    pub(super) fn wants_content(&self) -> bool {
        self.content || self.details.is_some()
    }

    /// Says messages, each place where they are wanted.
    pub(super) fn say_messages(&mut self, key: &'static str, messages: Option<String>) {
        let Some(messages) = messages else { return };
        if let Some(details) = self.details {
            details.put_messages(key, &messages);
        }
        if self.content {
            (self.put)(key, messages.into());
        }
    }
}

// === impl Kept ===

impl Kept {
    /// Says how the stream was, and what `others` have to say of it.
    pub(super) fn tell(
        &mut self,
        end: &StreamEnd,
        put: &mut dyn FnMut(&'static str, Value),
        others: impl FnOnce(&mut Telling<'_>),
    ) {
        let Self { response, recording, details, semconv } = self;
        let mut telling = Telling { details, content: semconv.content, put };
        if let Some(response) = response {
            let broke = matches!(end.how, StreamEnding::Failed(_));
            std::mem::take(&mut *lock(response)).tell(broke, &mut |key, value| telling.say(key, value));
        }
        if let Some(first) = end.first_chunk {
            telling.say("gen_ai.response.time_to_first_chunk", first.as_secs_f64().into());
        }
        if let Some((recording, redactor)) = recording {
            telling.say_messages("gen_ai.output.messages", lock(recording).output_messages(redactor));
        }
        others(&mut telling);
        let error = match &end.how {
            StreamEnding::Complete => return,
            StreamEnding::Failed(error) => error.kind(),
            _ => Kind::Cancelled,
        };
        // The span is told by who ends it.
        if let Some(details) = telling.details {
            details.put("error.type", &error.as_str().into());
        }
    }
}
