//! Records that have been written out, kept for spans to come.
//!
//! A span is begun on a thread of the program and done with on the telemetry thread. Memory that one thread takes and
//! another gives back is what allocators are slow at: both threads want the same lock, hundreds of times a batch. So a
//! record goes back as a whole, with room for the attributes of the next one, many under one lock.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use super::span::{Record, Records};

/// More than that are given to the allocator after all: less than 2.6 MB, for none keeps room for many attributes.
const MOST: usize = 2_048;
/// So many are fetched at once.
const A_FEW: usize = 32;

static SPARE: Mutex<Records> = Mutex::new(Vec::new());

thread_local! {
    static NEAR: RefCell<Records> = const { RefCell::new(Vec::new()) };
}

/// A record to write over, if one is there.
pub(super) fn taken() -> Option<Box<Record>> {
    // A thread that is about to end has none, and nobody waits for the lock.
    let near = |near: &RefCell<Records>| {
        let mut near = near.try_borrow_mut().ok()?;
        if near.is_empty() {
            let mut spare = SPARE.try_lock().ok()?;
            let from = spare.len().saturating_sub(A_FEW);
            near.extend(spare.drain(from..));
        }
        near.pop()
    };
    NEAR.try_with(near).ok().flatten()
}

/// Keeps `records`, without what they said.
pub(super) fn given_back(mut records: Records) {
    records.iter_mut().for_each(|record| record.forget());
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    let room = MOST.saturating_sub(spare.len()).min(records.len());
    spare.extend(records.drain(..room));
    drop(spare);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use opentelemetry::KeyValue;
    use opentelemetry::trace::{SpanContext, SpanKind};

    use super::super::clock::{Anchor, Clock};
    use super::super::span::{Outline, Place, ROOM_KEPT};
    use super::*;

    fn begun(outline: &Arc<Outline>) -> Box<Record> {
        let place = Place {
            context: SpanContext::NONE,
            parent: &SpanContext::NONE,
            anchor: Anchor::NONE,
            started: Clock::Tokio.now(),
        };
        Record::begin(outline, place, 128)
    }

    #[tokio::test]
    async fn nothing_of_one_span_is_left_in_the_next() {
        let [first, second] =
            ["first", "second"].map(|name| Arc::new(Outline::new(name, SpanKind::Internal, Vec::new(), 128)));
        for _ in 0..3 * A_FEW {
            let mut record = begun(&first);
            record.attributes.push(KeyValue::new("said", "a secret"));
            record.say(Some("error"), Some("timeout"));
            record.dropped = 7;
            given_back(vec![record]);
            let data = begun(&second).into_data();
            assert_eq!((&*data.name, data.attributes.len(), data.dropped_attributes_count), ("second", 0, 0));
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_small_whatever_a_span_said() {
        let outline = Arc::new(Outline::new("x", SpanKind::Internal, Vec::new(), 128));
        for (said, kept) in [(ROOM_KEPT, ROOM_KEPT), (ROOM_KEPT + 1, 0)] {
            let mut record = begun(&outline);
            record.attributes = Vec::with_capacity(said);
            record.forget();
            assert_eq!(record.attributes.capacity(), kept);
        }
        let each = size_of::<Box<Record>>() + size_of::<Record>() + ROOM_KEPT * size_of::<KeyValue>();
        assert!(MOST * each < 2_600_000, "{}", MOST * each);
    }

    #[tokio::test]
    async fn keeps_a_bounded_number() {
        let outline = Arc::new(Outline::new("x", SpanKind::Internal, Vec::new(), 128));
        let many = (0..2 * MOST).map(|_| begun(&outline)).collect();
        given_back(many);
        assert!(SPARE.lock().unwrap().len() <= MOST);
    }
}
