//! What a workflow consists of, under the names that metrics and spans use.
//!
//! [`Workflow::describe`](crate::Workflow::describe) gives it. Look at it once before a workflow is shipped: the
//! tree shows what stands inside what, and so which wrapper guards what.

use std::fmt::Write as _;

use serde::Serialize;

/// What `>>` makes.
pub(crate) const PIPE: &str = "sequential";

/// A stage of a workflow and what it holds.
///
/// ```
/// use throughline::workflow;
///
/// let flow = workflow("trim", |s: String| async move { Ok(s.trim().to_owned()) })
///     >> workflow("count", |s: String| async move { Ok(s.len()) });
/// let names: Vec<_> = flow.describe().children().iter().map(|node| node.operation().to_owned()).collect();
/// assert_eq!(names, ["trim", "count"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    primitive: &'static str,
    operation: String,
    /// What leads here from the stage above, such as the name of a route.
    #[serde(skip_serializing_if = "Option::is_none")]
    edge: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    children: Vec<Node>,
}

// === impl Node ===

impl Node {
    /// A stage that holds no others.
    #[must_use]
    pub fn leaf(primitive: &'static str, operation: impl Into<String>) -> Self {
        Self { primitive, operation: operation.into(), edge: None, children: Vec::new() }
    }

    /// The same stage, holding `child` as well. A pipe within a pipe is one pipe.
    #[must_use]
    pub fn holding(mut self, child: Node) -> Self {
        match (self.primitive, child.primitive) {
            (PIPE, PIPE) => self.children.extend(child.children),
            _ => self.children.push(child),
        }
        self
    }

    /// The same stage, reached from above by `edge`.
    #[must_use]
    pub fn by(mut self, edge: impl Into<String>) -> Self {
        self.edge = Some(edge.into());
        self
    }

    /// The `primitive` label.
    #[must_use]
    pub fn primitive(&self) -> &'static str {
        self.primitive
    }

    /// The `operation` label.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// The stages it holds, in the order they run.
    #[must_use]
    pub fn children(&self) -> &[Node] {
        &self.children
    }

    /// The operation, or those that a part without a name consists of.
    pub(crate) fn title(&self) -> String {
        if !self.operation.is_empty() {
            return self.operation.clone();
        }
        let titles: Vec<String> = self.children.iter().map(Node::title).collect();
        titles.join(if self.primitive == PIPE { " >> " } else { ", " })
    }

    /// The graph as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a tree of strings serialises")
    }

    /// The graph as a Mermaid flowchart.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart TD\n");
        self.draw(&mut text, &mut 0);
        text
    }

    /// The graph as an indented list.
    #[must_use]
    pub fn to_tree(&self) -> String {
        let mut text = String::new();
        self.list(&mut text, 1);
        text
    }

    fn list(&self, text: &mut String, depth: usize) {
        let edge = self.edge.as_ref().map(|edge| format!("{edge}: ")).unwrap_or_default();
        let title = format!("{} {}", self.primitive, self.operation);
        writeln!(text, "{:indent$}{edge}{}", "", title.trim_end(), indent = depth * 2)
            .expect("writing to a string cannot fail");
        self.children.iter().for_each(|child| child.list(text, depth + 1));
    }

    fn draw(&self, text: &mut String, next: &mut usize) -> usize {
        let id = *next;
        *next += 1;
        let name = self.operation.replace('"', "#quot;");
        let title = format!("{} {name}", self.primitive);
        writeln!(text, "  n{id}[\"{}\"]", title.trim_end()).expect("writing to a string cannot fail");
        for child in &self.children {
            let to = child.draw(text, next);
            let label = child.edge.as_ref().map(|edge| format!("|\"{}\"|", edge.replace('"', "#quot;")));
            writeln!(text, "  n{id} -->{} n{to}", label.unwrap_or_default())
                .expect("writing to a string cannot fail");
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Node {
        Node::leaf("router", "chat")
            .holding(Node::leaf("timeout", "cheap").by("cheap"))
            .holding(Node::leaf("step", "say \"hi\"").by("premium"))
    }

    #[test]
    fn draws_a_flowchart() {
        assert_eq!(
            graph().to_mermaid(),
            "flowchart TD\n  n0[\"router chat\"]\n  n1[\"timeout cheap\"]\n  n0 -->|\"cheap\"| n1\n  \
             n2[\"step say #quot;hi#quot;\"]\n  n0 -->|\"premium\"| n2\n"
        );
    }

    #[test]
    fn serialises_names_edges_and_children() {
        let json: serde_json::Value = serde_json::from_str(&graph().to_json()).unwrap();
        assert_eq!(json["primitive"], "router");
        assert_eq!(json["children"][0]["edge"], "cheap");
        assert_eq!(json["children"][1]["operation"], "say \"hi\"");
    }
}
