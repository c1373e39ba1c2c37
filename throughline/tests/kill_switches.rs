//! Telemetry switched off and on again in one process: what is said, what listens, what is counted.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use throughline::telemetry::{Scrape, Status, Telemetry};
use throughline::{Context, Result, TimeoutConfig, workflow};

const OFF: [(&str, &str); 7] = [
    ("ENABLE_OBSERVABILITY", "false"),
    ("ENABLE_OBSERVABILITY", " FALSE "),
    ("ENABLE_OBSERVABILITY", "0"),
    ("ENABLE_APM", "no"),
    ("ENABLE_APM", "Off"),
    ("OTEL_SDK_DISABLED", "true"),
    ("OTEL_SDK_DISABLED", "True"),
];

/// What this thread logs while it is alive.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The lines that `work` logs.
    fn of<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let done = tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        (done, text.lines().map(str::to_owned).collect())
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn start(address: SocketAddr, variables: &[(&str, &str)]) -> Telemetry {
    let env =
        |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Telemetry::builder().metrics_listen(address).local().from_variables(env).init()
}

#[test]
fn every_switch_is_one_line_in_the_log_and_no_listener() {
    for (name, value) in OFF {
        let address = free();
        // What is off need not be set up well.
        let variables = [(name, value), ("OTEL_PROPAGATORS", "b3"), ("OTEL_CONFIG_FILE", "otel.yaml")];
        let (telemetry, lines) = Log::of(|| start(address, &variables));
        assert_eq!((telemetry.status(), telemetry.metrics_address()), (Status::Disabled, None), "{name}");
        assert_eq!(lines.len(), 1, "{name}={value}: {lines:?}");
        assert!(lines[0].contains("observability is off") && lines[0].contains(name), "{}", lines[0]);
        assert!(TcpStream::connect(address).is_err(), "{name}={value}: something listens");
    }
}

#[test]
fn a_switch_that_cannot_be_read_leaves_it_on_and_is_said_once() {
    for (name, value) in
        [("ENABLE_OBSERVABILITY", "perhaps"), ("ENABLE_APM", "falsch"), ("OTEL_SDK_DISABLED", "1")]
    {
        let address = free();
        let (telemetry, lines) = Log::of(|| start(address, &[(name, value)]));
        assert_eq!(telemetry.status(), Status::Enabled);
        let said: Vec<_> = lines.iter().filter(|line| line.contains("which is not true or false")).collect();
        assert_eq!(said.len(), 1, "{lines:?}");
        assert!(said[0].contains("WARN") && said[0].contains(name) && said[0].contains(value), "{}", said[0]);
        assert!(TcpStream::connect(address).is_ok(), "{name}={value}: nothing listens");
    }
}

/// What the page at `address` says of runs that the timeout `guard` let through.
fn served(address: SocketAddr) -> Option<f64> {
    use std::io::Read;
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    let page = page.split_once("\r\n\r\n").unwrap().1;
    Scrape::parse(page).sum("timeout_successes_total", &[("operation", "guard")])
}

#[tokio::test]
async fn it_goes_on_off_and_on_again_at_the_same_address_for_what_was_built_before() {
    let flow = workflow("double", async |n: u64| Result::Ok(n * 2))
        .timeout(TimeoutConfig::new("guard", Duration::from_secs(60)).unwrap());
    let address = free();
    let mut counted = Vec::new();
    for switch in ["true", "false", "true", "true"] {
        let telemetry = start(address, &[("ENABLE_OBSERVABILITY", switch)]);
        let cx = Context::builder().sink(telemetry.sink()).build();
        for n in 0..3 {
            assert_eq!(flow.run(n, &cx).await.unwrap(), n * 2, "whatever the switch says");
        }
        counted.push(served(address));
        telemetry.shutdown(Duration::from_secs(5)).await;
        assert!(TcpStream::connect(address).is_err(), "it listens after its end");
    }
    assert_eq!(counted, [Some(3.0), None, Some(3.0), Some(3.0)], "each instance counts from the start");
}
