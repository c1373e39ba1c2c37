//! Splits a byte stream into server-sent events and keeps the exact bytes of each.
//!
//! **When.** On the answer of a streaming upstream, whatever the borders of its chunks. An [`Event`] carries
//! what it says (`data`) and what it was (`raw`): forwarding every `raw` in order, and in the end what
//! [`SseParser::finish`] returns, reproduces the stream byte by byte.
//!
//! **Where.** Between the HTTP body and whoever judges the events (`openai::StreamWatch`). Follows the
//! event-stream format of the WHATWG HTML standard, section 9.2: lines end with LF, CRLF or CR, a byte order
//! mark may come first, comments and unknown fields carry nothing.
//!
//! ```
//! use throughline_llm::sse::SseParser;
//!
//! let mut parser = SseParser::default();
//! parser.push(b"data: one\n\ndata: tw");
//! assert_eq!(parser.next_event()?.expect("the first is whole").data, "one");
//! assert!(parser.next_event()?.is_none());
//! parser.push(b"o\n\n");
//! assert_eq!(parser.next_event()?.expect("now the second is").raw, "data: two\n\n");
//! # Ok::<(), throughline_llm::sse::SseError>(())
//! ```

use std::borrow::Cow;
use std::fmt;

use bytes::{Bytes, BytesMut};

/// The largest event that [`SseParser::default`] accepts: 1 MiB.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The values of all `data` lines, joined by line feeds; empty for a block of comments only.
    pub data: Bytes,
    /// The bytes of the event as they came, its blank line included.
    pub raw: Bytes,
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SseError {
    /// An event is larger than allowed.
    EventTooLarge {
        /// The most bytes that one event may have.
        max: usize,
    },
}

/// An incremental parser: bytes go in, whole events come out.
#[derive(Debug)]
pub struct SseParser {
    max_event: usize,
    buffer: BytesMut,
    place: Place,
}

/// Where in a stream a reader of it is, who has all from the beginning of an event on.
#[derive(Debug)]
struct Place {
    /// Where the line that is being read begins. Nothing before it has to be looked at again.
    line_start: usize,
    /// How far that line is known to hold no line end.
    scanned: usize,
    last_end: LineEnd,
    at_stream_start: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    Lf,
    Cr,
    CrLf,
}

// === impl SseError ===

impl fmt::Display for SseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EventTooLarge { max } => write!(f, "an event of the stream is larger than {max} bytes"),
        }
    }
}

impl std::error::Error for SseError {}

// === impl SseParser ===

impl Default for SseParser {
    fn default() -> Self {
        Self::new(MAX_EVENT_BYTES)
    }
}

impl SseParser {
    /// A parser that refuses events of more than `max_event` bytes, so that a stream without blank lines
    /// cannot fill the memory.
    #[must_use]
    pub fn new(max_event: usize) -> Self {
        Self { max_event, buffer: BytesMut::new(), place: Place::start() }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`SseError::EventTooLarge`], now and on every later call.
    pub fn next_event(&mut self) -> Result<Option<Event>, SseError> {
        let end = self.place.find_blank_line(&self.buffer, false);
        if end.unwrap_or(self.buffer.len()) > self.max_event {
            return Err(SseError::EventTooLarge { max: self.max_event });
        }
        Ok(end.map(|end| self.take(end)))
    }

    /// What is left when the stream has ended, read as if a blank line followed: some servers leave out the
    /// last one. `None` when the stream ended with a blank line.
    ///
    /// Call it after [`next_event`](Self::next_event) has returned `None`.
    pub fn finish(&mut self) -> Option<Event> {
        let end = self.place.find_blank_line(&self.buffer, true).unwrap_or(self.buffer.len());
        (end > 0).then(|| self.take(end))
    }

    fn take(&mut self, end: usize) -> Event {
        self.place.take(self.buffer.split_to(end).freeze())
    }
}

// === impl Place ===

impl Place {
    const fn start() -> Self {
        Self { line_start: 0, scanned: 0, last_end: LineEnd::Lf, at_stream_start: true }
    }

    /// Where the first event ends, its blank line included.
    fn find_blank_line(&mut self, text: &[u8], at_end: bool) -> Option<usize> {
        loop {
            let Some(length) = line_end(&text[self.scanned..]) else {
                self.scanned = text.len();
                return None;
            };
            let at = self.scanned + length;
            self.scanned = at;
            let is_blank = at == self.line_start;
            let end = match (text[at], text.get(at + 1)) {
                (b'\n', _) => LineEnd::Lf,
                (_, Some(b'\n')) if !is_blank || self.last_end == LineEnd::CrLf => LineEnd::CrLf,
                // A CR that a LF may follow. After lines that ended with CR alone, the blank line does too:
                // waiting for a LF would hold back every event until the next one comes.
                (_, None) if !at_end && (!is_blank || self.last_end == LineEnd::CrLf) => return None,
                _ => LineEnd::Cr,
            };
            let next = at + if end == LineEnd::CrLf { 2 } else { 1 };
            (self.last_end, self.line_start, self.scanned) = (end, next, next);
            if is_blank {
                return Some(next);
            }
        }
    }

    /// The event whose bytes are `raw`; the next one follows.
    fn take(&mut self, raw: Bytes) -> Event {
        (self.line_start, self.scanned) = (0, 0);
        let starts_stream = std::mem::take(&mut self.at_stream_start);
        let mark = if starts_stream && raw.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        Event { data: data_of(&raw.slice(mark..)), raw }
    }
}

/// Joins the `data` lines of a block; one line, the usual case, is shared and not copied.
fn data_of(block: &Bytes) -> Bytes {
    let mut lines = lines(block).filter_map(data_line);
    let Some(first) = lines.next() else { return Bytes::new() };
    let Some(second) = lines.next() else { return block.slice_ref(first) };
    let mut joined = BytesMut::from(first);
    for line in std::iter::once(second).chain(lines) {
        joined.extend_from_slice(b"\n");
        joined.extend_from_slice(line);
    }
    joined.freeze()
}

/// What stands between the line ends of a block; something empty in the middle of each CRLF.
pub(crate) fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(block);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = line_end(text);
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

fn line_end(text: &[u8]) -> Option<usize> {
    memchr::memchr2(b'\n', b'\r', text)
}

fn data_line(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

/// What an event says, as a reader of the format has it: what is no UTF-8 is replaced.
pub(crate) fn text(data: &[u8]) -> Cow<'_, str> {
    // The lossy way looks at every byte by itself.
    std::str::from_utf8(data).map_or_else(|_| String::from_utf8_lossy(data), Cow::Borrowed)
}

/// Every event of a stream that is there as a whole. They share its bytes.
///
/// # Errors
/// [`SseError::EventTooLarge`], for one of more than [`MAX_EVENT_BYTES`].
pub fn events(stream: &Bytes) -> Result<Vec<Event>, SseError> {
    let (mut place, mut rest, mut events) = (Place::start(), stream.clone(), Vec::new());
    while !rest.is_empty() {
        let end = place.find_blank_line(&rest, true).unwrap_or(rest.len());
        if end > MAX_EVENT_BYTES {
            return Err(SseError::EventTooLarge { max: MAX_EVENT_BYTES });
        }
        events.push(place.take(rest.split_to(end)));
    }
    Ok(events)
}

/// Frames `data`, which must hold no line end, as one event.
#[must_use]
pub fn event(data: &[u8]) -> Bytes {
    [b"data: ", data, b"\n\n"].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the pieces one by one and takes events as soon as they are there.
    fn parse(pieces: &[&[u8]]) -> Vec<Event> {
        let mut parser = SseParser::default();
        let mut events = Vec::new();
        for piece in pieces {
            parser.push(piece);
            while let Some(event) = parser.next_event().unwrap() {
                events.push(event);
            }
        }
        events.extend(parser.finish());
        assert_eq!(parser.finish(), None);
        events
    }

    fn data(stream: &[u8]) -> Vec<String> {
        parse(&[stream]).iter().map(|event| String::from_utf8_lossy(&event.data).into_owned()).collect()
    }

    const STREAMS: [&[u8]; 14] = [
        b"data: a\n\ndata: b\n\n",
        b"data: a\r\n\r\ndata: b\r\n\r\n",
        b"data: a\r\rdata: b\r\r",
        b"data: a\r\n\r\ndata: b\n\ndata: c\r\rdata: d\n\r\ndata: e\r\n\n",
        b"\xef\xbb\xbfdata: a\n\n: note\n\ndata:b\ndata\ndata:  c\nid: 7\nevent: x\ndatax: no\n\n",
        b"\n\n\r\n\r\r\ndata: late\n\n",
        b"data: [DONE]",
        b"data: [DONE]\n",
        b"data: [DONE]\r\n\r",
        b"",
        b"\n",
        b"\r",
        b"\xef\xbb\xbf\n\n",
        "data: {\"t\":\"grün\u{2028}🦀\"}\r\n\r\n".as_bytes(),
    ];

    #[test]
    fn the_borders_of_chunks_do_not_matter() {
        for stream in STREAMS {
            let whole = parse(&[stream]);
            for at in 0..=stream.len() {
                let (one, rest) = stream.split_at(at);
                assert_eq!(parse(&[one, rest]), whole, "{stream:?} split at {at}");
                for second in 0..=rest.len() {
                    let (two, three) = rest.split_at(second);
                    assert_eq!(parse(&[one, two, three]), whole, "{stream:?} split at {at}, {second}");
                }
            }
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(parse(&bytes), whole);
        }
    }

    #[test]
    fn a_whole_stream_is_read_as_its_pieces_are() {
        for stream in STREAMS {
            assert_eq!(events(&Bytes::from_static(stream)).unwrap(), parse(&[stream]));
        }
        let of = |bytes: usize, end: &[u8]| {
            let text = vec![b'x'; bytes - end.len() - 6];
            events(&[b"data: ", text.as_slice(), end].concat().into()).map(|events| events.len())
        };
        for end in ["\n\n", ""] {
            let end = end.as_bytes();
            assert_eq!(of(MAX_EVENT_BYTES, end), Ok(1));
            let too_large = SseError::EventTooLarge { max: MAX_EVENT_BYTES };
            assert_eq!(of(MAX_EVENT_BYTES + 1, end), Err(too_large));
        }
    }

    #[test]
    fn the_raw_bytes_add_up_to_the_stream() {
        for stream in STREAMS {
            let raw: Vec<u8> = parse(&[stream]).iter().flat_map(|event| event.raw.to_vec()).collect();
            assert_eq!(raw, stream);
        }
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..5_000 {
            let stream: Vec<u8> =
                (0..random.usize(..40)).map(|_| *random.choice(b"\r\n\r\ndat: x\xef").unwrap()).collect();
            let (one, two) = stream.split_at(random.usize(..=stream.len()));
            let events = parse(&[one, two]);
            assert_eq!(events.iter().flat_map(|event| event.raw.to_vec()).collect::<Vec<u8>>(), stream);
            assert_eq!(events, parse(&[&stream]));
            assert_eq!(events, super::events(&stream.into()).unwrap());
        }
    }

    #[test]
    fn every_kind_of_line_end_separates() {
        for stream in ["data: a\n\ndata: b\n\n", "data: a\r\n\r\ndata: b\r\n\r\n", "data: a\r\rdata: b\r\r"] {
            assert_eq!(data(stream.as_bytes()), ["a", "b"]);
        }
    }

    #[test]
    fn an_event_comes_as_soon_as_its_blank_line_is_there() {
        for stream in ["data: a\n\n", "data: a\r\n\r\n", "data: a\r\r"] {
            let mut parser = SseParser::default();
            parser.push(stream.as_bytes());
            assert_eq!(parser.next_event().unwrap().unwrap().raw, stream);
        }
    }

    #[test]
    fn data_lines_are_joined_and_other_lines_carry_nothing() {
        assert_eq!(
            data(b"event: x\ndata: a\nid: 1\ndata:b\ndata\ndata:  c\nretry: 5\ndatax: d\n\n"),
            ["a\nb\n\n c"]
        );
        assert_eq!(data(b": only a comment\n\n"), [""]);
    }

    #[test]
    fn a_byte_order_mark_counts_only_at_the_start() {
        assert_eq!(data(b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n"), ["a", ""]);
    }

    #[test]
    fn what_is_left_at_the_end_is_given_back() {
        let mut parser = SseParser::default();
        parser.push(b"data: a\n\ndata: [DONE]");
        assert_eq!(parser.next_event().unwrap().unwrap().data, "a");
        assert_eq!(parser.next_event().unwrap(), None);
        let last = parser.finish().unwrap();
        assert_eq!((&last.data[..], &last.raw[..]), (&b"[DONE]"[..], &b"data: [DONE]"[..]));
    }

    #[test]
    fn an_event_above_the_limit_is_an_error_that_stays() {
        let mut parser = SseParser::new(10);
        parser.push(b"data: 12\n\ndata: 345\n\n");
        assert_eq!(parser.next_event().unwrap().unwrap().data, "12");
        for _ in 0..2 {
            let error = parser.next_event().unwrap_err();
            assert_eq!(error.to_string(), "an event of the stream is larger than 10 bytes");
        }
    }

    #[test]
    fn an_endless_line_is_cut_off_at_the_limit() {
        let mut parser = SseParser::new(64);
        let seen = (0..1_000).find(|_| {
            parser.push(b"x");
            parser.next_event().is_err()
        });
        assert_eq!(seen, Some(64));
    }

    #[test]
    fn the_limit_is_for_one_event_not_for_all_that_wait() {
        let mut parser = SseParser::new(16);
        parser.push(&b"data: 123456\n\n".repeat(100));
        assert_eq!(std::iter::from_fn(|| parser.next_event().unwrap()).count(), 100);
    }

    #[test]
    fn a_framed_event_reads_back() {
        assert_eq!(data(&event(b"{\"a\":1}")), ["{\"a\":1}"]);
    }
}
