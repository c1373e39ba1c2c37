//! Reads the standard's variables by their rules: what is empty is unset, and what cannot be honoured is a warning
//! and the default.

use std::time::Duration;

use super::super::settings::Env;

/// The environment, and what is to be said about it.
pub(super) struct Variables<'a> {
    env: Env<'a>,
    warnings: &'a mut Vec<String>,
}

// === impl Variables ===

impl<'a> Variables<'a> {
    /// `env` gives nothing for a variable that is empty.
    pub(super) fn new(env: Env<'a>, warnings: &'a mut Vec<String>) -> Self {
        Self { env, warnings }
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        (self.env)(name).map(|value| value.trim().to_owned())
    }

    /// The first of `names` that is set, and its value.
    pub(super) fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, String)> {
        names.iter().find_map(|name| Some((*name, self.get(name)?)))
    }

    /// A value that is one of a few words, which are read in either case.
    pub(super) fn word(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.to_ascii_lowercase())
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// The milliseconds of the first of `names` that is set.
    pub(super) fn millis(&mut self, names: &[&str], target: &mut Duration) {
        let Some((name, value)) = self.first(names) else { return };
        match value.parse() {
            Ok(millis) if millis > 0 => *target = Duration::from_millis(millis),
            _ => self.warn(format!(
                "{name} is not a number of milliseconds above 0: {} are used",
                target.as_millis()
            )),
        }
    }

    /// The count of the first of `names` that is set, at least `least`.
    pub(super) fn count(&mut self, names: &[&str], least: u32, target: &mut u32) {
        let Some((name, value)) = self.first(names) else { return };
        match value.parse() {
            Ok(count) if count >= least => *target = count,
            _ => self.warn(format!("{name} is not a whole number of at least {least}: {target} is used")),
        }
    }

    /// The standard's booleans: `true` in any case is true, and everything else is false.
    pub(super) fn truth(&mut self, name: &str, target: &mut bool) {
        let Some(value) = self.get(name) else { return };
        *target = value.eq_ignore_ascii_case("true");
        if !*target && !value.eq_ignore_ascii_case("false") {
            self.warn(format!("{name} is neither true nor false: it counts as false"));
        }
    }

    /// The words of a list with commas.
    pub(super) fn words(&self, name: &str) -> Option<Vec<String>> {
        let value = self.word(name)?;
        Some(value.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
    }
}

/// What of an unknown word is repeated in a message.
pub(super) fn shown(word: &str) -> String {
    word.chars().take(40).flat_map(char::escape_debug).collect()
}
