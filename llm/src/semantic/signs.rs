//! What of a prompt is written with signs, and how its lines are broken.
//!
//! A sign counts with what it stands at. Of those of prose, a full stop and a question mark at the end of a sentence say
//! nothing, nor does an apostrophe in a word. A comma parts what belongs together (`no, delete it`, `let's eat, grandma`),
//! a hyphen joins what would be apart (`a man-eating fish`), and `!` may be a part of a name: these count, with the
//! words beside them, unless they stand where they are a matter of spelling.

use super::words;

/// What ends a sentence or a part of one.
const STOPS: &[char] = &['.', ',', '?', '!', '…'];
/// What closes a quote.
const CLOSING: &[char] = &['"', '”', '“', '»', '’', '\'', '`'];
const NEWLINES: &[char] = &['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
/// A comma behind one of these, with which a prompt begins, parts nothing.
const GREETINGS: &[&str] = &["hello", "hi", "hey", "please", "thanks"];
/// Nor does one before these.
const COURTESIES: &[&str] = &["please", "thanks", "thank"];
/// What a question or a turn begins with: a comma before it parts two clauses, which it does also without.
const CLAUSES: &[&str] =
    &["but", "how", "why", "can", "could", "do", "does", "did", "is", "are", "will", "would", "should"];
/// What is written with and without a hyphen: `top-up`, `a log-in`.
const PARTICLES: &[&str] = &["up", "ups", "in", "ins", "out", "outs", "off", "offs", "down", "downs"];

/// What a sign is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// It says something with all that it stands at.
    Counts,
    /// It is one of prose, and says something between the words beside it.
    Parts,
    /// It says nothing of its own.
    Prose,
}

/// Gives `take` what is written with signs, and how lines are broken, in their order: of which kind and what. What stands
/// alone counts with what is around it, or it could stand elsewhere.
pub(super) fn signs(prompt: &str, mut take: impl FnMut(u8, &str)) {
    let inside = prompt.trim();
    let text = if inside.contains(NEWLINES) { prompt.trim_end() } else { inside };
    let runs = runs(text);
    let plain: Vec<String> = (0..runs.len()).map(|at| counting(&runs, at)).collect();
    let near =
        |at: Option<usize>| at.and_then(|at| plain.get(at)).map_or(String::new(), |run| run.to_lowercase());
    for (at, run) in plain.iter().enumerate() {
        parting(&runs, at, &mut take);
        if run.chars().all(char::is_alphanumeric) {
            continue;
        }
        take(b'.', run);
        if !run.contains(char::is_alphanumeric) {
            let away = if run.starts_with(char::is_whitespace) { 1 } else { 2 };
            take(b'<', &near(at.checked_sub(away)));
            take(b'>', &near(Some(at + away)));
        }
    }
}

/// Whether a comma or a hyphen beside this word may be a matter of spelling.
#[cfg(test)]
pub(super) fn is_spelling(word: &str) -> bool {
    [GREETINGS, COURTESIES, CLAUSES, PARTICLES].iter().any(|words| words.contains(&word))
}

/// The parts of `text` that are all space, and those between them.
fn runs(text: &str) -> Vec<&str> {
    let mut runs = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| c.is_whitespace() != first.is_whitespace()).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        runs.push(run);
        rest = after;
    }
    runs
}

/// A run without the signs that are prose; of space, what breaks a line, or stands before the first one.
fn counting(runs: &[&str], at: usize) -> String {
    let run = runs[at];
    if run.starts_with(char::is_whitespace) {
        return if at == 0 || run.contains(NEWLINES) { run.to_owned() } else { String::new() };
    }
    let next = first_of(runs, at + 2);
    let chars: Vec<char> = run.chars().collect();
    let counts = |at: &usize| sign(&chars, *at, next) == Sign::Counts;
    (0..chars.len()).filter(counts).map(|at| chars[at]).collect()
}

/// Gives `take` the signs of a run that part or join words, each with these words.
fn parting(runs: &[&str], at: usize, take: &mut impl FnMut(u8, &str)) {
    if !runs[at].contains([',', '!', '-']) {
        return;
    }
    let next = first_of(runs, at + 2);
    let chars: Vec<char> = runs[at].chars().collect();
    for place in (0..chars.len()).filter(|place| sign(&chars, *place, next) == Sign::Parts) {
        let before = word(chars[..place].iter().rev());
        let before: String = before.chars().rev().collect();
        let mut after = word(chars[place + 1..].iter());
        if after.is_empty() {
            after =
                runs.get(at + 2).map_or(String::new(), |run| word(run.chars().collect::<Vec<_>>().iter()));
        }
        let is_spelling = match chars[place] {
            ',' => {
                at == 0 && GREETINGS.contains(&&*before)
                    || after.is_empty()
                    || COURTESIES.contains(&&*after)
                    || CLAUSES.contains(&&*after) && !words::denies(&before)
            }
            '-' => PARTICLES.contains(&&*after),
            _ => false,
        };
        if !is_spelling {
            let after = if chars[place] == '!' { String::new() } else { words::root(&after) };
            take(b',', &format!("{}{}{after}", words::root(&before), chars[place]));
        }
    }
}

/// The letters and digits that come first, in lower case; `don't` is one word.
fn word<'a>(chars: impl Iterator<Item = &'a char>) -> String {
    let of_word = |c: &char| c.is_alphanumeric() || matches!(c, '\'' | '’');
    let chars = chars.skip_while(|c| !c.is_alphanumeric()).take_while(|c| of_word(c));
    let word: String = chars.flat_map(|c| c.to_lowercase()).collect();
    word.replace('’', "'").trim_end_matches('\'').to_owned()
}

fn first_of(runs: &[&str], at: usize) -> Option<char> {
    runs.get(at).and_then(|run| run.chars().next())
}

/// What the sign at `at` is, or a letter. `next` is what comes behind the space after `run`.
fn sign(run: &[char], at: usize, next: Option<char>) -> Sign {
    let letter = |at: Option<usize>| at.and_then(|at| run.get(at)).is_some_and(|c| c.is_alphabetic());
    let (before, long) = (letter(at.checked_sub(1)), letter(at.checked_sub(2)));
    match run[at] {
        '\'' | '’' if before && letter(Some(at + 1)) => Sign::Prose,
        // `x-y` is a difference.
        '-' if before && long && letter(Some(at + 1)) && letter(Some(at + 2)) => Sign::Parts,
        stop if STOPS.contains(&stop) => {
            // `save!` and `empty?` are names of functions, and `n!` is a product.
            let ends = match (stop, next) {
                (_, None) => true,
                ('!' | '?', Some(next)) => next.is_uppercase(),
                (_, Some(next)) => next.is_alphanumeric(),
            };
            let closes = |c: &char| STOPS.contains(c) || CLOSING.contains(c);
            let is_prose = before && (long || stop != '!') && run.get(at + 1).map_or(ends, closes);
            match stop {
                _ if !is_prose => Sign::Counts,
                ',' | '!' => Sign::Parts,
                _ => Sign::Prose,
            }
        }
        _ => Sign::Counts,
    }
}
