//! The process as the system sees it: processor time, memory, file descriptors, threads.
//!
//! Read from `/proc` when somebody looks, and at no other time. Off Linux, and where `/proc` does not say, a family
//! is absent: zero would be a lie.

use super::family::Family;

static CPU: Family =
    Family::amount("process_cpu_seconds", "Processor time used, in seconds, by user and system", &[]);
static RESIDENT: Family =
    Family::gauge("process_resident_memory_bytes", "Memory that is held in RAM, in bytes", &[]);
static VIRTUAL: Family =
    Family::gauge("process_virtual_memory_bytes", "Address space that is mapped, in bytes", &[]);
static OPEN_FDS: Family = Family::gauge("process_open_fds", "Open file descriptors", &[]);
static MAX_FDS: Family = Family::gauge(
    "process_max_fds",
    "The most file descriptors that may be open; absent when that is not limited",
    &[],
);
static STARTED: Family = Family::level(
    "process_start_time_seconds",
    "When the process started, in seconds since the Unix epoch",
    &[],
);
static THREADS: Family = Family::gauge("process_threads", "Threads of the operating system", &[]);

pub(super) static FAMILIES: &[&Family] =
    &[&CPU, &RESIDENT, &VIRTUAL, &OPEN_FDS, &MAX_FDS, &STARTED, &THREADS];

#[cfg(target_os = "linux")]
pub(super) use linux::Process;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::sync::{Mutex, PoisonError};

    use rustix::process::{Resource, getrlimit};
    use rustix::time::{ClockId, clock_gettime};

    use super::super::registry::{Refresh, Registry};
    use super::{CPU, MAX_FDS, OPEN_FDS, RESIDENT, STARTED, THREADS, VIRTUAL};

    /// Fills the families of this process.
    #[derive(Debug, Default)]
    pub(in super::super) struct Process {
        /// The processor time that has been counted already, in seconds.
        counted: Mutex<f64>,
    }

    /// What `/proc/self/stat` says.
    #[derive(Debug, PartialEq)]
    struct Stat {
        threads: i64,
        /// In clock ticks since the system started.
        started: u64,
        virtual_bytes: i64,
        resident_pages: i64,
    }

    impl Process {
        fn cpu(&self, registry: &Registry) {
            let time = clock_gettime(ClockId::ProcessCPUTime);
            #[expect(clippy::cast_precision_loss, reason = "a double counts microseconds for two centuries")]
            let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            // Two scrapes at once may come here in the wrong order; an amount ignores what is negative.
            registry.amount(&CPU, &[]).add(seconds - *counted);
            *counted = counted.max(seconds);
        }
    }

    impl Refresh for Process {
        fn refresh(&self, registry: &Registry) {
            self.cpu(registry);
            let set = |family, value: i64| registry.gauge(family, &[]).set(value);
            if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
                set(&THREADS, stat.threads);
                set(&VIRTUAL, stat.virtual_bytes);
                let page = i64::try_from(rustix::param::page_size()).unwrap_or(i64::MAX);
                set(&RESIDENT, stat.resident_pages.saturating_mul(page));
                if let Some(booted) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time) {
                    #[expect(clippy::cast_precision_loss, reason = "a date in seconds fits a double")]
                    let since_boot = stat.started as f64 / rustix::param::clock_ticks_per_second() as f64;
                    registry.level(&STARTED, &[]).set(booted + since_boot);
                }
            }
            if let Ok(open) = fs::read_dir("/proc/self/fd") {
                // One of them reads the list.
                set(&OPEN_FDS, i64::try_from(open.count()).unwrap_or(i64::MAX).saturating_sub(1));
            }
            if let Some(most) = getrlimit(Resource::Nofile).current {
                set(&MAX_FDS, i64::try_from(most).unwrap_or(i64::MAX));
            }
        }
    }

    impl Stat {
        /// Reads the fields 20, 22, 23 and 24 of proc(5). The second one, the program's name, may hold anything.
        fn parse(text: &str) -> Option<Self> {
            let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
            // The first field behind the name is the third.
            let threads = fields.nth(17)?.parse().ok()?;
            let started = fields.nth(1)?.parse().ok()?;
            let virtual_bytes = fields.next()?.parse().ok()?;
            let resident_pages = fields.next()?.parse().ok()?;
            Some(Self { threads, started, virtual_bytes, resident_pages })
        }
    }

    /// When the system started, in seconds since the epoch.
    fn boot_time(stat: &str) -> Option<f64> {
        stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::telemetry::{Scrape, Telemetry};

        #[test]
        fn reads_the_fields_behind_a_name_with_spaces_and_brackets() {
            let text =
                "7 (a ) b) S 1 7 7 0 -1 4194560 5 6 7 8 11 12 13 14 20 0 33 0 4242 987654 321 1844 1 1";
            let expected = Stat { threads: 33, started: 4242, virtual_bytes: 987_654, resident_pages: 321 };
            assert_eq!(Stat::parse(text), Some(expected));
            for cut in ["", "7 (a", "7 (a) S 1 7"] {
                assert_eq!(Stat::parse(cut), None, "{cut}");
            }
            assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
        }

        #[test]
        fn every_scrape_shows_the_process_as_it_is_then() {
            let telemetry = Telemetry::builder().without_endpoint().local().init();
            let scrape = || Scrape::parse(&telemetry.sink().render());
            let value =
                |scrape: &Scrape, name: &str| scrape.sum(name, &[]).unwrap_or_else(|| panic!("no {name}"));
            let first = scrape();
            assert!(value(&first, "process_resident_memory_bytes") > 1e6);
            assert!(
                value(&first, "process_virtual_memory_bytes")
                    >= value(&first, "process_resident_memory_bytes")
            );
            assert!(value(&first, "process_threads") >= 1.0);
            assert!(value(&first, "process_max_fds") >= value(&first, "process_open_fds"));
            assert!(value(&first, "process_start_time_seconds") > 1.6e9);

            let files: Vec<_> = (0..500).map(|_| fs::File::open("/dev/null").unwrap()).collect();
            let work: u64 =
                (0..2_000_000_u64).fold(1, |sum, n| std::hint::black_box(sum ^ n.wrapping_mul(sum | 1)));
            let second = scrape();
            let more = value(&second, "process_open_fds") - value(&first, "process_open_fds");
            assert!(more > 300.0, "{more} more after opening {} ({work})", files.len());
            let (before, after) =
                (value(&first, "process_cpu_seconds_total"), value(&second, "process_cpu_seconds_total"));
            assert!(0.0 < before && before < after, "{before} {after}");
            let begun = "process_start_time_seconds";
            assert_eq!(value(&first, begun), value(&second, begun), "a process starts once");
        }
    }
}
