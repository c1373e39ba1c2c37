//! Dates as reports and people write them, and as they are shown.

use std::time::{Duration, SystemTime};

use toml::value::{Datetime, Offset};

/// The length of a day.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The date of today, with its time.
#[expect(clippy::disallowed_methods, reason = "evidence has dates, and so must its evaluation")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// The moment that a date with or without a time means. Without an offset it is taken for UTC.
pub(crate) fn moment(text: &str) -> Option<SystemTime> {
    let written: Datetime = text.trim().parse().ok()?;
    of(&written)
}

/// The moment that a TOML date means.
pub(crate) fn of(written: &Datetime) -> Option<SystemTime> {
    let date = written.date?;
    let (hour, minute, second) =
        written.time.map_or((0, 0, 0), |time| (time.hour, time.minute, time.second.unwrap_or(0)));
    let utc =
        format!("{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", date.year, date.month, date.day);
    let utc = humantime::parse_rfc3339(&utc).ok()?;
    match written.offset {
        Some(Offset::Custom { minutes }) => {
            let offset = Duration::from_secs(60 * u64::from(minutes.unsigned_abs()));
            if minutes < 0 { utc.checked_add(offset) } else { utc.checked_sub(offset) }
        }
        _ => Some(utc),
    }
}

/// To the second, in UTC. What lies outside of the years 1970 to 9999 is shown as their bounds.
pub(crate) fn shown(moment: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(moment.clamp(SystemTime::UNIX_EPOCH, last)).to_string()
}

/// The day of it, in UTC.
pub(crate) fn day(moment: SystemTime) -> String {
    shown(moment)[..10].to_owned()
}

/// Seconds since 1970.
pub(crate) fn seconds(moment: SystemTime) -> u64 {
    moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// An age in words: whole days, or hours on the first day.
pub(crate) fn age(age: Duration) -> String {
    let hours = age.as_secs() / 3600;
    match (hours / 24, hours) {
        (0, 0) => "less than an hour".to_owned(),
        (0, hours) => format!("{hours} h"),
        (1, _) => "1 day".to_owned(),
        (days, _) => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_dates_of_nextest_pytest_and_people() {
        for (text, expected) in [
            ("2026-11-27", "2026-11-27T00:00:00Z"),
            ("2026-11-27T06:00:00Z", "2026-11-27T06:00:00Z"),
            ("2026-11-27T06:00:00.123+00:00", "2026-11-27T06:00:00Z"),
            ("2026-11-27T06:00:00.123456", "2026-11-27T06:00:00Z"),
            ("2026-11-27T06:00:00+01:30", "2026-11-27T04:30:00Z"),
            ("2026-11-27T22:00:00-03:00", "2026-11-28T01:00:00Z"),
        ] {
            assert_eq!(moment(text).map(shown).as_deref(), Some(expected), "{text}");
        }
        for wrong in ["", "yesterday", "06:00:00", "2026-13-01", "2026-02-30", "27.11.2026", "1969-01-01"] {
            assert_eq!(moment(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tells_ages_in_days_or_hours() {
        for (seconds, expected) in
            [(59, "less than an hour"), (7200, "2 h"), (86_400, "1 day"), (86_400 * 9, "9 days")]
        {
            assert_eq!(age(Duration::from_secs(seconds)), expected);
        }
    }
}
