//! Where lines go: standard error, or a file that may be rotated, full, gone, or a pipe that nobody reads.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use throughline::telemetry::Clock;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Standard error.
    Stderr,
    /// A file that is appended to.
    File(PathBuf),
}

/// A target that is written to.
#[derive(Debug)]
pub(super) struct Output {
    target: Target,
    open: Option<Open>,
    clock: Clock,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Device and number of the file, by which it is seen whether another one stands at its path.
    identity: Option<(u64, u64)>,
    /// Whether the last line was written in part.
    torn: bool,
}

/// What became of some lines.
#[derive(Debug)]
pub(super) struct Written {
    /// How many bytes were taken, of whole lines and of the one that was torn.
    pub(super) bytes: usize,
    /// Why not all, in words for health.
    pub(super) failed: Option<String>,
}

/// How long a reader that is slow is waited for, with every line behind it.
const SLOW: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(5);

// === impl Output ===

impl Output {
    pub(super) fn new(target: Target) -> Self {
        Self { target, open: None, clock: Clock::Monotonic }
    }

    /// Whether it could be written to, as far as can be seen without writing.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn probe(&mut self) -> Result<(), String> {
        self.ready().map(drop).map_err(|error| self.reason(&error))
    }

    /// Opens the target anew before the next line.
    pub(super) fn reopen(&mut self) {
        self.open = None;
    }

    /// Writes whole lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> Written {
        let clock = self.clock;
        let mut bytes = 0;
        let result = self.ready().and_then(|open| open.write(lines, &mut bytes, clock));
        let failed = result.err().map(|error| self.reason(&error));
        Written { bytes, failed }
    }

    /// The open target: opened if it is not, or if another file or none stands at its path.
    fn ready(&mut self) -> io::Result<&mut Open> {
        let stale = match (&self.target, &self.open) {
            (Target::File(path), Some(open)) => open.identity != identity(path),
            (_, open) => open.is_none(),
        };
        if stale {
            self.open = None;
            self.open = Some(Open::new(&self.target)?);
        }
        Ok(self.open.as_mut().expect("it was opened above"))
    }

    fn reason(&self, error: &io::Error) -> String {
        let target = match &self.target {
            Target::Stderr => "standard error".to_owned(),
            Target::File(path) => format!("the log file {}", path.display()),
        };
        format!("{target} cannot be written to: {}; lines are lost until it can", words(error))
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|file| (file.dev(), file.ino()))
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "its directory does not exist".to_owned(),
        ErrorKind::PermissionDenied => "permission denied to the user that this runs as".to_owned(),
        ErrorKind::IsADirectory => "it is a directory, name a file in it".to_owned(),
        ErrorKind::StorageFull => "no space is left on its device".to_owned(),
        ErrorKind::QuotaExceeded => "the disk quota is used up".to_owned(),
        ErrorKind::FileTooLarge => "it is as large as the limit on file sizes allows, rotate it".to_owned(),
        ErrorKind::ReadOnlyFilesystem => "its file system is read-only".to_owned(),
        ErrorKind::BrokenPipe => "nobody reads it any more".to_owned(),
        ErrorKind::WouldBlock => "its reader takes nothing".to_owned(),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            "it is a pipe that nobody reads".to_owned()
        }
        _ => error.to_string(),
    }
}

// === impl Open ===

impl Open {
    fn new(target: &Target) -> io::Result<Self> {
        let file = match target {
            // Not by `std::io::stderr`, whose lock would be held by a write that hangs.
            Target::Stderr => File::from(io::stderr().as_fd().try_clone_to_owned()?),
            Target::File(path) => {
                // Not to wait for somebody to read a pipe.
                let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
                OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)?
            }
        };
        let identity = file.metadata().ok().map(|file| (file.dev(), file.ino()));
        Ok(Self { file, identity, torn: false })
    }

    /// Writes `lines`, the number of bytes that were taken into `done`.
    fn write(&mut self, lines: &[u8], done: &mut usize, clock: Clock) -> io::Result<()> {
        if self.torn {
            // What is left of a line must not spoil the next one.
            self.send(b"\n", &mut 0, clock)?;
            self.torn = false;
        }
        let result = self.send(lines, done, clock);
        self.torn = *done > 0 && lines[*done - 1] != b'\n';
        result
    }

    fn send(&mut self, bytes: &[u8], done: &mut usize, clock: Clock) -> io::Result<()> {
        let began = clock.now();
        while *done < bytes.len() {
            match self.file.write(&bytes[*done..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => *done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && clock.now().since(began) < SLOW => {
                    pause();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread that writes runs nothing else")]
fn pause() {
    std::thread::sleep(PAUSE);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    fn written(output: &mut Output, lines: &str) -> (usize, Option<String>) {
        let Written { bytes, failed } = output.write(lines.as_bytes());
        (bytes, failed)
    }

    fn fails(output: &mut Output) -> String {
        let (bytes, failed) = written(output, "lost\n");
        assert_eq!(bytes, 0);
        failed.unwrap()
    }

    #[test]
    fn appends_to_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, "old\n").unwrap();
        let mut output = Output::new(Target::File(path.clone()));
        assert_eq!(written(&mut output, "new\n"), (4, None));
        assert_eq!(fs::read_to_string(path).unwrap(), "old\nnew\n");
    }

    #[test]
    fn a_file_that_was_rotated_away_or_removed_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut output = Output::new(Target::File(path.clone()));
        written(&mut output, "one\n");
        fs::rename(&path, dir.path().join("a.log.1")).unwrap();
        written(&mut output, "two\n");
        assert_eq!(fs::read_to_string(dir.path().join("a.log.1")).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        fs::remove_file(&path).unwrap();
        written(&mut output, "three\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_directory_that_vanishes_is_said_and_one_that_comes_back_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("logs");
        fs::create_dir(&inner).unwrap();
        let mut output = Output::new(Target::File(inner.join("a.log")));
        written(&mut output, "one\n");
        fs::remove_dir_all(&inner).unwrap();
        assert!(fails(&mut output).contains("a.log cannot be written to: its directory does not exist; "));
        fs::create_dir(&inner).unwrap();
        assert_eq!(written(&mut output, "two\n"), (4, None));
    }

    #[test]
    fn says_what_is_wrong_with_a_target() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::new(Target::File(dir.path().to_owned()));
        assert!(fails(&mut output).contains("it is a directory, name a file in it"));
        let mut output = Output::new(Target::File("/dev/full".into()));
        assert!(output.probe().is_ok());
        assert!(fails(&mut output).contains("no space is left on its device"));
        for (kind, said) in [
            (ErrorKind::PermissionDenied, "permission denied to the user that this runs as"),
            (ErrorKind::BrokenPipe, "nobody reads it any more"),
            (ErrorKind::TimedOut, "timed out"),
        ] {
            assert_eq!(words(&kind.into()), said);
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_or_that_is_full_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let mut output = Output::new(Target::File(path.clone()));
        assert!(fails(&mut output).contains("it is a pipe that nobody reads"));
        let reader = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&path)
            .unwrap();
        let much = "a line\n".repeat(100_000);
        let (bytes, failed) = written(&mut output, &much);
        assert!((1..much.len()).contains(&bytes) && failed.unwrap().contains("its reader takes nothing"));
        drop(reader);
        assert!(fails(&mut output).contains("nobody reads it any more"));
    }

    #[test]
    fn a_line_that_was_torn_does_not_spoil_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut open = Open::new(&Target::File(path.clone())).unwrap();
        open.write(b"whole\nto", &mut 0, Clock::Monotonic).unwrap();
        open.write(b"next\n", &mut 0, Clock::Monotonic).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "whole\nto\nnext\n");
    }
}
