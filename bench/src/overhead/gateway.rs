//! A gateway in a process of its own, and the processor time that it has used.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::cpu;

/// A gateway that runs. Dropping it kills it.
pub(super) struct Gateway {
    address: SocketAddr,
    process: Child,
    _folder: tempfile::TempDir,
}

// === impl Gateway ===

impl Gateway {
    /// Starts the program that was built beside this one, by `launcher` if one is given.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) async fn start(
        name: &str,
        config: &str,
        environment: &[(&str, String)],
        launcher: &[String],
    ) -> Result<Self, String> {
        let said = |error: std::io::Error| format!("the gateway `{name}` does not start: {error}");
        let program = std::env::current_exe().map_err(said)?.with_file_name("throughline");
        let folder = tempfile::tempdir().map_err(said)?;
        let file = folder.path().join("throughline.toml");
        std::fs::write(&file, config).map_err(said)?;
        let mut command = match launcher {
            [] => Command::new(program),
            [launcher, options @ ..] => {
                let mut command = Command::new(launcher);
                command.args(options).arg(program);
                command
            }
        };
        command.args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--config"]);
        command.arg(&file).env_clear().env("THROUGHLINE_LOG", "warn").envs(environment.iter().cloned());
        // A launcher is looked for where this program would.
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().map_err(said)?;
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let first = lines.next_line().await.map_err(said)?.unwrap_or_default();
        let address = first.strip_prefix("gateway http://").and_then(|address| address.parse().ok());
        let address =
            address.ok_or_else(|| format!("the gateway `{name}` does not start: it said `{first}`"))?;
        // Its second line must find a reader.
        lines.next_line().await.map_err(said)?;
        Ok(Self { address, process, _folder: folder })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which process it is.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn pid(&self) -> Result<u32, String> {
        self.process.id().ok_or_else(|| "the gateway has ended".to_owned())
    }

    /// The processor time of all its threads so far.
    ///
    /// # Errors
    /// When it has ended, or this is no Linux.
    pub(super) fn processor_seconds(&self) -> Result<f64, String> {
        cpu::of_process(self.pid()?)
    }
}
