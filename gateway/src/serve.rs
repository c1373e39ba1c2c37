//! Starts a gateway from a configuration, and stops it: what `serve` and `demo` have in common.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use throughline::telemetry::{Telemetry, TelemetryBuilder};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::admin;
use crate::cli::Listen;
use crate::config::Config;
use crate::config_file;
use crate::gateway::Gateway;
use crate::logs::Logs;
use crate::maturity::Watch;
use crate::reload::{self, Source};
use crate::served::Served;
use crate::server::Server;
use crate::workflows::Workflows;

/// How long stores may take to write what they hold, and telemetry to deliver what it holds.
const FLUSH: Duration = Duration::from_secs(5);

/// The configuration of the demonstration, which is also served when there is no other.
const BUILT_IN: &str = include_str!("demo/demo.toml");

/// A gateway that serves.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What it serves.
    pub(crate) gateway: Arc<Gateway>,
    /// Where operators are served, if they are.
    pub(crate) admin: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    /// Ends what operators have under way when it is dropped.
    _operators: JoinSet<()>,
}

/// The file that is read when `file` is named or not.
pub(crate) fn source(file: Option<&Path>) -> Source {
    Source::new(config_file::find(file).map(Path::to_owned))
}

/// Reads `file`, or the built-in configuration, to be served on `listen`.
///
/// # Errors
/// Everything that is wrong with it, to be shown as it is.
pub(crate) fn configuration(file: Option<&Path>, listen: &Listen) -> Result<Config, String> {
    let env = |name: &str| std::env::var(name).ok();
    match file {
        Some(path) => on(listen, Config::load(path, &env).map_err(|errors| errors.to_string())?),
        None => built_in(listen),
    }
}

/// The configuration of the demonstration, to be served on `listen`.
///
/// # Errors
/// When it may not be served there.
pub(crate) fn built_in(listen: &Listen) -> Result<Config, String> {
    on(listen, Config::parse(BUILT_IN, "demo.toml", &|_| None).map_err(|errors| errors.to_string())?)
}

/// The command line and the environment win over the file, except that they cannot let other machines in.
fn on(listen: &Listen, mut config: Config) -> Result<Config, String> {
    if let Some(address) = listen.listen {
        config.server.listen_on(address)?;
    }
    if let Some(address) = telemetry(&config, listen).metrics_address() {
        config.telemetry.permits(address)?;
    }
    Ok(config)
}

/// Starts telemetry and serves the models.
///
/// # Errors
/// When the address is taken.
pub(crate) async fn start(
    config: &Config,
    built: Workflows,
    listen: &Listen,
    logs: &Logs,
) -> Result<Running, String> {
    let address = config.server.listen;
    let telemetry = telemetry(config, listen).runtime(tokio::runtime::Handle::current()).init();
    telemetry.sink().registry().into_iter().for_each(|registry| logs.counts_in(registry));
    logs.listen_for_signals();
    let log = logs.clone();
    telemetry.also_ask(move || log.degraded().into_iter().collect());
    if let Some(path) = &config.maturity {
        let components = Watch::start(path, telemetry.sink());
        telemetry.also_ask(move || components.problem().into_iter().collect());
    }
    let gateway = Arc::new(Gateway::new(Served::new(config, built, address), telemetry, logs.clone()));
    // What telemetry asks must not keep it alive.
    let asked = Arc::downgrade(&gateway);
    gateway
        .telemetry
        .also_ask(move || asked.upgrade().map(|gateway| gateway.served().degraded()).unwrap_or_default());
    let server = Server::bind(&config.server, Arc::clone(&gateway))
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; choose another with --listen"))?;
    let address = server.address().map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let mut operators = JoinSet::new();
    let admin = match &config.admin {
        Some(wanted) => Some(admin(wanted.listen, &gateway, &mut operators).await?),
        None => None,
    };
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(server.run(async {
        // A dropped sender says stop as well.
        let _ = stopped.await;
    }));
    Ok(Running { address, gateway, admin, stop, server, _operators: operators })
}

/// Serves operators at `address`, and says where that is.
async fn admin(
    address: SocketAddr,
    gateway: &Arc<Gateway>,
    operators: &mut JoinSet<()>,
) -> Result<SocketAddr, String> {
    let failed = |error: std::io::Error| {
        format!("cannot listen on {address} for operators: {error}; choose another `listen` in [admin]")
    };
    let server = admin::Server::bind(address).await.map_err(failed)?;
    let address = server.address().map_err(failed)?;
    operators.spawn(server.run(Arc::clone(gateway)));
    Ok(address)
}

fn telemetry(config: &Config, listen: &Listen) -> TelemetryBuilder {
    let mut builder = Telemetry::builder()
        .service_name(&config.telemetry.service_name)
        .service_version(env!("CARGO_PKG_VERSION"))
        .metrics_listen(config.telemetry.metrics_listen)
        .endpoint_security(config.telemetry.security.clone())
        .keep_errors(config.telemetry.keep_errors);
    if let Some(limit) = config.telemetry.keep_slower_than {
        builder = builder.keep_slower_than(limit);
    }
    builder = builder.from_env();
    if let Some(address) = listen.metrics_listen {
        builder = builder.metrics_listen(address);
    }
    builder
}

/// `throughline serve`: runs until it is told to stop.
///
/// # Errors
/// What kept it from starting.
pub(crate) async fn serve(
    source: Source,
    config: Config,
    built: Workflows,
    listen: &Listen,
    logs: &Logs,
) -> Result<(), String> {
    let mut running = start(&config, built, listen, logs).await?;
    let metrics = running.gateway.telemetry.metrics_address();
    tracing::info!(
        address = %running.address,
        metrics = metrics.map(tracing::field::display),
        models = running.gateway.served().models.len(),
        "the gateway serves"
    );
    if source.path.is_none() {
        warn_of_demonstration(&config);
    }
    let encrypts = config.telemetry.security.encrypts();
    reload::start(source, listen.clone(), config, &running.gateway);
    let scheme = if encrypts { "https" } else { "http" };
    let metrics = metrics.map_or("off".to_owned(), |address| format!("{scheme}://{address}/metrics"));
    // A standard output that nobody reads is no reason not to serve.
    let admin = running.admin.map(|address| format!("\nadmin http://{address}")).unwrap_or_default();
    let _ = writeln!(std::io::stdout(), "gateway http://{}\nmetrics {metrics}{admin}", running.address);
    tokio::select! {
        () = stop_signal() => {}
        _ = &mut running.server => return Err("the server has stopped by a fault of the program".to_owned()),
    }
    tracing::info!("stopping: requests in flight may finish");
    running.stop().await;
    Ok(())
}

/// Whoever began without a configuration learns what answers, and how to have their own models served.
fn warn_of_demonstration(config: &Config) {
    let models: Vec<_> = config.models.keys().map(String::as_str).collect();
    tracing::warn!(
        "no configuration was found: there is no throughline.toml in this folder, so a demonstration is served (model {}), \
         whose answers are made up. To serve your own, write throughline.toml or name a file by --config, and start again: \
         `throughline serve --help` shows one to begin with",
        models.join(", ")
    );
}

/// Completes at Ctrl-C or SIGTERM.
pub(crate) async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(signal) => signal,
        Err(error) => {
            tracing::warn!(error = %error, "SIGTERM cannot be caught");
            return wait_for_ctrl_c().await;
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        () = wait_for_ctrl_c() => {}
    }
}

async fn wait_for_ctrl_c() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

// === impl Running ===

impl Running {
    /// Lets requests in flight finish, delivers telemetry and returns.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        if self.server.await.is_err() {
            tracing::error!("the server stopped by a panic");
        }
        let served = self.gateway.served();
        let stores = served.parts.stores.values().map(|store| store.made.flush());
        // A disk that hangs holds nobody up for longer.
        let _ = tokio::time::timeout(FLUSH, join_all(stores)).await;
        self.gateway.telemetry.shutdown(FLUSH).await;
    }
}
