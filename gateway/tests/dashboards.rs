//! The dashboards that `throughline ops export` writes, read by Grafana's own published model of a dashboard.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::path::{Path, PathBuf};

use process::Launch;
use process::prometheus::program;
use serde_json::Value;

/// A way to break a dashboard, and a part of what is said of it.
#[expect(clippy::type_complexity, reason = "a table")]
const BROKEN: &[(&str, fn(&mut Value))] = &[
    (".colour: not known to Grafana", |page| page["colour"] = "red".into()),
    (".panels[1].options.shine: not known", |page| page["panels"][1]["options"]["shine"] = true.into()),
    (".targets[0].expression: not known", |page| page["panels"][1]["targets"][0]["expression"] = "up".into()),
    (".editable: 'no' is not", |page| page["editable"] = "no".into()),
    (".graph_tooltip: 9 is not", |page| page["graphTooltip"] = 9.into()),
    (".links: ", |page| page["panels"][1]["links"][0]["to"] = "x".into()),
    ("'hologram'", |page| page["panels"][1]["type"] = "hologram".into()),
    ("'furlong' is no unit", |page| page["panels"][1]["fieldConfig"]["defaults"]["unit"] = "furlong".into()),
];

async fn read(files: &[PathBuf]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/dashboards.py");
    let output = program("THROUGHLINE_E2E_PYTHON").arg(script).args(files).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn exported(folder: &Path) -> Vec<PathBuf> {
    let pack = folder.join("pack");
    let ended = Launch::new(&["ops", "export", pack.to_str().unwrap()]).finish().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let mut files: Vec<_> = std::fs::read_dir(pack.join("grafana/dashboards"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    files.sort();
    files
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs Grafana's model for Python"]
async fn grafanas_model_knows_all_that_is_in_a_dashboard() {
    let folder = tempfile::tempdir().unwrap();
    let files = exported(folder.path()).await;
    assert_eq!(files.len(), 7, "{files:?}");
    assert_eq!(read(&files).await, "");

    // It does find what is wrong.
    let page: Value = serde_json::from_str(&std::fs::read_to_string(&files[0]).unwrap()).unwrap();
    let broken: Vec<_> =
        (0..BROKEN.len()).map(|number| folder.path().join(format!("{number}.json"))).collect();
    for ((_, breaks), path) in BROKEN.iter().zip(&broken) {
        let mut page = page.clone();
        breaks(&mut page);
        std::fs::write(path, page.to_string()).unwrap();
    }
    let said = read(&broken).await;
    for ((expected, _), path) in BROKEN.iter().zip(&broken) {
        let mut found = said.lines().filter(|line| line.starts_with(path.to_str().unwrap()));
        assert!(found.any(|line| line.contains(expected)), "{expected} in {said}");
    }
}
