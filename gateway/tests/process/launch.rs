//! Starts the program, finds out where it listens, and stops it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use throughline::telemetry::Scrape;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::client::{self, Answer, HttpClient};
use super::{PATIENCE, until};

/// How the program is to be started: in a directory of its own, with no other environment than what is given.
pub(crate) struct Launch {
    directory: TempDir,
    command: Command,
}

/// A gateway that runs. Dropping it kills it.
pub(crate) struct Gateway {
    child: Child,
    stdout: Output,
    stderr: Output,
    client: HttpClient,
    /// Where it serves.
    pub(crate) address: SocketAddr,
    /// Where it serves metrics, if it does.
    pub(crate) metrics: Option<SocketAddr>,
    directory: TempDir,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What the program writes, as it comes.
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

// === impl Launch ===

impl Launch {
    /// The program with these arguments.
    pub(crate) fn new(args: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_throughline"));
        command.args(args).env_clear().current_dir(directory.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { directory, command }
    }

    /// `serve` with this configuration, on free ports.
    pub(crate) fn serve(config: &str) -> Self {
        Self::serve_with_metrics_on(SocketAddr::from(([127, 0, 0, 1], 0)), config)
    }

    /// `serve` with this configuration, on a free port and this address.
    pub(crate) fn serve_with_metrics_on(metrics: SocketAddr, config: &str) -> Self {
        Self::new(&["serve", "--config", "throughline.toml", "--listen", "127.0.0.1:0"])
            .args(&["--metrics-listen", &metrics.to_string()])
            .file("throughline.toml", config)
    }

    /// `demo` with these further arguments, on free ports.
    pub(crate) fn demo(args: &[&str]) -> Self {
        Self::new(&["demo", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]).args(args)
    }

    /// Adds arguments.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Puts a file into the directory that the program starts in.
    pub(crate) fn file(self, name: impl AsRef<Path>, content: &str) -> Self {
        std::fs::write(self.directory.path().join(name), content).expect("the directory can be written to");
        self
    }

    /// Lets it write no file beyond so many bytes, as a full disk does.
    pub(crate) fn with_largest_file(mut self, bytes: u64) -> Self {
        let script = format!("ulimit -f {}; trap '' XFSZ; exec \"$0\" \"$@\"", bytes / 512);
        let mut limited = Command::new("/bin/sh");
        limited.args(["-c", &script]).arg(self.command.as_std().get_program());
        limited.args(self.command.as_std().get_args()).env_clear().current_dir(self.directory.path());
        limited.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command = limited;
        self
    }

    /// Gives it another standard error than one that is read.
    pub(crate) fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.command.stderr(stderr);
        self
    }

    /// Starts it and waits until it says where it listens.
    pub(crate) async fn start(mut self) -> Gateway {
        let mut child = self.command.spawn().expect("the program can be started");
        let stdout = Output::of(child.stdout.take().expect("it is piped"));
        let mut stderr = child.stderr.take().map_or_else(Output::nothing, Output::of);
        let waiting = async || {
            let gone = child.try_wait().expect("its state can be asked").is_some();
            if gone {
                panic!("the gateway did not start: {}", stderr.whole().await);
            }
            addresses(&(stdout.text() + &stderr.text()))
        };
        let (address, metrics) = until("the addresses", waiting).await;
        let client = client::client();
        Gateway { child, stdout, stderr, client, address, metrics, directory: self.directory }
    }

    /// Runs it to its end.
    pub(crate) async fn finish(mut self) -> Finished {
        let output = tokio::time::timeout(PATIENCE, self.command.output()).await.expect("it ends by itself");
        let output = output.expect("the program can be started");
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("it writes UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("it writes UTF-8"),
        }
    }
}

/// What `gateway http://…` and `metrics …` say, once both have been said.
fn addresses(said: &str) -> Option<(SocketAddr, Option<SocketAddr>)> {
    let word = |name: &str| {
        let whole = said.rsplit_once('\n')?.0;
        whole.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')))
    };
    let address = |url: &str| url.split_once("://")?.1.split('/').next()?.parse().ok();
    Some((address(word("gateway")?)?, address(word("metrics")?)))
}

// === impl Gateway ===

impl Gateway {
    /// Sends `body` as a chat request.
    pub(crate) async fn ask(&self, body: impl ToString) -> Answer {
        self.send(Method::POST, "/v1/chat/completions", body.to_string()).await
    }

    /// Sends any request and reads the whole answer.
    pub(crate) async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        client::send(&self.client, client::request(method, self.address, path, body)).await
    }

    /// Sends a chat request with headers of its own.
    pub(crate) async fn ask_with(&self, headers: &[(&'static str, &str)], body: impl ToString) -> Answer {
        client::send(&self.client, self.chat_request(headers, &body)).await
    }

    /// Sends a chat request and returns the answer once its head is there.
    pub(crate) async fn open(&self, body: impl ToString) -> Response<Incoming> {
        client::open(&self.client, self.chat_request(&[], &body)).await
    }

    /// A chat request that has not been sent.
    pub(crate) fn chat_request(
        &self,
        headers: &[(&'static str, &str)],
        body: &impl ToString,
    ) -> Request<Full<Bytes>> {
        let mut request =
            client::request(Method::POST, self.address, "/v1/chat/completions", body.to_string());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("the tests send valid headers"));
        }
        request
    }

    /// What /metrics says.
    pub(crate) async fn scrape(&self) -> Scrape {
        let metrics = self.metrics.expect("metrics are served");
        let answer = client::send(&self.client, client::request(Method::GET, metrics, "/metrics", "")).await;
        Scrape::parse(str::from_utf8(&answer.body).expect("the page is UTF-8"))
    }

    /// The sum of the samples called `name` with `labels`, 0 when there is none.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.scrape().await.sum(name, labels).unwrap_or_default()
    }

    /// Waits until [`Gateway::metric`] is `value`.
    pub(crate) async fn settles(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        until(name, async || (self.metric(name, labels).await == value).then_some(())).await;
    }

    /// Puts a file into the directory that it was started in, whole from the first moment on.
    pub(crate) fn replace(&self, name: &str, content: &str) {
        let (path, new) = (self.directory.path().join(name), self.directory.path().join("new"));
        std::fs::write(&new, content).expect("the directory can be written to");
        std::fs::rename(new, path).expect("the directory can be written to");
    }

    /// Removes a file from that directory.
    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.directory.path().join(name)).expect("it is there");
    }

    /// Replaces its configuration and tells it so.
    pub(crate) fn reconfigure(&self, config: &str) {
        self.replace("throughline.toml", config);
        self.signal(Signal::HUP);
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it still runs")
    }

    /// Sends it SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("it still runs");
        kill_process(pid, signal).expect("it is ours to signal");
    }

    /// Tells it to stop and waits until it has.
    pub(crate) async fn stop(self) -> Finished {
        self.terminate();
        self.ended().await
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(mut self) -> Finished {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends");
        let code = status.expect("its state can be asked").code();
        Finished { code, stdout: self.stdout.whole().await, stderr: self.stderr.whole().await }
    }

    /// What it has written to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Waits until it has logged `text`: lines are written behind what they speak of.
    pub(crate) async fn says(&self, text: &str) {
        until(text, async || self.log().contains(text).then_some(())).await;
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.stderr.text()
    }
}

// === impl Output ===

impl Output {
    fn nothing() -> Self {
        Self::of(tokio::io::empty())
    }

    fn of(mut stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&text);
        let reading = tokio::spawn(async move {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut piece).await {
                written.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..count]);
            }
        });
        Self { text, reading }
    }

    fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }

    async fn whole(&mut self) -> String {
        (&mut self.reading).await.expect("reading does not panic");
        self.text()
    }
}
