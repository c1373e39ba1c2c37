//! Processor time: what a call costs, whatever else the machine does.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The processor time that this thread has used.
pub(crate) fn of_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// The processor time that all threads of a process have used, in seconds.
///
/// # Errors
/// When it has ended, or this is no Linux.
pub(crate) fn of_process(pid: u32) -> Result<f64, String> {
    let folder = format!("/proc/{pid}/task");
    let failed = |error: std::io::Error| format!("{folder}: {error}");
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(&folder).map_err(failed)? {
        let file = thread.map_err(failed)?.path().join("schedstat");
        // A thread may have ended meanwhile.
        let Ok(line) = std::fs::read_to_string(&file) else { continue };
        let first = line.split(' ').next().and_then(|number| number.parse::<u64>().ok());
        nanoseconds += first.ok_or_else(|| format!("{} is not understood", file.display()))?;
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// The middle of `values`, if there are any, which are in order afterwards.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
