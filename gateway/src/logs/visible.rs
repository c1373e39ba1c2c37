//! Makes characters visible that would act on a terminal, end a line, or turn the direction of what follows.

use std::fmt::Write as _;

/// Whether `c` is shown as an escape.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        // Nothing to see, though it is there: zero width, language tags, annotations.
        || matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Appends `text` with whatever acts written as `\n`, `\r`, `\t` or `\u{…}`, up to `most` bytes.
pub(super) fn push(out: &mut String, text: &str, most: usize) {
    bounded(out, text, most, |out, c| match acts(c) {
        true => escape(out, c),
        false => out.push(c),
    });
}

/// `text` with whatever acts written as an escape, whole.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    push(&mut shown, text, usize::MAX);
    shown
}

/// As [`push`], in quotes if it would not be one word without them.
pub(super) fn push_word(out: &mut String, text: &str, most: usize) {
    let plain = |c: char| !acts(c) && !c.is_whitespace() && !matches!(c, '"' | '\\' | '=' | '\'');
    if !text.is_empty() && text.len() <= most && text.chars().all(plain) {
        out.push_str(text);
        return;
    }
    out.push('"');
    bounded(out, text, most, |out, c| match c {
        '"' | '\\' => out.extend(['\\', c]),
        c if acts(c) => escape(out, c),
        c => out.push(c),
    });
    out.push('"');
}

/// Appends the characters of `text` by `put` until that makes `most` bytes, and then how long the text was.
fn bounded(out: &mut String, text: &str, most: usize, put: impl Fn(&mut String, char)) {
    let start = out.len();
    for c in text.chars() {
        if out.len() - start >= most {
            write!(out, "… ({} bytes)", text.len()).expect("writing to a string cannot fail");
            return;
        }
        put(out, c);
    }
}

fn escape(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)).expect("writing to a string cannot fail"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut out = String::new();
        push(&mut out, text, 100);
        out
    }

    fn word(text: &str) -> String {
        let mut out = String::new();
        push_word(&mut out, text, 100);
        out
    }

    #[test]
    fn nothing_that_acts_is_left() {
        assert_eq!(shown("a\r\nb\tc"), "a\\r\\nb\\tc");
        assert_eq!(shown("\u{1b}[31mred\u{7}\u{9b}2J\u{7f}"), "\\u{1b}[31mred\\u{7}\\u{9b}2J\\u{7f}");
        assert_eq!(shown("a\u{2028}b\u{2029}c\u{85}d"), "a\\u{2028}b\\u{2029}c\\u{85}d");
        assert_eq!(shown("nimda\u{202e}\u{2066}x\u{2069}"), "nimda\\u{202e}\\u{2066}x\\u{2069}");
        assert_eq!(shown("\u{feff}\u{200b}\u{e0041}"), "\\u{feff}\\u{200b}\\u{e0041}");
        assert_eq!(shown("Grüße, 日本 🦀 \u{fffd}"), "Grüße, 日本 🦀 \u{fffd}");
        let long = "\u{1b}".repeat(1_000);
        assert_eq!(visible(&long), "\\u{1b}".repeat(1_000));
        assert_eq!(visible(&visible(&long)), visible(&long), "what is an escape already stays as it is");
    }

    #[test]
    fn a_value_is_one_word_or_in_quotes() {
        assert_eq!(word("gpt-4o"), "gpt-4o");
        assert_eq!(word(""), "\"\"");
        assert_eq!(word("a b"), "\"a b\"");
        assert_eq!(word("x level=ERROR"), "\"x level=ERROR\"");
        assert_eq!(word("say \"hi\" \\ \n"), "\"say \\\"hi\\\" \\\\ \\n\"");
    }

    #[test]
    fn a_long_text_is_cut_where_its_escaped_form_is_long_enough() {
        let mut out = String::new();
        push(&mut out, "aüb", 3);
        assert_eq!(out, "aü… (4 bytes)");
        assert_eq!(word(&"\u{1b}".repeat(50)), format!("\"{}… (50 bytes)\"", "\\u{1b}".repeat(17)));
        assert_eq!(word(&"x".repeat(101)), format!("\"{}… (101 bytes)\"", "x".repeat(100)));
    }
}
