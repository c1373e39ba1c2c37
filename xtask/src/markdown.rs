//! As much of Markdown as it takes to find links, headings and code.

use std::collections::{HashMap, HashSet};

/// Something in a file, and the line it stands on, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) line: usize,
    pub(crate) text: String,
}

enum Line<'a> {
    Prose(&'a str),
    /// Between fences.
    Code(&'a str),
}

/// Where the links, images and link definitions of `text` lead.
pub(crate) fn links(text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for (line, content) in lines(text) {
        if let Line::Prose(prose) = content {
            let (prose, _) = split_code(prose);
            let targets = inline_targets(&prose).into_iter().chain(defined_target(&prose));
            found.extend(targets.map(|text| Found { line, text }));
        }
    }
    found
}

/// What `#…` can lead to in `text`: its headings, as code hosts spell them, and HTML ids.
pub(crate) fn anchors(text: &str) -> HashSet<String> {
    let mut anchors = HashSet::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (_, content) in lines(text) {
        let Line::Prose(prose) = content else { continue };
        anchors.extend(
            prose.split("id=\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned),
        );
        let Some(heading) = heading(prose) else { continue };
        let slug = slug(heading);
        let count = seen.entry(slug.clone()).or_default();
        anchors.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    anchors
}

/// The words of `text` that are set as code, between fences or within a line.
pub(crate) fn code_words(text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for (line, content) in lines(text) {
        let code = match content {
            Line::Code(code) => vec![code.to_owned()],
            Line::Prose(prose) => split_code(prose).1,
        };
        let words = code.iter().flat_map(|code| code.split_whitespace());
        found.extend(words.map(|word| Found { line, text: word.to_owned() }));
    }
    found
}

fn lines(text: &str) -> impl Iterator<Item = (usize, Line<'_>)> {
    let mut fence: Option<&str> = None;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let mark = fence_mark(line);
        let content = match (fence, mark) {
            (None, Some(mark)) => {
                fence = Some(mark);
                return None;
            }
            (Some(open), Some(mark)) if mark.starts_with(open) && line.trim() == mark => {
                fence = None;
                return None;
            }
            (Some(_), _) => Line::Code(line),
            (None, None) => Line::Prose(line),
        };
        Some((index + 1, content))
    })
}

/// The run of three or more backticks or tildes that `line` begins with.
fn fence_mark(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let mark = line.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
    let length = line.len() - line.trim_start_matches(mark).len();
    (length >= 3).then(|| &line[..length])
}

/// A line without its code, and its code.
fn split_code(line: &str) -> (String, Vec<String>) {
    let (mut prose, mut code, mut rest) = (String::new(), Vec::new(), line);
    while let Some(start) = rest.find('`') {
        let after = rest[start..].trim_start_matches('`');
        let mark = &rest[start..rest.len() - after.len()];
        prose.push_str(&rest[..start]);
        match after.find(mark) {
            Some(end) => {
                code.push(after[..end].to_owned());
                rest = &after[end + mark.len()..];
            }
            None => rest = after,
        }
    }
    prose.push_str(rest);
    (prose, code)
}

fn inline_targets(prose: &str) -> Vec<String> {
    prose.match_indices("](").filter_map(|(at, mark)| target(&prose[at + mark.len()..])).collect()
}

/// The target of `[label]: target`.
fn defined_target(prose: &str) -> Option<String> {
    let (label, rest) = prose.trim_start().strip_prefix('[')?.split_once("]:")?;
    if label.starts_with('^') || label.contains(']') {
        return None;
    }
    rest.split_whitespace().next().map(|target| target.trim_matches(['<', '>']).to_owned())
}

/// What stands between the parentheses of a link, without a title.
fn target(rest: &str) -> Option<String> {
    if let Some(bracketed) = rest.strip_prefix('<') {
        return bracketed.split_once('>').map(|(target, _)| target.to_owned());
    }
    let mut open = 0_usize;
    let end = rest.find(|c: char| {
        match c {
            '(' => open += 1,
            ')' if open > 0 => open -= 1,
            ')' => return true,
            _ => {}
        }
        c.is_whitespace()
    })?;
    Some(rest[..end].to_owned())
}

fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    let level = line.len() - text.len();
    ((1..=6).contains(&level) && text.starts_with(' ')).then(|| text.trim().trim_end_matches('#').trim_end())
}

fn slug(heading: &str) -> String {
    let mut text = String::new();
    let mut rest = heading;
    while let Some(end) = rest.find("](") {
        text.push_str(&rest[..end]);
        rest = rest[end..].split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    let kept = text.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(text: &str) -> Vec<String> {
        links(text).into_iter().map(|found| found.text).collect()
    }

    #[test]
    fn finds_every_kind_of_link() {
        assert_eq!(
            targets("see [a](x.md), [b](<y z.md>) and ![c](img/d.png \"title\")"),
            ["x.md", "y z.md", "img/d.png"]
        );
        assert_eq!(targets("[![badge](b.svg)](page.md)"), ["b.svg", "page.md"]);
        assert_eq!(targets("[a](f(1).md)"), ["f(1).md"]);
        assert_eq!(targets("[label]: other.md \"title\""), ["other.md"]);
    }

    #[test]
    fn counts_lines_from_one() {
        assert_eq!(links("\n\n[a](x.md)"), [Found { line: 3, text: "x.md".to_owned() }]);
    }

    #[test]
    fn code_has_no_links() {
        assert!(targets("`[a](x.md)` and ``[b](`y.md)``").is_empty());
        assert!(targets("```text\n[a](x.md)\n```").is_empty());
        assert_eq!(targets("````\n```\n[a](x.md)\n````\n[b](y.md)"), ["y.md"]);
    }

    #[test]
    fn a_footnote_is_no_link() {
        assert!(targets("[^1]: words.md follow").is_empty());
    }

    #[test]
    fn spells_headings_as_code_hosts_do() {
        let anchors = anchors(
            "# The `Cache`, in short!\n## `[providers.NAME.openai]`\n## snake_case & more\n## [Linked](x.md) text ##",
        );
        for wanted in ["the-cache-in-short", "providersnameopenai", "snake_case--more", "linked-text"] {
            assert!(anchors.contains(wanted), "{wanted} is not in {anchors:?}");
        }
    }

    #[test]
    fn numbers_equal_headings() {
        let anchors = anchors("# Same\n# Same\n# Same\n<a id=\"by-hand\"></a>\n```\n# not one\n```");
        let mut anchors: Vec<_> = anchors.into_iter().collect();
        anchors.sort();
        assert_eq!(anchors, ["by-hand", "same", "same-1", "same-2"]);
    }

    #[test]
    fn finds_words_set_as_code() {
        let words: Vec<_> = code_words("a `b/c.rs` d `e f`\n```text\ng/  h\n```");
        let words: Vec<_> = words.iter().map(|found| (found.line, found.text.as_str())).collect();
        assert_eq!(words, [(1, "b/c.rs"), (1, "e"), (1, "f"), (3, "g/"), (3, "h")]);
    }
}
