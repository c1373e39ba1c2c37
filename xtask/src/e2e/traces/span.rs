//! A trace as a backend tells of it, in one form for all of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What a backend knows of a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) id: String,
    /// Empty for none.
    pub(crate) parent: String,
    pub(crate) name: String,
    /// `None` from a backend that does not keep it.
    pub(crate) kind: Option<Kind>,
    pub(crate) begun: u64,
    pub(crate) status: Status,
    /// The values as text.
    pub(crate) attributes: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Server,
    Client,
    Internal,
    Other,
}

/// How a span ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Status {
    #[default]
    Unset,
    Ok,
    Error(String),
}

/// The spans of one trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace(pub(crate) Vec<Span>);

/// A tree of spans, a line a span, the children of a span below it: those of one name in the order in which they
/// began.
pub(crate) type Tree = String;

// === impl Kind ===

impl Kind {
    /// By its name in the specification, whatever its case.
    pub(crate) fn named(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "server" => Self::Server,
            "client" => Self::Client,
            "internal" => Self::Internal,
            _ => Self::Other,
        }
    }

    fn shown(self) -> &'static str {
        match self {
            Self::Server => "SERVER",
            Self::Client => "CLIENT",
            Self::Internal => "INTERNAL",
            Self::Other => "OTHER",
        }
    }
}

// === impl Status ===

impl Status {
    /// By the name of its code, whatever its case.
    pub(crate) fn coded(code: &str, message: &str) -> Self {
        match code.to_ascii_lowercase().trim_start_matches("status_code_") {
            "ok" => Self::Ok,
            "error" => Self::Error(message.to_owned()),
            _ => Self::Unset,
        }
    }
}

// === impl Trace ===

impl Trace {
    /// With kinds, if all spans have one.
    pub(crate) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let known = |id: &str| self.0.iter().any(|span| span.id == id);
        self.write(&mut tree, 0, &|span| !known(&span.parent));
        tree
    }

    fn write(&self, tree: &mut Tree, depth: usize, wanted: &dyn Fn(&Span) -> bool) {
        let mut level: Vec<_> = self.0.iter().filter(|span| wanted(span)).collect();
        level.sort_by_key(|span| (&span.name, span.begun));
        for span in level {
            let kind = span.kind.map(|kind| format!("{} ", kind.shown())).unwrap_or_default();
            let ended = match &span.status {
                Status::Ok => "ok".to_owned(),
                Status::Error(kind) => format!("error: {kind}"),
                Status::Unset => "unset".to_owned(),
            };
            let indent = 2 * depth;
            writeln!(tree, "{:indent$}{kind}{} ({ended})", "", span.name)
                .expect("writing to a string cannot fail");
            self.write(tree, depth + 1, &|child| child.parent == span.id);
        }
    }

    /// What two backends must agree on: each span, its parent, its name and how it ended.
    pub(crate) fn identity(&self) -> Vec<(&str, &str, &str, &Status)> {
        let mut spans: Vec<_> = self
            .0
            .iter()
            .map(|span| (span.id.as_str(), span.parent.as_str(), span.name.as_str(), &span.status))
            .collect();
        spans.sort_by_key(|(id, ..)| *id);
        spans
    }

    /// The tokens of each model call that has any, as its attributes say: read, written.
    pub(crate) fn tokens(&self) -> Vec<(String, String)> {
        let of =
            |span: &Span, what: &str| span.attributes.get(&format!("gen_ai.usage.{what}_tokens")).cloned();
        let mut tokens: Vec<_> =
            self.0.iter().filter_map(|span| Some((of(span, "input")?, of(span, "output")?))).collect();
        tokens.sort();
        tokens
    }
}

/// The tree as a backend shows it that does not keep kinds.
pub(crate) fn without_kinds(tree: &str) -> Tree {
    let bare = |line: &str| {
        let name = line.trim_start();
        let rest = name.split_once(' ').map_or(name, |(_, rest)| rest);
        format!("{}{rest}\n", &line[..line.len() - name.len()])
    };
    tree.lines().map(bare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: &str, name: &str, begun: u64, kind: Kind) -> Span {
        let [id, parent, name] = [id, parent, name].map(str::to_owned);
        Span { id, parent, name, begun, kind: Some(kind), status: Status::Ok, ..Span::default() }
    }

    fn retried() -> Trace {
        let failed = Span {
            status: Status::coded("STATUS_CODE_ERROR", "upstream"),
            ..span("b", "a", "POST", 1, Kind::Client)
        };
        let answered = span("c", "a", "POST", 2, Kind::Client);
        Trace(vec![answered, failed, span("a", "remote", "chat m", 0, Kind::Internal)])
    }

    #[test]
    fn draws_children_under_their_parents_in_the_order_of_time() {
        let tree = retried().tree();
        assert_eq!(tree, "INTERNAL chat m (ok)\n  CLIENT POST (error: upstream)\n  CLIENT POST (ok)\n");
        assert_eq!(without_kinds(&tree), "chat m (ok)\n  POST (error: upstream)\n  POST (ok)\n");
    }

    #[test]
    fn two_traces_are_one_when_all_but_the_order_of_spans_is_equal() {
        let (one, mut other) = (retried(), retried());
        other.0.reverse();
        assert_eq!(one.identity(), other.identity());
        other.0[0].parent = "c".to_owned();
        assert_ne!(one.identity(), other.identity());
    }

    #[test]
    fn reads_names_of_kinds_and_codes_in_every_spelling() {
        assert_eq!([Kind::named("Server"), Kind::named("CLIENT")], [Kind::Server, Kind::Client]);
        assert_eq!(Status::coded("Ok", ""), Status::coded("STATUS_CODE_OK", ""));
        assert_eq!(Status::coded("Error", "timeout"), Status::Error("timeout".to_owned()));
    }
}
