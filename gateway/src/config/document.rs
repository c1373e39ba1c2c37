//! From a TOML file to what it means, or to all that is wrong with it.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::check::Check;
use super::error::{ConfigErrors, Problem};
use super::marks::Marks;
use super::source::Source;
use super::{read, syntax};

/// The longest file, in bytes.
const LONGEST: u64 = 1024 * 1024;

/// Reads a file that looks like `F` and means what `meaning` makes of it. Variables that it refers to are asked
/// from `env`.
///
/// # Errors
/// All that is wrong with the file.
pub(crate) fn load<F: DeserializeOwned, T>(
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    meaning: impl FnOnce(F, &mut Check<'_>) -> T,
) -> Result<T, ConfigErrors> {
    let name = path.display().to_string();
    let bytes = read::at_most(LONGEST, path).map_err(|why| ConfigErrors::unreadable(&name, &why))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, &name, env, meaning),
        Err(error) => {
            let at = error.valid_up_to();
            let message = format!("byte 0x{:02x} is not utf-8: save the file as utf-8", bytes[at]);
            let problem = Problem { at: Some(at..at + 1), message };
            let text = String::from_utf8_lossy(&bytes);
            Err(ConfigErrors::new(&name, &Source::new(&text), vec![problem]))
        }
    }
}

/// Reads a text. `name` stands for it in errors, and is the path that files it names are looked for beside.
///
/// # Errors
/// All that is wrong with the text.
pub(crate) fn parse<F: DeserializeOwned, T>(
    text: &str,
    name: &str,
    env: &dyn Fn(&str) -> Option<String>,
    meaning: impl FnOnce(F, &mut Check<'_>) -> T,
) -> Result<T, ConfigErrors> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut source = Source::new(text);
    let file: F = match toml::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            let problem = syntax::problem(&error, &mut source);
            return Err(ConfigErrors::new(name, &source, vec![problem]));
        }
    };
    let mut check = Check::new(env, Path::new(name).parent().unwrap_or(Path::new("")));
    check.marks = Marks::of(toml::from_str(text).unwrap_or_default());
    let meant = meaning(file, &mut check);
    let problems = check.into_problems();
    if problems.is_empty() { Ok(meant) } else { Err(ConfigErrors::new(name, &source, problems)) }
}
