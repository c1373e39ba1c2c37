//! A text that comes in pieces: a secret may be cut anywhere.

use super::{Found, Kind, LONGEST, Redactor, find, secrets};

/// The end of the text is held back by this many bytes: the most that any finder looks ahead before it decides.
const HELD: usize = 2048;
/// What has been given out already and is kept, since finders look back.
const KEPT: usize = 1024;

/// Redacts a text piece by piece: what comes out, put together, is the redacted whole. 2 to 4 KiB are held back until
/// more comes, and a private key until its end.
///
/// What does not end within [`LONGEST`] bytes is given up: `[REDACTED:UNSCANNED]` stands for it, up to the next space.
#[derive(Debug)]
pub struct Stream {
    redactor: Redactor,
    text: String,
    /// How much of `text` has been given out.
    done: usize,
    /// How much is held back before it is looked at again: looking at it for every piece would be quadratic.
    patience: usize,
    /// Whether what comes is dropped, up to the next space.
    dropping: bool,
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(redactor: Redactor) -> Self {
        Self { redactor, text: String::new(), done: 0, patience: 2 * HELD, dropping: false }
    }

    /// Takes the next piece, and gives what is settled.
    #[must_use]
    pub fn push(&mut self, piece: &str) -> String {
        let piece = match self.dropping {
            true => piece.trim_start_matches(|c: char| !c.is_whitespace()),
            false => piece,
        };
        self.dropping &= piece.is_empty();
        self.text.push_str(piece);
        if self.held() < self.patience {
            return String::new();
        }
        let found = find(&self.text);
        let mut out = self.give(&found, self.settled(&found));
        if self.held() > LONGEST {
            out.push_str(&self.redactor.marker(Kind::Unscanned));
            self.done = self.text.len();
            self.dropping = true;
        }
        self.patience = (2 * self.held()).clamp(2 * HELD, LONGEST + 1);
        self.forget();
        out
    }

    /// Gives what is left.
    #[must_use]
    pub fn finish(mut self) -> String {
        let found = find(&self.text);
        self.give(&found, self.text.len())
    }

    fn held(&self) -> usize {
        self.text.len() - self.done
    }

    /// Up to where what comes next changes nothing.
    fn settled(&self, found: &[Found]) -> usize {
        let until = self.text.len().saturating_sub(HELD);
        let until = secrets::open_private_key(self.text.as_bytes()).map_or(until, |key| until.min(key));
        let cut = found.iter().find(|place| place.range.contains(&until));
        self.text.floor_char_boundary(cut.map_or(until, |place| place.range.start)).max(self.done)
    }

    fn give(&mut self, found: &[Found], until: usize) -> String {
        let out = self.redactor.replace(&self.text, found, self.done..until);
        self.done = until;
        out
    }

    fn forget(&mut self) {
        let old = self.text.floor_char_boundary(self.done.saturating_sub(KEPT));
        self.text.drain(..old);
        self.done -= old;
    }
}
