//! Cards, social security numbers and phone numbers: digits in groups.

use std::ops::Range;

use super::Kind;
use super::scan::{before, byte, contains, is_word, span};

/// Digits of a card, of a phone number.
const CARD: std::ops::RangeInclusive<usize> = 13..=19;
const PHONE: std::ops::RangeInclusive<usize> = 7..=15;
/// How far before a number a word that says what it is may stand, and how far behind.
const WORDS_BEFORE: usize = 24;
const WORDS_BEHIND: usize = 10;
/// The most groups that are one number.
const MOST_GROUPS: usize = 8;

/// A run of digits and the separators between them.
struct Groups<'a> {
    text: &'a [u8],
    places: Vec<Range<usize>>,
}

/// The number that begins at `at`, at a digit.
pub(super) fn at(text: &[u8], at: usize) -> Option<(Range<usize>, Kind)> {
    if is_word(before(text, at)) {
        return None;
    }
    let groups = Groups::read(text, at);
    let card = groups.card().map(|range| (range, Kind::Card));
    let ssn = || groups.ssn().map(|range| (range, Kind::Ssn));
    let phone = || groups.phone().map(|range| (range, Kind::Phone));
    card.or_else(ssn).or_else(phone)
}

/// Where the digits that begin at `at` end, or the one byte there that is none.
pub(super) fn run_end(text: &[u8], at: usize) -> usize {
    let digits = span(text, at, usize::MAX, |byte| byte.is_ascii_digit());
    at + digits.max(1)
}

// === impl Groups ===

impl<'a> Groups<'a> {
    fn read(text: &'a [u8], from: usize) -> Self {
        let (mut places, mut at) = (Vec::with_capacity(MOST_GROUPS), from);
        while places.len() < MOST_GROUPS {
            let digits = span(text, at, 20, |byte| byte.is_ascii_digit());
            places.push(at..at + digits);
            let end = at + digits;
            let between = span(text, end, 3, |byte| matches!(byte, b' ' | b'-' | b'.' | b'(' | b')' | b'/'));
            if digits == 0 || digits == 20 || between == 0 || !byte(text, end + between).is_ascii_digit() {
                break;
            }
            at = end + between;
        }
        Self { text, places }
    }

    /// The bytes between the group `index` and the next.
    fn separator(&self, index: usize) -> &'a [u8] {
        &self.text[self.places[index].end..self.places[index + 1].start]
    }

    fn digits(&self, groups: usize) -> Vec<u8> {
        self.places[..groups]
            .iter()
            .flat_map(|place| &self.text[place.clone()])
            .map(|digit| digit - b'0')
            .collect()
    }

    /// Whether nothing of a word or a further number follows the first `groups`.
    fn ends_after(&self, groups: usize) -> bool {
        !is_word(byte(self.text, self.places[groups - 1].end))
    }

    fn range(&self, groups: usize) -> Range<usize> {
        self.places[0].start..self.places[groups - 1].end
    }

    /// ISO/IEC 7812: digits in alike groups, a range that is issued, Luhn's check digit.
    fn card(&self) -> Option<Range<usize>> {
        let same = |groups: usize| {
            (1..groups).all(|index| {
                matches!(self.separator(index - 1), [b' '] | [b'-'])
                    && self.separator(index - 1) == self.separator(0)
            })
        };
        let fits = |groups: &usize| {
            let digits = self.digits(*groups);
            let plain = CARD.contains(&digits.len()) && issued(&digits);
            let said =
                || (12..=19).contains(&digits.len()) && self.said_before(&["card", "cc ", "visa", "maestro"]);
            self.ends_after(*groups) && same(*groups) && luhn(&digits) && (plain || said())
        };
        let decimal = before(self.text, self.places[0].start) == b'.';
        (1..=self.places.len()).rev().find(fits).filter(|_| !decimal).map(|groups| self.range(groups))
    }

    /// Three, two and four digits with one separator; without one, only behind a word that says so.
    fn ssn(&self) -> Option<Range<usize>> {
        let lengths: Vec<usize> = self.places.iter().take(3).map(Range::len).collect();
        let grouped = lengths == [3, 2, 4]
            && self.separator(0) == self.separator(1)
            && matches!(self.separator(0), [b' '] | [b'-'] | [b'.']);
        let named = || self.said_before(&["ssn", "social security", "itin"]);
        let groups = match lengths.as_slice() {
            _ if grouped => 3,
            [9, ..] if named() => 1,
            _ => return None,
        };
        let digits = self.digits(groups);
        let number =
            |digits: &[u8]| digits.iter().fold(0_u32, |number, digit| number * 10 + u32::from(*digit));
        let (area, group, serial) = (number(&digits[..3]), number(&digits[3..5]), number(&digits[5..]));
        let taxpayer = area >= 900 && (50..=99).contains(&group);
        let possible = area != 0 && area != 666 && group != 0 && serial != 0 && (area < 900 || taxpayer);
        let first = before(self.text, self.places[0].start);
        let alone = !matches!(first, b'-' | b'.' | b'/' | b'+')
            && byte(self.text, self.places[groups - 1].end) != b'-';
        (possible && alone && self.ends_after(groups)).then(|| self.range(groups))
    }

    /// International with `+` or `00`, North American, or whatever stands near a word such as `phone`.
    fn phone(&self) -> Option<Range<usize>> {
        let start = self.opening();
        let plus = self.text[start..self.places[0].start].contains(&b'+');
        let groups = (1..=self.places.len()).rev().find(|groups| self.is_phone(*groups, plus))?;
        let end = self.extension(self.places[groups - 1].end);
        Some(start..end)
    }

    /// Where the number begins if brackets are counted in.
    fn opening(&self) -> usize {
        let start = self.places[0].start;
        let back =
            self.text[..start].iter().rev().take(3).take_while(|byte| matches!(byte, b'(' | b'+')).count();
        start - back
    }

    fn is_phone(&self, groups: usize, plus: bool) -> bool {
        let digits = self.digits(groups);
        let lengths: Vec<usize> = self.places[..groups].iter().map(Range::len).collect();
        let end = self.places[groups - 1].end;
        let ends = self.ends_after(groups) || self.extension(end) > end;
        let first = before(self.text, self.opening());
        if !ends || self.is_date(&lengths) || matches!(first, b'.' | b'$' | b'#' | b'=' | b'/') && !plus {
            return false;
        }
        if plus {
            return (8..=*PHONE.end()).contains(&digits.len());
        }
        let american = lengths == [3, 3, 4] && self.american();
        let country =
            lengths == [3, 3, 3, 4] && digits[..2] == [0, 0] || lengths == [1, 3, 3, 4] && digits[0] == 1;
        let abroad = digits.starts_with(&[0, 0])
            && digits.get(2).is_some_and(|digit| *digit > 0)
            && (10..=17).contains(&digits.len())
            && groups > 2;
        let long_enough = PHONE.contains(&digits.len()) || (digits.len() == 6 && groups > 2);
        american || country || abroad || (long_enough && self.is_said(groups))
    }

    /// `(ddd) ddd-dddd` and `ddd-ddd-dddd`, but not numbers that merely stand side by side.
    fn american(&self) -> bool {
        let bracketed = self.separator(0).contains(&b')');
        let same =
            self.separator(0) == self.separator(1) && matches!(self.separator(0), [b'-'] | [b'.'] | [b' ']);
        (bracketed || same) && self.text[self.places[0].start] != b'0'
    }

    /// Years, dates and the like, which are no telephone numbers.
    fn is_date(&self, lengths: &[usize]) -> bool {
        let year = |index: usize| {
            matches!(&self.text[self.places[index].clone()], [b'1', b'9', ..] | [b'2', b'0', ..])
        };
        match lengths {
            [4, 2, 2] => year(0),
            [2 | 1, 2 | 1, 4] => year(2),
            [4, 4] => year(0) && year(1),
            // A book, and a moment in milliseconds.
            [3, ..] if lengths.iter().sum::<usize>() == 13 => {
                matches!(&self.text[self.places[0].clone()], b"978" | b"979")
            }
            [13] => matches!(&self.text[self.places[0].clone()], [b'1', ..] | [b'9', b'7', b'8' | b'9', ..]),
            _ => false,
        }
    }

    fn is_said(&self, groups: usize) -> bool {
        const BEFORE: [&str; 14] = [
            "phone",
            "tel",
            "mobile",
            "cell",
            "fax",
            "call ",
            "dial",
            "reach",
            "whatsapp",
            "sms",
            "messages to",
            "handy",
            "text me",
            "registered ",
        ];
        const BEHIND: [&str; 5] = ["office", "fax", "mobile", "cell", "phone"];
        let end = self.extension(self.places[groups - 1].end);
        let behind = &self.text[end..self.text.len().min(end + WORDS_BEHIND)];
        self.said_before(&BEFORE) || BEHIND.iter().any(|word| contains(behind, word))
    }

    fn said_before(&self, words: &[&str]) -> bool {
        let start = self.opening();
        let from = start.saturating_sub(WORDS_BEFORE);
        let line = self.text[from..start]
            .iter()
            .rposition(|byte| byte.is_ascii_digit())
            .map_or(from, |digit| from + digit + 1);
        words.iter().any(|word| contains(&self.text[line..start], word))
    }

    /// Where `x123` or `ext. 123` behind a number ends, or the number itself.
    fn extension(&self, end: usize) -> usize {
        let rest = &self.text[end..];
        let marks: [&[u8]; 5] = [b"x", b" x", b" ext ", b" ext. ", b" ext"];
        let known = marks.iter().find(|mark| {
            rest.len() > mark.len()
                && rest[..mark.len()].eq_ignore_ascii_case(mark)
                && rest[mark.len()].is_ascii_digit()
        });
        known.map_or(end, |mark| {
            end + mark.len() + span(self.text, end + mark.len(), 6, |byte| byte.is_ascii_digit())
        })
    }
}

/// Whether a network issues cards of this length that begin so.
fn issued(digits: &[u8]) -> bool {
    let prefix = digits[..4].iter().fold(0_u32, |number, digit| number * 10 + u32::from(*digit));
    match digits.len() {
        13 => (4000..=4999).contains(&prefix),
        14 => matches!(prefix, 3000..=3059 | 3095..=3099 | 3600..=3999),
        15 => matches!(prefix, 1800..=1899 | 2131 | 3400..=3499 | 3700..=3799 | 2014 | 2149),
        _ => matches!(prefix, 2200..=2720 | 3000..=3099 | 3500..=3999 | 4000..=6999 | 8600 | 9792),
    }
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}
