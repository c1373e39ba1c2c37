//! A program that runs in the background, in a process group of its own, and ends with this value.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::interrupt::Interrupt;
use crate::failure::Failure;

/// How long a program may take to end by itself once it was asked to.
const GRACE: Duration = Duration::from_secs(40);
/// How much of a log is shown of a program that failed.
const SHOWN: u64 = 2000;

/// A running program. Dropping it stops it, and whatever it has started.
#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// A port of loopback on which nobody listens now.
///
/// # Errors
/// When there is none.
pub(crate) fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener
        .map(|address| address.port())
        .map_err(|error| Failure::missing(format!("there is no free port on 127.0.0.1: {error}")))
}

// === impl Service ===

impl Service {
    /// Starts `command`; all that it says goes to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(name: &'static str, command: &mut Command, log: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::missing(format!("cannot start {name}: {error}"));
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let out = File::create(log).map_err(failed)?;
        let err = out.try_clone().map_err(failed)?;
        // A group of its own: Ctrl-C in a terminal reaches us alone, and we stop things in their order.
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let child = command.spawn().map_err(failed)?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    /// Waits until `ready` has an answer.
    ///
    /// # Errors
    /// When the program ends, or is not ready within `patience`; with the end of its log.
    pub(crate) fn wait<T>(
        &mut self,
        interrupt: &Interrupt,
        patience: Duration,
        mut ready: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, Failure> {
        let answer = interrupt.poll(patience, || {
            let answer = ready(self);
            match self.child.try_wait() {
                Ok(Some(status)) if answer.is_none() => Err(self.failure(&format!("ended with {status}"))),
                _ => Ok(answer),
            }
        })?;
        answer.ok_or_else(|| self.failure(&format!("was not ready within {} s", patience.as_secs())))
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not within `patience`, or not well; with the end of its log.
    pub(crate) fn finish(mut self, interrupt: &Interrupt, patience: Duration) -> Result<String, Failure> {
        match interrupt.poll(patience, || Ok(self.ended()))? {
            Some(status) if status.success() => Ok(self.said()),
            Some(status) => Err(self.failure(&format!("ended with {status}"))),
            None => Err(self.failure(&format!("did not end within {} s", patience.as_secs()))),
        }
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        fs::read(&self.log).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// Asks it to end, waits, and ends it if it does not.
    pub(crate) fn stop(self) {
        drop(self);
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Tells it, and whatever it has started.
    pub(crate) fn signal(&self, signal: Signal) {
        let group = Pid::from_raw(self.child.id().cast_signed());
        // It fails only when the group has gone, which is what is wanted.
        let _gone = group.map(|group| kill_process_group(group, signal));
    }

    fn failure(&self, what: &str) -> Failure {
        let name = self.name;
        Failure::missing(format!(
            "{name} {what}; its log, {}, ends with\n{}",
            self.log.display(),
            self.tail()
        ))
    }

    fn tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(SHOWN)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("(cannot be read: {error})"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        // Not the run's own interrupt: that it was asked to end is no reason to leave programs behind.
        let ended = Interrupt::default().poll(GRACE, || Ok(self.ended()));
        // What it had started may have outlived it.
        self.signal(Signal::KILL);
        if !matches!(ended, Ok(Some(_))) {
            let _gone = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, log: &Path) -> Service {
        Service::start("the shell", Command::new("sh").args(["-c", script]), log).unwrap()
    }

    fn log(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("xtask-service-{}-{name}.log", std::process::id()))
    }

    #[test]
    fn waits_for_what_it_says_and_stops_its_children_with_it() {
        let log = log("waits");
        let mut service = shell("sleep 600 & echo child $!; wait", &log);
        let said = |service: &Service| service.said().strip_prefix("child ").map(|pid| pid.trim().to_owned());
        let child =
            service.wait(&Interrupt::default(), Duration::from_secs(30), |service| said(service)).unwrap();
        service.stop();
        let gone = Interrupt::default().poll(Duration::from_secs(30), || {
            let state = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            Ok((state.is_empty() || state.contains(") Z ")).then_some(()))
        });
        assert_eq!(gone.unwrap(), Some(()));
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn says_how_a_program_ended_and_what_it_said_last() {
        let log = log("says");
        let mut service = shell("echo no such option; exit 3", &log);
        let failure =
            service.wait(&Interrupt::default(), Duration::from_secs(30), |_| None::<()>).unwrap_err();
        let failure = failure.to_string();
        assert!(failure.starts_with("the shell ended with exit status: 3"), "{failure}");
        assert!(failure.ends_with("no such option\n"), "{failure}");
        fs::remove_file(log).unwrap();
    }
}
