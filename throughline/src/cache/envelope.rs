//! What stands in a store outside of this process's memory: a value with all that another process must know to trust it.
//!
//! ```text
//!  0   2       3     4        8          16     24    32      36           40
//!  TL  version codec checksum stored at  fresh  kept  length  computed in  body
//! ```
//! Numbers are little-endian, times are milliseconds, `length` is that of the value before compression. The
//! checksum is the CRC-32 of the key, of the four bytes before it and of all that follows: a value that was cut,
//! changed or put under another key does not fit, nor does an answer to somebody else's question.

use std::time::Duration;

use bytes::{Buf as _, Bytes};

use super::entries::Stored;
use super::key::Key;
use super::store::{Found, Lifetime};

const MAGIC: [u8; 2] = *b"TL";
/// Changes with the layout. It is in the names of the keys as well, so that replicas of two versions do not
/// delete each other's values.
pub(super) const VERSION: u8 = 2;
pub(super) const HEADER: usize = 40;
/// The largest value of all, whatever a header says.
pub(super) const LARGEST: usize = 64 << 20;
/// LZ4 cannot shrink anything further than to this part.
const SHRINKS_TO: usize = 255;

const PLAIN: u8 = 0;
const LZ4: u8 = 1;

/// This is no envelope for this key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// A value as it is stored. It is compressed from `compress_from` bytes on, unless that gains little.
pub(super) fn seal(
    key: &Key,
    value: &[u8],
    lifetime: Lifetime,
    stored_at: u64,
    compress_from: usize,
) -> Vec<u8> {
    let compressed = (value.len() >= compress_from).then(|| lz4_flex::block::compress(value));
    let compressed = compressed.filter(|compressed| compressed.len() < value.len() / 8 * 7);
    let (codec, body) = match &compressed {
        Some(body) => (LZ4, body.as_slice()),
        None => (PLAIN, value),
    };
    let mut sealed = Vec::with_capacity(HEADER + body.len());
    sealed.extend_from_slice(&MAGIC);
    sealed.extend_from_slice(&[VERSION, codec, 0, 0, 0, 0]);
    for number in [stored_at, millis(lifetime.fresh), millis(lifetime.kept)] {
        sealed.extend_from_slice(&number.to_le_bytes());
    }
    let length = u32::try_from(value.len()).expect("a larger value is not stored");
    sealed.extend_from_slice(&length.to_le_bytes());
    let computed_in = u32::try_from(lifetime.computed_in.as_millis()).unwrap_or(u32::MAX);
    sealed.extend_from_slice(&computed_in.to_le_bytes());
    sealed.extend_from_slice(body);
    let sum = checksum(key, &sealed).to_le_bytes();
    sealed[4..8].copy_from_slice(&sum);
    sealed
}

/// The value in an envelope, with its age at `now`. A clock that is behind the one it was stored by makes it
/// new, not younger.
pub(super) fn open(key: &Key, mut sealed: Bytes, now: u64) -> Result<Found, Unreadable> {
    let header = sealed.first_chunk::<HEADER>().ok_or(Unreadable)?;
    let fits =
        header[..2] == MAGIC && header[2] == VERSION && header[4..8] == checksum(key, &sealed).to_le_bytes();
    if !fits {
        return Err(Unreadable);
    }
    let Stored { age, lifetime, length } = said(header, now);
    let length = usize::try_from(length).map_err(|_| Unreadable)?;
    let codec = header[3];
    // Cut in place: a slice of it would be shared, which takes an allocation.
    sealed.advance(HEADER);
    let value = match codec {
        PLAIN if sealed.len() == length => sealed,
        LZ4 if length <= LARGEST.min(sealed.len().saturating_mul(SHRINKS_TO)) => unpack(&sealed, length)?,
        _ => return Err(Unreadable),
    };
    Ok(Found { value, age, lifetime })
}

/// What an envelope says that begins with `head`, without a look at its value.
pub(super) fn peek(head: &[u8], now: u64) -> Option<Stored> {
    let header =
        head.first_chunk::<HEADER>().filter(|header| header[..2] == MAGIC && header[2] == VERSION)?;
    Some(said(header, now))
}

fn said(header: &[u8; HEADER], now: u64) -> Stored {
    let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("it has eight bytes"));
    let half = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("it has four bytes"));
    Stored {
        age: Duration::from_millis(now.saturating_sub(number(8))),
        lifetime: Lifetime {
            fresh: Duration::from_millis(number(16)),
            kept: Duration::from_millis(number(24)),
            computed_in: Duration::from_millis(half(36).into()),
        },
        length: half(32).into(),
    }
}

fn unpack(body: &[u8], length: usize) -> Result<Bytes, Unreadable> {
    let mut value = vec![0; length];
    match lz4_flex::block::decompress_into(body, &mut value) {
        Ok(written) if written == length => Ok(value.into()),
        _ => Err(Unreadable),
    }
}

fn checksum(key: &Key, sealed: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(key.as_bytes());
    sum.update(&sealed[..4]);
    sum.update(&sealed[8..]);
    sum.finalize()
}

/// At least one: Redis takes no shorter time.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, i64::MAX as u64 / 1_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::key::KeyBuilder;

    const MINUTE: Lifetime = Lifetime {
        fresh: Duration::from_secs(60),
        kept: Duration::from_secs(90),
        computed_in: Duration::from_millis(1_500),
    };

    fn key(n: u8) -> Key {
        KeyBuilder::new("answers", 0).part(&[n]).build()
    }

    fn sealed(value: &[u8]) -> Vec<u8> {
        seal(&key(1), value, MINUTE, 1_000_000, 64)
    }

    fn opened(sealed: impl Into<Bytes>) -> Option<Bytes> {
        open(&key(1), sealed.into(), 1_000_000).ok().map(|found| found.value)
    }

    /// The envelope, with the checksum that belongs to it as it is now.
    fn summed(mut sealed: Vec<u8>) -> Vec<u8> {
        let sum = checksum(&key(1), &sealed).to_le_bytes();
        sealed[4..8].copy_from_slice(&sum);
        sealed
    }

    #[test]
    fn a_value_says_how_old_it_is_and_how_long_it_may_be_served() {
        let found = open(&key(1), sealed(b"hello").into(), 1_007_250).unwrap();
        assert_eq!((&found.value[..], found.lifetime), (&b"hello"[..], MINUTE));
        assert_eq!(found.age, Duration::from_millis(7_250));
    }

    #[test]
    fn a_value_from_a_clock_that_is_ahead_is_new() {
        assert_eq!(open(&key(1), sealed(b"hello").into(), 5).unwrap().age, Duration::ZERO);
    }

    #[test]
    fn what_repeats_itself_is_stored_smaller_and_what_does_not_as_it_is() {
        let text = "the same words again and again, ".repeat(100);
        assert!(sealed(text.as_bytes()).len() < text.len() / 4);
        assert_eq!(opened(sealed(text.as_bytes())).as_deref(), Some(text.as_bytes()));
        let noise: Vec<u8> = (0..1_000u64).map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[0]).collect();
        assert_eq!(sealed(&noise).len(), noise.len() + HEADER);
        assert_eq!(sealed(&text.as_bytes()[..63]).len(), 63 + HEADER, "too short to be worth it");
    }

    #[test]
    fn a_value_under_another_key_is_unreadable() {
        assert_eq!(open(&key(2), sealed(b"hello").into(), 0).err(), Some(Unreadable));
    }

    #[test]
    fn another_version_or_codec_is_unreadable_even_with_a_good_checksum() {
        for (at, byte) in [(0, b'X'), (2, VERSION + 1), (2, 0), (3, 2), (3, LZ4)] {
            let mut sealed = sealed(b"hello");
            sealed[at] = byte;
            assert_eq!(opened(summed(sealed)), None, "byte {at} is {byte}");
        }
    }

    #[test]
    fn a_length_beyond_what_the_body_can_hold_is_refused_before_there_is_room_made_for_it() {
        let text = "a".repeat(4_000);
        for length in [u32::MAX, 3_999, 4_001, 0] {
            let mut sealed = sealed(text.as_bytes());
            sealed[32..36].copy_from_slice(&length.to_le_bytes());
            assert_eq!(opened(summed(sealed)), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn every_value_comes_back_as_it_was(value: Vec<u8>, repeats in 1usize..50) {
            let value = value.repeat(repeats);
            prop_assert_eq!(opened(sealed(&value)), Some(value.into()));
        }

        #[test]
        fn a_changed_bit_is_found(value: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
            let mut sealed = sealed(&value);
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(opened(sealed), None);
        }

        #[test]
        fn a_cut_is_found(value: Vec<u8>, at: prop::sample::Index) {
            let mut sealed = sealed(&value);
            sealed.truncate(at.index(sealed.len()));
            prop_assert_eq!(opened(sealed), None);
        }

        #[test]
        fn rubbish_is_unreadable_and_no_panic(rubbish: Vec<u8>) {
            prop_assert_eq!(opened(rubbish), None);
        }
    }
}
