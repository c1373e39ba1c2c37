//! Takes a prompt apart into what must be the same to the letter, and words.

/// A piece of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A word. `begins`: with it a sentence begins.
    Word { text: &'a str, begins: bool },
    /// What holds a digit, with its sign, currency and unit as far as they stand at it.
    Number(&'a str),
    /// An identifier, an address, a formula, or a word of a script without upper case.
    Exact(&'a str),
    /// What stands in quotes.
    Quoted(&'a str),
}

/// What ends or opens a clause; it is no part of what it stands at.
const CLAUSE: &[char] = &['.', ',', ';', ':', '!', '?', '(', ')', '[', ']', '{', '}', '…', '¿', '¡'];
/// After one of these a sentence begins.
const SENTENCE: &[char] = &['.', '!', '?', ':', '…', '\n'];
/// Quotes, each with what closes it.
const QUOTES: &[(char, char)] =
    &[('"', '"'), ('“', '”'), ('„', '“'), ('«', '»'), ('‘', '’'), ('\'', '\''), ('`', '`')];

/// The pieces of `text`, in order.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut quotes) = (Vec::new(), Quotes::default());
    let (mut rest, mut before, mut begins) = (text, ' ', true);
    while let Some(first) = rest.chars().next() {
        if let Some((inside, after)) = quotes.open(rest, first, before) {
            tokens.push(Token::Quoted(inside));
            (rest, before, begins) = (after, first, false);
            continue;
        }
        if first.is_whitespace() || first == '—' {
            begins |= first == '\n';
            (rest, before) = (&rest[first.len_utf8()..], first);
            continue;
        }
        let (chunk, after) = rest.split_at(end(rest));
        begins = classify(chunk, begins, &mut tokens);
        before = chunk.chars().next_back().unwrap_or(' ');
        rest = after;
    }
    tokens
}

/// Which of [`QUOTES`] nothing closes any more: looking for that again at each of them would be quadratic.
#[derive(Default)]
struct Quotes {
    unclosed: [bool; QUOTES.len()],
}

impl Quotes {
    /// What stands in quotes at the beginning of `rest`, and what comes after them.
    fn open<'a>(&mut self, rest: &'a str, first: char, before: char) -> Option<(&'a str, &'a str)> {
        let kind = QUOTES.iter().position(|(open, _)| *open == first)?;
        // An apostrophe stands in or behind a word.
        if self.unclosed[kind] || before.is_alphanumeric() {
            return None;
        }
        let inside = &rest[first.len_utf8()..];
        let mut closes = inside.match_indices(QUOTES[kind].1).filter(|(at, found)| {
            let behind = inside[at + found.len()..].chars().next();
            first != '\'' && first != '‘' || behind.is_none_or(|c| !c.is_alphanumeric())
        });
        let found = closes.next().map(|(end, found)| (&inside[..end], &inside[end + found.len()..]));
        self.unclosed[kind] = found.is_none();
        found
    }
}

/// Where the chunk at the beginning of `text` ends: before a space, a dash, or a quote that does not stand in a word.
fn end(text: &str) -> usize {
    let mut before = None;
    for (at, c) in text.char_indices() {
        let opens = |before: char| !before.is_alphanumeric() && QUOTES.iter().any(|(open, _)| *open == c);
        if c.is_whitespace() || c == '—' || before.is_some_and(opens) {
            return at;
        }
        before = Some(c);
    }
    text.len()
}

/// Says what `chunk` is; returns whether a sentence begins after it.
fn classify<'a>(chunk: &'a str, begins: bool, tokens: &mut Vec<Token<'a>>) -> bool {
    let ends = chunk.ends_with(SENTENCE) || chunk.trim_end_matches(CLAUSE).is_empty() && begins;
    let core = chunk.trim_matches(CLAUSE).trim_end_matches(['"', '”', '»', '’', '\'']);
    if core.is_empty() {
        return ends || begins;
    }
    if core.chars().any(char::is_numeric) {
        // What was trimmed may have been a decimal point or a bracket that means something: not a full stop.
        let number =
            chunk.trim_end_matches(CLAUSE).trim_start_matches(['(', '[', '{', ',', ';', ':', '!', '?']);
        tokens.push(Token::Number(number));
    } else if core.chars().any(|c| !is_of_word(c)) || is_camel(core) {
        tokens.push(Token::Exact(core));
    } else {
        let mut begins = begins;
        for text in core.split(['-', '\u{2010}', '\u{2011}']).filter(|text| !text.is_empty()) {
            let uncased = text.chars().any(|c| c.is_alphabetic() && !c.is_lowercase() && !c.is_uppercase());
            tokens.push(if uncased { Token::Exact(text) } else { Token::Word { text, begins } });
            begins = false;
        }
    }
    ends
}

fn is_of_word(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '\'' | '’' | '-' | '\u{2010}' | '\u{2011}')
}

/// Whether upper case comes after lower case, as in `fooBar`.
fn is_camel(text: &str) -> bool {
    let mut lower = false;
    text.chars().any(|c| {
        let found = lower && c.is_uppercase();
        lower = c.is_lowercase();
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let show = |token: &Token<'_>| match token {
            Token::Word { text, begins: true } => format!("^{text}"),
            Token::Word { text, .. } => (*text).to_owned(),
            Token::Number(text) => format!("#{text}"),
            Token::Exact(text) => format!("={text}"),
            Token::Quoted(text) => format!("\"{text}\""),
        };
        tokens(text).iter().map(show).collect()
    }

    #[test]
    fn tells_words_numbers_identifiers_and_quotes() {
        assert_eq!(
            shown("Why can't I top-up $5.50? It's 3pm."),
            ["^Why", "can't", "I", "top", "up", "#$5.50", "^It's", "#3pm"]
        );
        assert_eq!(
            shown("call user.get_name() or fooBar, a/b, C++ and me@x.org!"),
            ["^call", "=user.get_name", "or", "=fooBar", "=a/b", "=C++", "and", "=me@x.org"]
        );
        assert_eq!(
            shown("what does \"to err\" mean, 'and so' on, ‘x’ and `y z`"),
            ["^what", "does", "\"to err\"", "mean", "\"and so\"", "on", "\"x\"", "and", "\"y z\""]
        );
    }

    #[test]
    fn a_sign_belongs_to_its_number() {
        assert_eq!(shown("from -5 to .5 (1.000,50)"), ["^from", "#-5", "to", "#.5", "#1.000,50"]);
        assert_eq!(shown("5% of 1/2 at 10:30"), ["#5%", "of", "#1/2", "at", "#10:30"]);
        assert_eq!(shown("½ of ٣"), ["#½", "of", "#٣"]);
    }

    #[test]
    fn words_of_scripts_without_upper_case_are_taken_as_they_are() {
        assert_eq!(shown("東京の天気は"), ["=東京の天気は"]);
        assert_eq!(shown("ما هي"), ["=ما", "=هي"]);
    }

    #[test]
    fn quotes_without_an_end_are_nothing() {
        assert_eq!(shown("say \"hello"), ["^say", "=\"hello"]);
        assert_eq!(shown("the dogs' bowls"), ["^the", "dogs", "bowls"]);
        assert!(shown("\" ' ` « “").iter().all(|token| token.starts_with('=')));
        assert_eq!(shown("“a “b ‘c ‘d' \"e\""), ["=“a", "=“b", "=‘c", "=‘d", "\"e\""]);
    }

    /// With a search for each of them, this takes minutes.
    #[test]
    fn a_million_quotes_without_an_end_are_read_in_one_go() {
        assert_eq!(tokens(&"« ".repeat(1_000_000)).len(), 1_000_000);
        assert_eq!(tokens(&"'a ".repeat(300_000)).len(), 300_000);
    }
}
