//! A redis-server of a test's own, on a free port of this machine, in a directory of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long a server may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that runs. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    args: Vec<String>,
    directory: TempDir,
    /// What it was told in a file.
    files: Option<TempDir>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

/// An address that nobody listens on.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    listener.local_addr().expect("it has an address")
}

// === impl Server ===

impl Server {
    /// A server with these options beside the port.
    pub(crate) async fn start(args: &[&str]) -> Self {
        Self::start_at(free_address(), args).await
    }

    /// As [`Server::start`], on this address.
    pub(crate) async fn start_at(address: SocketAddr, args: &[&str]) -> Self {
        let port = address.port().to_string();
        Self::launch(address, [&["--port", &port], args].concat()).await
    }

    /// A server that speaks TLS only, with this certificate and key.
    pub(crate) async fn start_tls(certificate: &str, key: &str) -> Self {
        let (address, files) = (free_address(), tempfile::tempdir().expect("a directory can be made"));
        let file = |name: &str, content: &str| {
            std::fs::write(files.path().join(name), content).expect("the directory can be written to");
            files.path().join(name).display().to_string()
        };
        let (certificate, key) = (file("cert.pem", certificate), file("key.pem", key));
        let port = address.port().to_string();
        let args = ["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"];
        let files =
            ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &certificate];
        // The server reads the files before it listens.
        Self::launch(address, [&args[..], &files[..]].concat()).await
    }

    /// A sentinel that watches the server at `master` under the name `cache`, as one of three.
    pub(crate) async fn start_sentinel(master: SocketAddr) -> Self {
        let (address, files) = (free_address(), tempfile::tempdir().expect("a directory can be made"));
        let file = files.path().join("sentinel.conf");
        let (host, port) = (master.ip(), master.port());
        let content = format!(
            "sentinel monitor cache {host} {port} 2\nsentinel down-after-milliseconds cache 500\n\
             sentinel failover-timeout cache 2000\n"
        );
        std::fs::write(&file, content).expect("the directory can be written to");
        let (file, port) = (file.display().to_string(), address.port().to_string());
        let mut sentinel = Self::launch(address, vec![&file, "--sentinel", "--port", &port]).await;
        // It writes to its file as long as it runs.
        sentinel.files = Some(files);
        sentinel
    }

    async fn launch(address: SocketAddr, args: Vec<&str>) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let args: Vec<String> = args.into_iter().map(ToOwned::to_owned).collect();
        let mut server =
            Self { child: spawn(&args, directory.path()), args, directory, files: None, address };
        server.listens().await;
        server
    }

    /// Completes once it takes connections.
    async fn listens(&mut self) {
        let waiting = async {
            while TcpStream::connect(self.address).await.is_err() {
                let gone = self.child.try_wait().expect("its state can be asked");
                assert!(gone.is_none(), "redis-server did not start: {gone:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("redis-server listens");
    }

    /// Its address as a store's.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Starts it again after [`Server::kill`], without what it held.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.args, self.directory.path());
        self.listens().await;
    }

    /// Has it do nothing at all, while its connections stay.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Server::freeze`].
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).expect("it runs");
        kill_process(Pid::from_raw(id).expect("a process has an id"), signal).expect("it can be signalled");
    }
}

fn spawn(args: &[String], directory: &Path) -> Child {
    let program = std::env::var_os("THROUGHLINE_E2E_REDIS").unwrap_or_else(|| "redis-server".into());
    let mut command = Command::new(program);
    // A file comes first.
    command.args(args).args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.current_dir(directory).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server can be started")
}
