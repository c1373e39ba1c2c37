//! A text that comes in pieces: a secret may be cut anywhere.

use super::{Found, Kind, LONGEST, Redactor, find, secrets};

/// The end of the text is held back by this many bytes: the most that any finder looks ahead before it decides.
const HELD: usize = 2048;
/// What has been given out already and is kept, since finders look back.
const KEPT: usize = 1024;

/// Redacts a text piece by piece: what comes out, put together, is the redacted whole. Up to 2 KiB are held back until
/// more comes, and a private key until its end.
#[derive(Debug)]
pub struct Stream {
    redactor: Redactor,
    text: String,
    /// How much of `text` has been given out.
    done: usize,
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(redactor: Redactor) -> Self {
        Self { redactor, text: String::new(), done: 0 }
    }

    /// Takes the next piece, and gives what is settled.
    #[must_use]
    pub fn push(&mut self, piece: &str) -> String {
        self.text.push_str(piece);
        if self.text.len() - self.done <= HELD {
            return String::new();
        }
        if self.text.len() - self.done > LONGEST {
            // Something that never ends, and that may be a secret to its last byte.
            self.done = self.text.len();
            self.forget();
            return self.redactor.marker(Kind::Unscanned);
        }
        let found = find(&self.text);
        let mut until = self.text.len() - HELD;
        if let Some(key) = secrets::open_private_key(self.text.as_bytes()) {
            until = until.min(key);
        }
        let cut = found.iter().find(|place| place.range.start < until && until < place.range.end.max(1));
        let held = cut.map_or(until, |place| place.range.start);
        let until = self.text.floor_char_boundary(held);
        let out = self.give(&found, until);
        self.forget();
        out
    }

    /// Gives what is left.
    #[must_use]
    pub fn finish(mut self) -> String {
        let found = find(&self.text);
        self.give(&found, self.text.len())
    }

    fn give(&mut self, found: &[Found], until: usize) -> String {
        let mut out = String::new();
        let from = self.done;
        for place in found.iter().filter(|place| place.range.start >= from && place.range.end <= until) {
            out.push_str(&self.text[self.done..place.range.start]);
            out.push_str(&self.redactor.marker(place.kind));
            self.done = place.range.end;
        }
        if self.done < until {
            out.push_str(&self.text[self.done..until]);
            self.done = until;
        }
        out
    }

    fn forget(&mut self) {
        let old = self.text.floor_char_boundary(self.done.saturating_sub(KEPT));
        self.text.drain(..old);
        self.done -= old;
    }
}
