//! One heap for all threads, so that `max_bytes` of a cache is what it takes of the machine.
//!
//! glibc's allocator has an arena for each thread, and an arena keeps what was freed in it for the threads that use it. A
//! store of large values that several threads put takes far more than its bound then, and no more with one arena
//! ([ADR 31](../../docs/adr/0031-one-heap-for-all-threads.md)). How many arenas there are is read from the environment when
//! a program starts; so the gateway starts itself again, in the same process, with that said. Whoever has said something
//! of arenas is followed, and where it cannot be done, all goes on as it is.

use std::ffi::OsString;

/// What glibc reads.
const ARENAS: &str = "MALLOC_ARENA_MAX";
/// The other place where it can be said.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// Returns in a process with one arena, as far as that is possible. It must come before the first thread.
pub(crate) fn ensure() {
    if cfg!(all(target_os = "linux", target_env = "gnu")) && !is_said(|name| std::env::var_os(name)) {
        start_again();
    }
}

fn is_said(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let tunables = variable(TUNABLES).unwrap_or_default();
    variable(ARENAS).is_some() || tunables.to_string_lossy().contains("arena_max")
}

#[cfg(unix)]
fn start_again() {
    use std::os::unix::process::CommandExt as _;

    let Ok(program) = std::env::current_exe() else { return };
    let mut args = std::env::args_os();
    let mut command = std::process::Command::new(program);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    // It returns only when it has failed.
    let _ = command.args(args).env(ARENAS, "1").exec();
}

#[cfg(not(unix))]
fn start_again() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_says_of_arenas_is_followed() {
        let said = |name: &'static str, value: &'static str| {
            is_said(|asked| (asked == name).then(|| OsString::from(value)))
        };
        assert!(said(ARENAS, "4") && said(ARENAS, "") && said(TUNABLES, "glibc.malloc.arena_max=2"));
        assert!(!said("PATH", "/bin") && !said(TUNABLES, "glibc.malloc.tcache_count=0"));
    }
}
