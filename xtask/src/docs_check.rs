//! `cargo xtask docs-check`: what the Markdown files point at exists.
//!
//! Relative links lead to a file, and with `#…` to a heading in it. Paths that ARCHITECTURE.md sets as code
//! exist, named from the root or from any folder.

#![expect(clippy::print_stdout, reason = "what is wrong in the documents is the result of this command")]

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use crate::failure::Failure;
use crate::markdown::{self, Found};
use crate::workspace::Workspace;

const MAP: &str = "ARCHITECTURE.md";

/// What a code word must end with to be taken for a file by itself.
const EXTENSIONS: [&str; 14] =
    ["rs", "toml", "md", "json", "yml", "yaml", "csv", "py", "sh", "html", "css", "js", "ts", "lock"];

/// The files and folders of the repository by their path from the root; of Markdown files, the text too.
#[derive(Default)]
struct Tree(BTreeMap<String, Option<String>>);

struct Problem {
    file: String,
    line: usize,
    what: String,
}

/// Checks every Markdown file of the workspace.
///
/// # Errors
/// When a link or a path leads nowhere.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Failure> {
    let tree = Tree::read(workspace.root(), workspace.target())
        .map_err(|error| Failure::new(format!("cannot read the repository: {error}")))?;
    let problems = check(&tree);
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => {
            println!("{} Markdown files, every link and path leads somewhere", tree.texts().count());
            Ok(())
        }
        count => Err(Failure::new(format!("{count} links or paths in the documents lead nowhere"))),
    }
}

fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, text) in tree.texts() {
        let mut report = |at: Found, what: String| {
            problems.push(Problem { file: file.to_owned(), line: at.line, what });
        };
        for link in markdown::links(text) {
            if let Err(what) = follow(tree, file, &link.text) {
                report(link, what);
            }
        }
        if file == MAP {
            for word in markdown::code_words(text).into_iter().filter(|word| tree.could_be_path(&word.text)) {
                if !tree.has_ending(&word.text) {
                    let what = format!("names `{}`: there is no such file or folder", word.text);
                    report(word, what);
                }
            }
        }
    }
    problems
}

/// Whether a link in `file` leads somewhere, and if not, why.
fn follow(tree: &Tree, file: &str, target: &str) -> Result<(), String> {
    // `::` is an item of a crate, in files that are also chapters of its documentation.
    if target.contains("://") || target.starts_with("mailto:") || target.contains("::") {
        return Ok(());
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { Some(file.to_owned()) } else { resolve(file, path) };
    let path = path.ok_or_else(|| format!("link to `{target}`: leads out of the repository"))?;
    match tree.0.get(&path) {
        None if path.is_empty() => Ok(()),
        None => Err(format!("link to `{target}`: there is no `{path}`")),
        Some(Some(text)) if !anchor.is_empty() && !markdown::anchors(text).contains(anchor) => {
            Err(format!("link to `{target}`: `{path}` has no heading `#{anchor}`"))
        }
        Some(_) => Ok(()),
    }
}

/// The path from the root that `target` means in `file`; `None` if it leads out of the root.
fn resolve(file: &str, target: &str) -> Option<String> {
    let target = target.replace("%20", " ");
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    if target.starts_with('/') {
        parts.clear();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

// === impl Tree ===

impl Tree {
    /// Everything below `root`, except what can be made again: `built` is cargo's target folder, which has no
    /// tag when something else has made it.
    fn read(root: &Path, built: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.add(root, built, "")?;
        Ok(tree)
    }

    fn add(&mut self, folder: &Path, built: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let key = format!("{prefix}{name}");
            if entry.file_type()?.is_dir() {
                let again = path == built || path.join("CACHEDIR.TAG").exists();
                if name != ".git" && name != "node_modules" && !again {
                    self.add(&path, built, &format!("{key}/"))?;
                    self.0.insert(key, None);
                }
            } else {
                let text = if name.ends_with(".md") { Some(fs::read_to_string(&path)?) } else { None };
                self.0.insert(key, text);
            }
        }
        Ok(())
    }

    fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    /// Whether a word set as code is meant as a path: a folder with its slash, a file with an extension we
    /// use, or anything that begins with a folder of ours. `chat/completions` is none of these.
    fn could_be_path(&self, word: &str) -> bool {
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'));
        if !plain || word.starts_with('/') || word.contains("//") {
            return false;
        }
        let extension = word.rsplit_once('.').map(|(name, extension)| (!name.is_empty(), extension));
        word.ends_with('/')
            || extension.is_some_and(|(named, extension)| named && EXTENSIONS.contains(&extension))
            || word.split_once('/').is_some_and(|(first, _)| self.0.contains_key(first))
    }

    fn has_ending(&self, word: &str) -> bool {
        let word = word.trim_end_matches('/');
        self.0.keys().any(|path| {
            path.strip_suffix(word).is_some_and(|before| before.is_empty() || before.ends_with('/'))
        })
    }
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in files {
            let text = path.ends_with(".md").then(|| (*text).to_owned());
            tree.0.insert((*path).to_owned(), text);
            for (at, _) in path.match_indices('/') {
                tree.0.insert(path[..at].to_owned(), None);
            }
        }
        tree
    }

    fn problems(files: &[(&str, &str)]) -> Vec<String> {
        check(&tree(files)).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn follows_links_from_the_file_they_stand_in() {
        let page = "[up](../../README.md#use) [beside](b.md) [self](#top) [folder](../guides) [root](/README.md)\n# Top";
        let files = [("README.md", "# Use"), ("docs/guides/a.md", page), ("docs/guides/b.md", "")];
        assert_eq!(problems(&files), [""; 0]);
    }

    #[test]
    fn says_where_a_link_leads_nowhere_and_why() {
        let page = "[gone](c.md)\n[no heading](../README.md#us)\n\n[out](../../secret.md)";
        let files = [("README.md", "# Use"), ("docs/a.md", page)];
        assert_eq!(
            problems(&files),
            [
                "docs/a.md:1: link to `c.md`: there is no `docs/c.md`",
                "docs/a.md:2: link to `../README.md#us`: `README.md` has no heading `#us`",
                "docs/a.md:4: link to `../../secret.md`: leads out of the repository",
            ]
        );
    }

    #[test]
    fn leaves_other_peoples_addresses_and_items_alone() {
        let page = "[web](https://example.com/x.md) [mail](mailto:a@example.com) [item](crate::Cache::get)";
        assert_eq!(problems(&[("README.md", page)]), [""; 0]);
    }

    #[test]
    fn a_line_in_a_source_file_is_not_a_heading() {
        assert_eq!(problems(&[("README.md", "[line](src/main.rs#L3)"), ("src/main.rs", "")]), [""; 0]);
    }

    #[test]
    fn finds_paths_in_the_map_that_have_gone() {
        let map =
            "`core/src/old.rs` and `core/lost`\n```text\ncore/src/   all\nnever/      x\n```\n`gone.rs`";
        let files = [("ARCHITECTURE.md", map), ("core/src/new.rs", "")];
        assert_eq!(
            problems(&files),
            [
                "ARCHITECTURE.md:1: names `core/src/old.rs`: there is no such file or folder",
                "ARCHITECTURE.md:1: names `core/lost`: there is no such file or folder",
                "ARCHITECTURE.md:4: names `never/`: there is no such file or folder",
                "ARCHITECTURE.md:6: names `gone.rs`: there is no such file or folder",
            ]
        );
    }

    #[test]
    fn takes_only_paths_for_paths() {
        let map = "`new.rs` `src/new.rs` `/v1/chat` `chat/completions` `POST /x` `a >> b` `Cache` `x.run()` `->` `…`";
        assert_eq!(problems(&[("ARCHITECTURE.md", map), ("core/src/new.rs", "")]), [""; 0]);
    }

    #[test]
    fn a_path_ends_at_the_border_of_a_name() {
        let files = [("ARCHITECTURE.md", "`ew.rs`"), ("core/src/new.rs", "")];
        assert_eq!(problems(&files).len(), 1);
    }

    #[test]
    fn other_files_may_name_what_is_not_here() {
        assert_eq!(problems(&[("README.md", "`your/own/file.rs`")]), [""; 0]);
    }
}
