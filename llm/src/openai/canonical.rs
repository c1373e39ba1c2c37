//! One spelling for all bodies that mean the same request, for cache keys.
//!
//! Works on the text itself rather than on parsed numbers: a parser would round a big integer or a long
//! fraction, and two different requests would share a key.

use std::borrow::Cow;

/// Top-level fields that do not change the answer. Every other field counts, known or not.
const IGNORED: [&str; 4] = ["user", "metadata", "stream", "stream_options"];

/// Top-level fields inside which the order of keys is known not to matter. Elsewhere it may be that of a
/// schema, in which a model writes its fields.
const UNORDERED: [&str; 2] = ["messages", "logit_bias"];

/// A body with more values than this has no canonical form, and is not cached: each costs memory far beyond
/// its two bytes. Commas in text count as well, which only makes a long text uncached.
const MOST_VALUES: usize = 100_000;

enum Node<'a> {
    /// A number or a literal, as written.
    Literal(&'a str),
    /// A string in its one spelling, quotes included.
    Text(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

/// Reads JSON that a parser has already accepted; anything else ends in `None`, never in a panic.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// The canonical text of a request body that is valid JSON and not too deep.
pub(super) fn canonical(text: &str) -> Option<Vec<u8>> {
    read(text).map(|fields| written(fields, text.len()))
}

/// The canonical text without the prose of the last message, and that prose; `None` where the last message is not one
/// of the user's with one text in it.
pub(super) fn around_prompt(text: &str) -> Option<(Vec<u8>, String)> {
    let mut fields = read(text)?;
    let [(_, Node::Array(messages))] = &mut named(&mut fields, "messages")[..] else { return None };
    let Some(Node::Object(last)) = messages.last_mut() else { return None };
    let [(_, Node::Text(role))] = &named(last, "role")[..] else { return None };
    if role != "\"user\"" {
        return None;
    }
    let [(_, content)] = &mut named(last, "content")[..] else { return None };
    let prose = match content {
        Node::Array(parts) => {
            let mut texts: Vec<_> = parts.iter_mut().filter_map(prose_of_part).collect();
            let [text] = &mut texts[..] else { return None };
            std::mem::replace(*text, GAP)
        }
        content => std::mem::replace(content, GAP),
    };
    let Node::Text(prose) = prose else { return None };
    let prose = serde_json::from_str(&prose).ok()?;
    Some((written(fields, text.len()), prose))
}

/// What stands in the place of the prose. No JSON is written like that.
const GAP: Node<'static> = Node::Literal("?");

/// All fields of this name: there may be several, and readers differ on which counts.
fn named<'f, 'a>(
    fields: &'f mut [(Cow<'a, str>, Node<'a>)],
    name: &str,
) -> Vec<&'f mut (Cow<'a, str>, Node<'a>)> {
    fields.iter_mut().filter(|(field, _)| bare(field) == name).collect()
}

/// The text of a part that is one; `None` for an image and the like, and for what is no part.
fn prose_of_part<'f, 'a>(part: &'f mut Node<'a>) -> Option<&'f mut Node<'a>> {
    let Node::Object(fields) = part else { return None };
    let is_text = matches!(&named(fields, "type")[..], [(_, Node::Text(kind))] if kind == "\"text\"");
    let mut texts = named(fields, "text");
    if !is_text || texts.len() != 1 {
        return None;
    }
    texts.pop().map(|(_, text)| text)
}

fn read(text: &str) -> Option<Vec<(Cow<'_, str>, Node<'_>)>> {
    if memchr::memchr3_iter(b'[', b'{', b',', text.as_bytes()).count() > MOST_VALUES {
        return None;
    }
    let Node::Object(mut fields) = (Reader { text, at: 0 }).value()? else { return None };
    fields.retain(|(name, _)| !IGNORED.contains(&bare(name)));
    for (name, value) in &mut fields {
        if UNORDERED.contains(&bare(name)) {
            value.sort();
        }
    }
    sort_by_name(&mut fields);
    Some(fields)
}

fn written(fields: Vec<(Cow<'_, str>, Node<'_>)>, about: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(about);
    Node::Object(fields).write(&mut out);
    out
}

fn bare(quoted: &str) -> &str {
    quoted.trim_matches('"')
}

/// Stable, so that of two equal names the later one stays the later one: readers differ on which counts.
fn sort_by_name(fields: &mut [(Cow<'_, str>, Node<'_>)]) {
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
}

// === impl Node ===

impl Node<'_> {
    fn sort(&mut self) {
        match self {
            Self::Literal(_) | Self::Text(_) => {}
            Self::Array(items) => items.iter_mut().for_each(Node::sort),
            Self::Object(fields) => {
                fields.iter_mut().for_each(|(_, value)| value.sort());
                sort_by_name(fields);
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Literal(literal) => out.extend_from_slice(literal.as_bytes()),
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    separate(index, out);
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Object(fields) => {
                out.push(b'{');
                for (index, (name, value)) in fields.iter().enumerate() {
                    separate(index, out);
                    out.extend_from_slice(name.as_bytes());
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}

fn separate(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn value(&mut self) -> Option<Node<'a>> {
        match self.peek()? {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => self.string().map(Node::Text),
            _ => self.literal(),
        }
    }

    fn object(&mut self) -> Option<Node<'a>> {
        let mut fields = Vec::new();
        self.at += 1;
        while self.peek()? != b'}' {
            let name = self.string()?;
            self.skip(b':')?;
            fields.push((name, self.value()?));
            if self.peek()? == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        Some(Node::Object(fields))
    }

    fn array(&mut self) -> Option<Node<'a>> {
        let mut items = Vec::new();
        self.at += 1;
        while self.peek()? != b']' {
            items.push(self.value()?);
            if self.peek()? == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        Some(Node::Array(items))
    }

    /// A string with its quotes, its escapes written in the one way that `serde_json` writes them.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.skip(b'"')?;
        let (start, bytes) = (self.at - 1, self.text.as_bytes());
        let mut respell = false;
        loop {
            self.at += memchr::memchr2(b'"', b'\\', bytes.get(self.at..)?)?;
            if bytes[self.at] == b'"' {
                break;
            }
            // The short escapes (`\n`, `\"`) are the way it is written already.
            respell |= matches!(bytes.get(self.at + 1)?, b'u' | b'/');
            self.at += 2;
        }
        self.at += 1;
        let raw = self.text.get(start..self.at)?;
        if !respell {
            return Some(Cow::Borrowed(raw));
        }
        // Half a surrogate pair is JSON but not text: it keeps its spelling, which nothing else can have.
        let text = serde_json::from_str::<serde_json::Value>(raw);
        Some(text.map_or(Cow::Borrowed(raw), |text| text.to_string().into()))
    }

    fn literal(&mut self) -> Option<Node<'a>> {
        let rest = self.text.get(self.at..)?;
        let end = rest.find([',', '}', ']', ' ', '\n', '\r', '\t']).unwrap_or(rest.len());
        self.at += end;
        (end > 0).then(|| Node::Literal(&rest[..end]))
    }

    /// The next byte that is not whitespace.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        self.at += rest.iter().position(|byte| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t'))?;
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip(&mut self, expected: u8) -> Option<()> {
        (self.peek()? == expected).then(|| self.at += 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &str) -> String {
        String::from_utf8(canonical(body).expect(body)).expect("canonical text is UTF-8")
    }

    #[test]
    fn order_whitespace_and_escapes_do_not_matter() {
        let plain = r#"{"messages":[{"content":"é/\n","role":"user"}],"model":"m"}"#;
        assert_eq!(text(plain), plain);
        let spelled = "\n{ \"mod\\u0065l\" : \"m\",\r\n\t\"messages\":[ {\"role\":\"user\" , \"content\":\"\\u00e9\\/\\u000a\"} ] } ";
        assert_eq!(text(spelled), plain);
    }

    #[test]
    fn a_body_of_very_many_values_has_no_canonical_form() {
        let many = format!("{{\"x\":[{}1]}}", "[],".repeat(MOST_VALUES / 2 + 1));
        assert_eq!(canonical(&many), None);
    }

    #[test]
    fn only_the_four_named_fields_are_left_out_and_only_at_the_top() {
        let body = r#"{"a":{"user":1,"stream":2},"metadata":{},"model":"m","store":true,"stream":true,"stream_options":null,"\u0075ser":"u"}"#;
        assert_eq!(text(body), r#"{"a":{"user":1,"stream":2},"model":"m","store":true}"#);
    }

    #[test]
    fn every_other_change_changes_the_text() {
        let base = r#"{"model":"m","messages":[{"role":"user","content":"a"}],"seed":1,"temperature":0.5,"x":{"y":[1,2]}}"#;
        let changes = [
            (r#""m""#, r#""n""#),
            ("\"a\"", "\"b\""),
            ("\"a\"", "\"a \""),
            ("\"a\"", "null"),
            ("user", "system"),
            ("\"seed\":1", "\"seed\":12345678901234567890123"),
            ("\"seed\":1", "\"seed\":12345678901234567890124"),
            ("0.5", "0.50000000000000000000001"),
            ("0.5", "\"0.5\""),
            ("[1,2]", "[2,1]"),
            ("[1,2]", "[1,2,3]"),
            ("[1,2]", "[[1,2]]"),
            ("\"y\"", "\"z\""),
            ("{\"y\":[1,2]}", "{}"),
            ("\"seed\":1", "\"seed\":1,\"top_p\":1"),
            ("\"seed\":1", "\"seed\":1,\"never_heard_of\":false"),
            ("\"seed\":1", "\"seed\":1,\"never_heard_of\":null"),
            ("}]", "},{\"role\":\"user\",\"content\":\"a\"}]"),
        ];
        let mut seen = std::collections::BTreeSet::from([text(base)]);
        for (before, after) in changes {
            let changed = base.replacen(before, after, 1);
            assert_ne!(changed, base);
            assert!(seen.insert(text(&changed)), "{changed}");
        }
    }

    #[test]
    fn the_order_of_schema_fields_counts() {
        for field in ["tools", "functions", "response_format", "guided_json", "extra_body", "never_heard_of"]
        {
            let schema = |inner: &str| text(&format!(r#"{{"model":"m","{field}":[{inner}]}}"#));
            assert_ne!(schema(r#"{"a":1,"b":2}"#), schema(r#"{"b":2,"a":1}"#));
            assert_eq!(schema(r#"{"a":1,"b":2}"#), schema(" { \"a\" : 1,\"b\":2 } "));
        }
    }

    #[test]
    fn the_order_of_other_fields_does_not_count_where_it_is_known_not_to() {
        let bias = |inner: &str| text(&format!(r#"{{"logit_bias":{{{inner}}}}}"#));
        assert_eq!(bias(r#""1":-100,"2":5"#), bias(r#""2":5,"1":-100"#));
    }

    #[test]
    fn repeated_names_keep_their_order() {
        assert_ne!(text(r#"{"a":1,"a":2}"#), text(r#"{"a":2,"a":1}"#));
    }

    fn around(body: &str) -> Option<(String, String)> {
        let (around, prose) = around_prompt(body)?;
        Some((String::from_utf8(around).expect("canonical text is UTF-8"), prose))
    }

    #[test]
    fn only_the_prose_of_the_last_message_is_taken_out() {
        let asked = |content: &str| {
            around(&format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":"a"}},{{"role":"user","content":{content}}}]}}"#
            ))
        };
        let plain = r#"{"messages":[{"content":"a","role":"user"},{"content":?,"role":"user"}],"model":"m"}"#;
        assert_eq!(asked(r#""b\u0021\n""#), Some((plain.to_owned(), "b!\n".to_owned())));
        let parts = r#"[{"type":"image_url","image_url":{"url":"u"}},{"type":"text","text":"b"}]"#;
        let (around_parts, prose) = asked(parts).expect("there is one text");
        assert_eq!(prose, "b");
        assert!(
            around_parts
                .contains(r#"[{"image_url":{"url":"u"},"type":"image_url"},{"text":?,"type":"text"}]"#)
        );
        for other in
            ["null", "7", "[]", r#"["b"]"#, r#"[{"type":"text","text":"b"},{"type":"text","text":"c"}]"#]
        {
            assert_eq!(asked(other), None, "{other}");
        }
        for body in [
            r#"{"messages":[]}"#,
            r#"{"messages":[{"role":"assistant","content":"a"}]}"#,
            r#"{"messages":[{"role":"user","content":"a"},{"role":"tool","content":"b"}]}"#,
            r#"{"messages":[{"role":"user","content":"a","content":"b"}]}"#,
            r#"{"messages":[{"role":"user","role":"system","content":"a"}]}"#,
            r#"{"messages":[{"content":"a"}]}"#,
            r#"{"messages":[{"role":"user","content":"\ud800"}]}"#,
        ] {
            assert_eq!(around(body), None, "{body}");
        }
    }

    #[test]
    fn every_change_beside_the_prose_changes_what_is_around_it() {
        let base = r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"a"}],"tools":[{"x":1}],"seed":1,"response_format":{"type":"text"}}"#;
        let (whole, _) = around(base).expect("the last message is the user's");
        for (before, after) in [
            (r#""m""#, r#""n""#),
            ("\"s\"", "\"t\""),
            ("system", "developer"),
            ("{\"x\":1}", "{\"x\":2}"),
            ("\"seed\":1", "\"seed\":2"),
            ("\"seed\":1", "\"seed\":1,\"temperature\":0"),
            ("{\"type\":\"text\"}", "{\"type\":\"json_object\"}"),
            ("\"content\":\"a\"", "\"content\":\"a\",\"name\":\"x\""),
            ("{\"role\":\"user\"", "{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"user\""),
        ] {
            let changed = base.replacen(before, after, 1);
            assert_ne!(changed, base);
            assert_ne!(around(&changed).expect("the last message is the user's").0, whole, "{changed}");
        }
        assert_eq!(around(&base.replace("\"a\"", "\"b\"")).expect("it is the user's").0, whole);
        assert_ne!(
            around(&base.replace("\"a\"", "\"?\"")).expect("it is the user's").0,
            canonical(base).map(|text| String::from_utf8(text).expect("it is UTF-8")).expect("it is JSON")
        );
    }

    #[test]
    fn strings_cannot_imitate_structure() {
        assert_ne!(text(r#"{"a":"1,\"b\":2"}"#), text(r#"{"a":"1","b":2}"#));
        assert_ne!(text(r#"{"a":"\\u0061"}"#), text(r#"{"a":"\u0061"}"#));
        assert_ne!(text(r#"{"a":"\ud800"}"#), text(r#"{"a":"\\ud800"}"#));
        assert_eq!(text(r#"{"a":"\ud83d\ude00"}"#), text("{\"a\":\"😀\"}"));
    }

    #[test]
    fn what_is_not_json_has_no_key() {
        for body in [
            "",
            "7",
            "[]",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":\"",
            "{\"a\":\"\\",
            "{\"a\":\"\\\"",
            "{\"a\":[1",
            "{:1}",
        ] {
            assert_eq!(canonical(body), None, "{body:?}");
        }
    }
}
