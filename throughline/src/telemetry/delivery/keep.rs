//! Which traces are kept although the sampler declined them: known only when they end.

use std::time::Duration;

use super::variables::Variables;

/// What makes a trace worth keeping after the fact. Off unless something is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::telemetry) struct Keep {
    /// A span that ended as an error. Default: no.
    pub(in crate::telemetry) errors: bool,
    /// A root that took longer. Default: however long.
    pub(in crate::telemetry) slower_than: Option<Duration>,
}

const ERRORS: &str = "THROUGHLINE_KEEP_ERRORS";
const SLOWER: &str = "THROUGHLINE_KEEP_SLOWER_THAN";

// === impl Keep ===

impl Keep {
    /// Whether anything is asked for.
    pub(in crate::telemetry) fn any(self) -> bool {
        self.errors || self.slower_than.is_some()
    }

    pub(super) fn apply(&mut self, variables: &mut Variables<'_>) {
        variables.truth(ERRORS, &mut self.errors);
        let Some(value) = variables.get(SLOWER) else { return };
        match value.parse() {
            Ok(millis) if millis > 0 => self.slower_than = Some(Duration::from_millis(millis)),
            _ => variables.warn(format!("{SLOWER} is not a number of milliseconds above 0: ignored")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Keep, Vec<String>) {
        let env =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let (mut keep, mut warnings) = (Keep::default(), Vec::new());
        keep.apply(&mut Variables::new(&env, &mut warnings));
        (keep, warnings)
    }

    #[test]
    fn nothing_is_kept_unless_asked_for() {
        assert_eq!(read(&[]), (Keep { errors: false, slower_than: None }, Vec::new()));
        let (keep, _) = read(&[(ERRORS, "true"), (SLOWER, "1500")]);
        assert_eq!(keep, Keep { errors: true, slower_than: Some(Duration::from_millis(1500)) });
        assert!(keep.any());
        let (keep, warnings) = read(&[(SLOWER, "2s")]);
        assert!(!keep.any());
        assert_eq!(warnings, [format!("{SLOWER} is not a number of milliseconds above 0: ignored")]);
    }
}
