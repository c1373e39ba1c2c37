//! Everything that runs, in the order in which it is started, and what can be broken about it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::export::{Addresses, Pack};
use super::gateway::{self, Around, Gateway, JUNIT, README, Setup};
use super::inbox::Inbox;
use super::prometheus::{self, Api, Place, Prometheus};
use super::provider::{Mood, Provider};
use super::traffic::Traffic;
use crate::e2e::http::{self, Peer};
use crate::e2e::interrupt::Interrupt;
use crate::e2e::service::{Service, free_port};
use crate::failure::Failure;
use crate::needs::Monitoring;

const PATIENCE: Duration = Duration::from_secs(60);

/// The programs, all of them running.
pub(crate) struct Stand {
    pub(crate) interrupt: Interrupt,
    pub(crate) pack: Pack,
    pub(crate) addresses: Addresses,
    pub(crate) api: Api,
    pub(crate) inbox: Inbox,
    pub(crate) setup: Setup,
    pub(crate) traffic: Option<Traffic>,
    pub(crate) cheap: Provider,
    pub(crate) premium: Provider,
    pub(crate) plain: Provider,
    /// Whoever takes the spans.
    pub(crate) collector: Peer,
    /// The files of the pack that the programs read.
    fast: PathBuf,
    squatter: Option<Peer>,
    gateway: Option<Gateway>,
    _prometheus: Service,
    _alertmanager: Service,
    redis: Service,
}

// === impl Stand ===

impl Stand {
    /// Starts everything but the traffic.
    ///
    /// # Errors
    /// When a program does not start.
    pub(crate) fn start(
        program: &Path,
        needs: &Monitoring,
        folder: &Path,
        interrupt: Interrupt,
    ) -> Result<Self, Failure> {
        empty(folder)?;
        let pack = Pack::export(program, folder.join("pack"))?;
        let (cheap, premium, plain) =
            (Provider::start(false)?, Provider::start(true)?, Provider::start(false)?);
        let collector = Peer::start(|_, stream| http::respond(stream, 200, "application/x-protobuf", b""));
        let collector = collector.map_err(|error| {
            Failure::missing(format!("cannot start a receiver of spans on 127.0.0.1: {error}"))
        })?;
        let inbox = Inbox::open()?;
        let redis_port = free_port()?;
        let redis = redis(&needs.redis, redis_port, folder, &interrupt)?;
        let around = Around {
            cheap: &cheap.base_url(),
            premium: &premium.base_url(),
            plain: &plain.base_url(),
            redis_port,
        };
        let collector_url = format!("http://{}", collector.address());
        let setup = Setup::write(program, &folder.join("gateway"), collector_url, &around)?;
        let gateway = setup.start(&interrupt)?;
        let fast = folder.join("fast");
        let prometheus_place = Place::of("prometheus", folder, fast.join("prometheus/prometheus.yml"))?;
        let alertmanager_place =
            Place::of("alertmanager", folder, fast.join("alertmanager/alertmanager.yml"))?;
        let addresses = Addresses {
            gateway: setup.port,
            metrics: setup.metrics_port,
            prometheus: prometheus_place.port,
            alertmanager: alertmanager_place.port,
            redis: redis_port,
            webhook: inbox.address.port(),
        };
        pack.hasten(&fast, &addresses)?;
        let alertmanager = prometheus::alertmanager(&needs.alertmanager, &alertmanager_place, &interrupt)?;
        let prometheus = Prometheus::start(&needs.prometheus, &prometheus_place, &interrupt)?;
        Ok(Self {
            interrupt,
            pack,
            addresses,
            api: prometheus.api.clone(),
            inbox,
            setup,
            traffic: None,
            cheap,
            premium,
            plain,
            collector,
            fast,
            squatter: None,
            gateway: Some(gateway),
            _prometheus: prometheus.service,
            _alertmanager: alertmanager,
            redis,
        })
    }

    pub(crate) fn start_traffic(&mut self) {
        self.traffic = Some(Traffic::start(&self.setup.url()));
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// When the run is to end.
    pub(crate) fn pass(&self, time: Duration) -> Result<(), Failure> {
        self.interrupt.poll(time, || Ok(None::<()>)).map(drop)
    }

    pub(crate) fn stop_redis(&self) {
        self.redis.signal(Signal::STOP);
    }

    pub(crate) fn continue_redis(&self) {
        self.redis.signal(Signal::CONT);
    }

    pub(crate) fn stop_gateway(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop();
        }
    }

    /// # Errors
    /// When it does not start.
    pub(crate) fn start_gateway(&mut self) -> Result<(), Failure> {
        self.gateway = Some(self.setup.start(&self.interrupt)?);
        Ok(())
    }

    /// Somebody else's exporter sits on the metrics port when the gateway starts again.
    ///
    /// # Errors
    /// When the port cannot be taken, or the gateway does not start.
    pub(crate) fn take_metrics_port(&mut self) -> Result<(), Failure> {
        self.stop_gateway();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.setup.metrics_port));
        let exporter = |_: &http::Request, stream: &mut std::net::TcpStream| {
            http::respond(stream, 200, "text/plain; version=0.0.4", b"somebody_elses 1\n")
        };
        let squatter = Peer::start_at(address, exporter)
            .map_err(|error| Failure::missing(format!("cannot take {address}: {error}")))?;
        self.squatter = Some(squatter);
        self.start_gateway()
    }

    /// # Errors
    /// When the gateway does not start.
    pub(crate) fn free_metrics_port(&mut self) -> Result<(), Failure> {
        self.stop_gateway();
        self.squatter = None;
        self.start_gateway()
    }

    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn promote(&self, promoted: bool) -> Result<(), Failure> {
        // A report is young: it counts from when it was written.
        self.setup.put("junit.xml", JUNIT)?;
        let text = if promoted { gateway::promoted() } else { gateway::not_promoted().to_owned() };
        self.setup.put("maturity.toml", &text)
    }

    /// A component claims the next stage and does not pass its gates: a document is gone, and tests cover less. Or it claims
    /// what it is.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn neglect(&self, neglect: bool) -> Result<(), Failure> {
        self.setup.put("lcov.info", &gateway::lcov(if neglect { 3 } else { 9 }))?;
        self.setup.put("README.md", if neglect { "" } else { README })?;
        self.promote(neglect)
    }

    /// Prometheus is told of no gateway, or of this one again.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn forget_target(&self, forget: bool) -> Result<(), Failure> {
        let file = self.fast.join("prometheus/targets.yml");
        let known = format!("- targets: ['127.0.0.1:{}']\n", self.setup.metrics_port);
        fs::write(&file, if forget { "[]\n" } else { &known })
            .map_err(|error| Failure::missing(format!("cannot write {}: {error}", file.display())))
    }

    /// Starts the gateway anew with its configuration as `changed` has it.
    ///
    /// # Errors
    /// When the file cannot be written, or the gateway does not start.
    pub(crate) fn restart(&mut self, changed: impl FnOnce(String) -> String) -> Result<(), Failure> {
        self.stop_gateway();
        self.setup.write_config(&changed(self.config()))?;
        self.start_gateway()
    }

    /// Has the gateway read a configuration that is not good, or a good one again.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn reload(&self, good: bool) -> Result<(), Failure> {
        let text = self.config();
        let broken = text.replace("default_route = \"cheap\"", "default_route = \"chaep\"");
        self.setup.write_config(if good { &text } else { &broken })?;
        if let Some(gateway) = &self.gateway {
            gateway.reload();
        }
        Ok(())
    }

    fn config(&self) -> String {
        let around = Around {
            cheap: &self.cheap.base_url(),
            premium: &self.premium.base_url(),
            plain: &self.plain.base_url(),
            redis_port: self.addresses.redis,
        };
        gateway::config(&self.setup, &around)
    }

    /// No provider can be reached, or all of them can again.
    ///
    /// # Errors
    /// When the port of one was taken meanwhile.
    pub(crate) fn providers(&mut self, there: bool) -> Result<(), Failure> {
        for provider in [&mut self.cheap, &mut self.premium, &mut self.plain] {
            if there {
                provider.come()?;
            } else {
                provider.go();
            }
        }
        Ok(())
    }

    pub(crate) fn unlike(&self, unlike: bool) {
        if let Some(traffic) = &self.traffic {
            traffic.unlike(unlike);
        }
    }

    pub(crate) fn cheap_is(&self, mood: Mood) {
        self.cheap.is(mood);
    }
}

fn redis(program: &Path, port: u16, folder: &Path, interrupt: &Interrupt) -> Result<Service, Failure> {
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
    let mut service = Service::start("Redis", &mut command, &folder.join("logs/redis.log"))?;
    service.wait(interrupt, PATIENCE, |service| {
        service.said().contains("Ready to accept connections").then_some(())
    })?;
    Ok(service)
}

fn empty(folder: &Path) -> Result<(), Failure> {
    let emptied = match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(folder),
    };
    emptied.map_err(|error| Failure::missing(format!("cannot empty {}: {error}", folder.display())))
}
