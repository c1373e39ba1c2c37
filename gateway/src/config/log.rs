//! `[log]`: what is logged, how it looks, and where it goes.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::check::Check;
use crate::logs::{Format, Level, Limit};

/// What is logged, how it looks, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    /// The least important lines that are written. Default: info, or warn where `ENVIRONMENT` is production.
    pub(crate) level: Option<Level>,
    /// How lines look. Default: text on a terminal, JSON elsewhere.
    pub(crate) format: Option<Format>,
    /// The file that lines are appended to. Default: standard error.
    pub(crate) file: Option<PathBuf>,
    /// Whether every request gets a line. Default: false.
    pub(crate) access: bool,
    /// How many lines that say the same are written in which time. Default: 10 in 10 s.
    pub(crate) repeats: Limit,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct LogFile {
    level: Option<Spanned<String>>,
    format: Option<Spanned<String>>,
    file: Option<Spanned<String>>,
    #[serde(default)]
    access: bool,
    max_repeats: Option<Spanned<i64>>,
    repeat_interval: Option<Spanned<Value>>,
}

// === impl LogFile ===

impl LogFile {
    /// Checks the section.
    pub(super) fn check(self, check: &mut Check<'_>) -> Log {
        let dir = check.dir;
        let lines = check.whole("max_repeats", self.max_repeats.as_ref(), 1..=1_000_000, 10_u32);
        Log {
            level: self.level.and_then(|level| {
                check.known("level", &level, "levels", Level::NAMES);
                Level::named(level.get_ref())
            }),
            format: self.format.and_then(|format| {
                check.known("format", &format, "formats", ["json", "text"]);
                Format::named(format.get_ref())
            }),
            file: self.file.map(|file| dir.join(check.text("file", file))),
            access: self.access,
            repeats: Limit {
                lines: NonZeroU32::new(lines).unwrap_or(NonZeroU32::MIN),
                interval: check.timeout(
                    "repeat_interval",
                    self.repeat_interval.as_ref(),
                    Duration::from_secs(10),
                ),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{accepted, refused};

    #[test]
    fn all_keys_have_defaults() {
        let repeats = Limit { lines: NonZeroU32::new(10).unwrap(), interval: Duration::from_secs(10) };
        assert_eq!(accepted("").log, Log { level: None, format: None, file: None, access: false, repeats });
    }

    #[test]
    fn all_keys_are_read() {
        let config = accepted(
            "[log]\nlevel = \"debug\"\nformat = \"text\"\nfile = \"/var/log/t.log\"\naccess = true\n\
             max_repeats = 3\nrepeat_interval = \"1m\"\n",
        );
        let repeats = Limit { lines: NonZeroU32::new(3).unwrap(), interval: Duration::from_secs(60) };
        let file = Some("/var/log/t.log".into());
        let (level, format) = (Some(Level::Debug), Some(Format::Text));
        assert_eq!(config.log, Log { level, format, file, access: true, repeats });
    }

    #[test]
    fn a_level_or_a_format_that_is_none_is_refused() {
        assert_eq!(
            refused("[log]\nlevel = \"warning\"\n"),
            "t.toml:2:9: unknown level `warning` (levels: off, error, warn, info, debug, trace)\n    \
             2 | level = \"warning\"\n      |         ^^^^^^^^^"
        );
        assert_eq!(
            refused("[log]\nformat = \"jsn\"\n"),
            "t.toml:2:10: unknown format `jsn`, did you mean `json`? (formats: json, text)\n    \
             2 | format = \"jsn\"\n      |          ^^^^^"
        );
    }

    #[test]
    fn numbers_out_of_bounds_and_no_file_are_refused() {
        assert!(refused("[log]\nmax_repeats = 0\n").contains("`max_repeats` is 0: write 1 to 1000000"));
        assert!(refused("[log]\nrepeat_interval = \"0s\"\n").contains("write 1ms to 24h"));
        assert!(refused("[log]\nfile = \"\"\n").contains("`file` is empty: write some text"));
    }
}
