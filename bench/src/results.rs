//! Results as a file that other programs read: `throughline-bench/1`.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use serde_json::json;

/// Writes results, less of which is better, with the date and the commit that they are of.
///
/// # Errors
/// When the file cannot be written, or nothing was measured that says what a user would find.
pub(crate) fn write(
    file: &Path,
    benchmark: &str,
    unit: &str,
    values: &[(String, f64)],
) -> Result<(), String> {
    if cfg!(debug_assertions) {
        return Err(format!("{} is not written: measure in a release build", file.display()));
    }
    if values.is_empty() {
        return Err("nothing was measured: is there a case or a group of that name?".to_owned());
    }
    let results: Vec<_> = values
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": (value * 10.0).round() / 10.0 }))
        .collect();
    #[expect(clippy::disallowed_methods, reason = "results have a date")]
    let measured = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let page = json!({
        "format": "throughline-bench/1",
        "benchmark": benchmark,
        "unit": unit,
        "commit": commit(),
        "measured": measured,
        "results": results,
    });
    let page = serde_json::to_string_pretty(&page).expect("texts and numbers serialise") + "\n";
    let written =
        file.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(file, page));
    written.map_err(|error| format!("cannot write {}: {error}", file.display()))
}

/// The commit of the working directory; without one the results are still results.
fn commit() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
