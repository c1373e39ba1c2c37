//! What tells whether a part of the configuration is still the one that it was.
//!
//! A mark stands for what is written of a part and for what it refers to outside of the file, secrets included: it can be
//! kept and compared, and nothing can be read from it. Marks of two programs cannot be compared.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fmt::Debug;
use std::hash::BuildHasher as _;
use std::sync::LazyLock;

use toml::{Table, Value};

/// Keyed by chance, so that a mark says nothing of a secret.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The tables whose entries are built one by one.
const BY_NAME: [&str; 3] = ["providers", "stores", "models"];
/// The tables that no workflow depends on.
const NO_WORKFLOWS: [&str; 5] = ["server", "telemetry", "admin", "log", "maturity"];

/// Stands for a part of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark(u64);

/// The marks of all parts of a configuration.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    written: Table,
    /// What was read outside of the file, by table and name.
    outside: BTreeMap<(String, String), Vec<Mark>>,
    /// What has been read of the part that is being checked.
    read: Vec<Mark>,
}

// === impl Mark ===

impl Mark {
    /// Stands for all of `marks`, in their order.
    pub(crate) fn of_all(marks: impl IntoIterator<Item = Self>) -> Self {
        Self(KEYS.hash_one(marks.into_iter().collect::<Vec<_>>()))
    }

    fn of_written(part: &impl Debug) -> Self {
        Self(KEYS.hash_one(format!("{part:?}")))
    }
}

// === impl Marks ===

impl Marks {
    /// Of a file in which this is written.
    pub(super) fn of(written: Table) -> Self {
        Self { written, ..Self::default() }
    }

    /// Takes note of something that a part refers to.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.read.push(Mark(KEYS.hash_one(bytes)));
    }

    /// What is read from now on belongs to a part. Returns what belongs to what is around it.
    pub(super) fn enter(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.read)
    }

    /// The part was the one called `name` of its `kind`; what belongs to it also belongs to what is `around` it.
    pub(super) fn leave(&mut self, around: Vec<Mark>, kind: &str, name: &str) {
        let read = std::mem::replace(&mut self.read, around);
        self.read.extend(&read);
        self.outside.insert((format!("{kind}s"), name.to_owned()), read);
    }

    /// Of one provider, store or model, by the table that it is in.
    pub(crate) fn named(&self, table: &str, name: &str) -> Mark {
        let written = self.written.get(table).and_then(|named| named.get(name));
        let outside = self.outside.get(&(table.to_owned(), name.to_owned()));
        Mark::of_all([Mark::of_written(&written)].into_iter().chain(outside.into_iter().flatten().copied()))
    }

    /// Of everything else that workflows depend on.
    pub(crate) fn common(&self) -> Mark {
        let apart = |table: &str| BY_NAME.contains(&table) || NO_WORKFLOWS.contains(&table);
        let common: Vec<_> = self.written.iter().filter(|(table, _)| !apart(table)).collect();
        Mark::of_written(&common)
    }

    /// Of a whole table.
    pub(crate) fn table(&self, table: &str) -> Mark {
        Mark::of_written(&self.written.get(table))
    }

    /// What stands at `table.key`, or the whole table when no key is given.
    pub(crate) fn written(&self, table: &str, key: Option<&str>) -> Option<&Value> {
        let table = self.written.get(table)?;
        key.map_or(Some(table), |key| table.get(key))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    const FILE: &str = "\
[providers.p.openai]
base_url = \"https://h/v1\"
api_key = \"env:KEY\"
[providers.q.simulated]
[stores.s.redis]
url = \"rediss://h\"
ca_file = \"ca.pem\"
[models.m.routes.r]
provider = \"p\"
model = \"small\"
";

    struct Setting(tempfile::TempDir);

    impl Setting {
        fn new() -> Self {
            let setting = Self(tempfile::tempdir().unwrap());
            setting.certificate("a");
            setting
        }

        fn certificate(&self, host: &str) {
            let signed = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
            std::fs::write(self.path("ca.pem"), signed.cert.pem()).unwrap();
        }

        fn path(&self, name: impl AsRef<Path>) -> std::path::PathBuf {
            self.0.path().join(name)
        }

        fn load(&self, text: &str, key: &str) -> Config {
            std::fs::write(self.path("t.toml"), text).unwrap();
            Config::load(&self.path("t.toml"), &|_| Some(key.to_owned())).unwrap()
        }
    }

    /// Which parts of two configurations have other marks.
    fn differ(a: &Config, b: &Config) -> Vec<&'static str> {
        let mut differ: Vec<_> = [("providers", "p"), ("providers", "q"), ("stores", "s"), ("models", "m")]
            .into_iter()
            .filter(|(table, name)| a.marks.named(table, name) != b.marks.named(table, name))
            .map(|(_, name)| name)
            .collect();
        if a.marks.common() != b.marks.common() {
            differ.push("common");
        }
        differ
    }

    #[test]
    fn a_part_that_is_written_otherwise_has_another_mark_and_the_rest_has_not() {
        let setting = Setting::new();
        let before = setting.load(FILE, "sk-1");
        let after = |from: &str, to: &str| differ(&before, &setting.load(&FILE.replace(from, to), "sk-1"));
        assert_eq!(after("", ""), [""; 0], "comments and white space mean nothing");
        assert_eq!(after("[models", "# a comment\n\n[models"), [""; 0]);
        assert_eq!(after("https://h/v1", "https://h/v2"), ["p"]);
        assert_eq!(after("q.simulated]", "q.simulated]\nseed = 1"), ["q"]);
        assert_eq!(after("rediss://h", "rediss://i"), ["s"]);
        assert_eq!(after("small", "large"), ["m"]);
        assert_eq!(after("[models", "[server]\nmax_body = 1\n[models"), [""; 0]);
        assert_eq!(after("[models", "[trace_context]\ninbound = \"link\"\n[models"), ["common"]);
        let price =
            "[prices.small]\ninput = 1.0\noutput = 1.0\nsource = \"x\"\ndate = \"2026-01-01\"\n[models";
        assert_eq!(after("[models", price), ["common"]);
    }

    #[test]
    fn what_a_part_refers_to_is_a_part_of_it() {
        let setting = Setting::new();
        let before = setting.load(FILE, "sk-1");
        assert_eq!(differ(&before, &setting.load(FILE, "sk-2")), ["p"], "another secret");
        setting.certificate("b");
        assert_eq!(differ(&before, &setting.load(FILE, "sk-1")), ["s"], "another file");
    }
}
