//! Why a command ended, and the exit code that says so.

use std::fmt;
use std::process::ExitCode;

/// The end of a command that did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// Something that was checked does not hold.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// This machine lacks something, so nothing was checked.
    pub(crate) fn missing(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 2 }
    }

    /// A program that was run ended badly; its exit code becomes ours.
    pub(crate) fn ended(what: &str, code: Option<i32>) -> Self {
        let message = match code {
            Some(code) => format!("{what} ended with exit code {code}"),
            None => format!("{what} was ended by a signal"),
        };
        Self { message, code: code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1) }
    }

    /// The same end, told as that of a step.
    pub(crate) fn in_step(self, step: &str) -> Self {
        Self { message: format!("step `{step}` failed: {}", self.message), ..self }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
