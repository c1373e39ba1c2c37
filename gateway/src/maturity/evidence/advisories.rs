//! Reports on dependencies with known weaknesses: `cargo audit --json`, and
//! `cargo deny --format json check advisories`, which writes one JSON object a line to standard error.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

/// What an advisory report says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Advisories {
    /// How many weaknesses are open.
    pub(crate) open: u64,
    /// Their ids, as far as the report names them.
    pub(crate) ids: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Audit {
    lockfile: Lockfile,
    vulnerabilities: Vulnerabilities,
}

#[derive(Deserialize)]
struct Lockfile {
    #[serde(rename = "dependency-count")]
    dependency_count: u64,
}

#[derive(Deserialize)]
struct Vulnerabilities {
    found: bool,
    count: u64,
    list: Vec<Value>,
}

/// Reads a report of either tool.
///
/// # Errors
/// In words: why it is none, or not whole.
pub(crate) fn parse(text: &str) -> Result<Advisories, String> {
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    match serde_json::from_str::<Value>(text) {
        Ok(whole) if whole.get("vulnerabilities").is_some() => audit(whole),
        _ => deny(text),
    }
}

fn audit(whole: Value) -> Result<Advisories, String> {
    let Audit { lockfile, vulnerabilities } =
        serde_json::from_value(whole).map_err(|error| format!("not a report of cargo audit: {error}"))?;
    let Vulnerabilities { found, count, list } = vulnerabilities;
    if lockfile.dependency_count == 0 {
        return Err("it has looked at no dependency".to_owned());
    }
    let open = count.max(list.len() as u64);
    if found != (open > 0) {
        return Err(format!("it contradicts itself: found is {found} and {open} are listed"));
    }
    Ok(Advisories { open, ids: list.iter().filter_map(|item| id(&item["advisory"])).collect() })
}

fn deny(text: &str) -> Result<Advisories, String> {
    let (mut ids, mut summary) = (BTreeSet::new(), None);
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let entry: Value =
            serde_json::from_str(line).map_err(|error| format!("line {number} is not json: {error}"))?;
        let fields = &entry["fields"];
        match entry["type"].as_str() {
            Some("diagnostic") if fields["severity"] == "error" => ids.extend(id(&fields["advisory"])),
            Some("summary") => summary = fields["advisories"]["errors"].as_u64(),
            Some(_) => {}
            None => return Err("it is a report neither of cargo audit nor of cargo deny".to_owned()),
        }
    }
    let open = summary.ok_or("it has no summary of advisories, so the check may not have ended")?;
    Ok(Advisories { open: open.max(ids.len() as u64), ids })
}

fn id(advisory: &Value) -> Option<String> {
    advisory["id"].as_str().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn audited(dependencies: u32, found: bool, list: &str) -> String {
        let count = list.matches("\"id\"").count();
        format!(
            r#"{{"database":{{"advisory-count":700,"last-commit":"c","last-updated":"2026-11-20T00:00:00Z"}},
            "lockfile":{{"dependency-count":{dependencies}}},"settings":{{"ignore":[]}},
            "vulnerabilities":{{"found":{found},"count":{count},"list":[{list}]}},"warnings":{{}}}}"#
        )
    }

    #[test]
    fn reads_what_cargo_audit_writes() {
        assert_eq!(parse(&audited(300, false, "")), Ok(Advisories::default()));
        let one =
            r#"{"advisory":{"id":"RUSTSEC-2026-0001","package":"p","title":"t"},"package":{"name":"p"}}"#;
        let found = parse(&audited(300, true, one)).unwrap();
        assert_eq!((found.open, found.ids), (1, BTreeSet::from(["RUSTSEC-2026-0001".to_owned()])));
    }

    #[test]
    fn reads_what_cargo_deny_writes() {
        let diagnostic = r#"{"type":"diagnostic","fields":{"advisory":{"id":"RUSTSEC-2026-0002"},"code":"vulnerability","graphs":[],"labels":[],"message":"m","severity":"error"}}"#;
        let log = r#"{"type":"log","fields":{"timestamp":"t","level":"INFO","message":"m"}}"#;
        let summary = |errors: u32| {
            format!(
                r#"{{"type":"summary","fields":{{"advisories":{{"errors":{errors},"warnings":2,"notes":0,"helps":0}}}}}}"#
            )
        };
        assert_eq!(parse(&summary(0)), Ok(Advisories::default()));
        let found = parse(&format!("{log}\n{diagnostic}\n{}\n", summary(1))).unwrap();
        assert_eq!((found.open, found.ids.len()), (1, 1));
        let only_bans =
            r#"{"type":"summary","fields":{"bans":{"errors":0,"warnings":0,"notes":0,"helps":0}}}"#;
        for broken in [diagnostic, log, only_bans] {
            assert!(parse(broken).unwrap_err().starts_with("it has no summary of advisories"));
        }
    }

    #[test]
    fn refuses_what_is_no_report() {
        for (text, why) in [
            ("", "it is empty"),
            ("null", "it is a report neither"),
            ("[]", "it is a report neither"),
            ("{\"vulnerabilities\": 3}", "not a report of cargo audit: "),
            ("error: no lockfile", "line 1 is not json: "),
            (&audited(0, false, ""), "it has looked at no dependency"),
            (&audited(5, true, ""), "it contradicts itself"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.starts_with(why), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn no_text_stops_the_program(text in "([{}\\[\\],:\"0-9 \n]|\"type\":|\"summary\"|\"fields\":|\"vulnerabilities\":|.){0,60}") {
            // Nothing that short is a whole report.
            prop_assert!(parse(&text).is_err());
        }
    }
}
