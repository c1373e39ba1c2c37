//! `ENABLE_OBSERVABILITY`, `ENABLE_APM` and `OTEL_SDK_DISABLED`: everything off, or on again.

use super::{Env, Settings, shown, word};

/// A variable that switches everything, in the order in which they are asked: the first that says something decides.
const SWITCHES: [Switch; 3] = [
    Switch { name: "ENABLE_OBSERVABILITY", read: spoken, on: true },
    Switch { name: "ENABLE_APM", read: spoken, on: true },
    Switch { name: "OTEL_SDK_DISABLED", read: standard, on: false },
];

struct Switch {
    name: &'static str,
    read: fn(&str) -> Option<bool>,
    /// What it says when telemetry is on.
    on: bool,
}

// === impl Settings ===

impl Settings {
    pub(super) fn apply_switches(&mut self, env: Env<'_>) {
        for Switch { name, read, on } in SWITCHES {
            let Some(value) = env(name) else { continue };
            match read(&word(&value)) {
                Some(said) => {
                    self.enabled = said == on;
                    self.off_by = (!self.enabled).then(|| format!("{name}={said}"));
                    return;
                }
                None => {
                    self.warn(format!("{name} is `{}`, which is not true or false: ignored", shown(&value)));
                }
            }
        }
    }
}

/// The common ways to say it.
fn spoken(value: &str) -> Option<bool> {
    match value {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// The standard knows two words and forbids others to mean `true`.
fn standard(value: &str) -> Option<bool> {
    match value {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{applied, settings};
    use super::*;

    #[test]
    fn each_switch_turns_everything_off_in_every_spelling() {
        let off = ["false", "FALSE", "False", " false ", "0", "no", "No", "off"];
        for name in ["ENABLE_OBSERVABILITY", "ENABLE_APM"] {
            for value in off {
                let found = settings(&[(name, value)]);
                assert_eq!(found.off_by.as_deref(), Some(format!("{name}=false").as_str()), "{value}");
                assert!(!found.enabled && found.warnings.is_empty(), "{name}={value}");
            }
        }
        for value in ["true", "TRUE", "True", " true\t"] {
            let found = settings(&[("OTEL_SDK_DISABLED", value)]);
            assert_eq!(found.off_by.as_deref(), Some("OTEL_SDK_DISABLED=true"), "{value}");
            assert!(!found.enabled && found.warnings.is_empty(), "{value}");
        }
    }

    #[test]
    fn what_says_on_or_nothing_leaves_it_on() {
        for (name, values) in [
            ("ENABLE_OBSERVABILITY", ["true", "1", "YES", "on"]),
            ("ENABLE_APM", ["true", "1", "Yes", "ON"]),
            ("OTEL_SDK_DISABLED", ["false", "FALSE", " False ", "\tfalse"]),
        ] {
            for value in values {
                let found = settings(&[(name, value)]);
                assert!(found.enabled && found.off_by.is_none(), "{name}={value}");
                assert_eq!(found.warnings, [""; 0], "{name}={value}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_ignored_with_a_word() {
        for (name, value) in [
            ("ENABLE_OBSERVABILITY", "perhaps"),
            ("ENABLE_APM", "2"),
            ("OTEL_SDK_DISABLED", "1"),
            ("OTEL_SDK_DISABLED", "yes"),
            ("OTEL_SDK_DISABLED", "0"),
        ] {
            let found = settings(&[(name, value)]);
            assert!(found.enabled, "{name}={value}");
            assert_eq!(found.warnings, [format!("{name} is `{value}`, which is not true or false: ignored")]);
        }
    }

    #[test]
    fn the_first_that_can_be_read_decides() {
        for (variables, enabled) in [
            (&[("ENABLE_OBSERVABILITY", "true"), ("ENABLE_APM", "false")][..], true),
            (&[("ENABLE_OBSERVABILITY", "true"), ("OTEL_SDK_DISABLED", "true")], true),
            (&[("ENABLE_APM", "true"), ("OTEL_SDK_DISABLED", "true")], true),
            (&[("ENABLE_APM", "false"), ("OTEL_SDK_DISABLED", "false")], false),
            (&[("ENABLE_OBSERVABILITY", "perhaps"), ("ENABLE_APM", "false")], false),
            (&[("ENABLE_OBSERVABILITY", " "), ("OTEL_SDK_DISABLED", "true")], false),
        ] {
            assert_eq!(settings(variables).enabled, enabled, "{variables:?}");
        }
    }

    #[test]
    fn the_environment_wins_over_the_program_in_both_directions() {
        let off = || Settings { enabled: false, ..Settings::default() };
        assert!(!applied(off(), &[]).enabled);
        assert!(applied(off(), &[("ENABLE_OBSERVABILITY", "true")]).enabled);
        assert!(applied(off(), &[("OTEL_SDK_DISABLED", "false")]).enabled);
    }
}
