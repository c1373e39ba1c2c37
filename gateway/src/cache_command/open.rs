//! What a command is about: stores that it reaches itself, or a running gateway.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;

use super::Ended;
use super::args::Where;
use super::remote::{Remote, TOKEN};
use super::target::Target;
use crate::config::{Config, unknown};
use crate::config_file::DEFAULT;
use crate::logs::{complain, visible};

/// How long a gateway of this machine may take to accept a connection.
const ACCEPT: Duration = Duration::from_secs(2);

/// Who does what a command is to do.
pub(super) enum Through {
    /// The command itself, on the stores of the configuration.
    Stores(Box<Config>),
    /// A running gateway.
    Gateway(Box<Remote>),
}

impl From<Remote> for Through {
    fn from(remote: Remote) -> Self {
        Self::Gateway(Box::new(remote))
    }
}

/// Finds out who is to do it: the gateway that is named, else the configuration's own if it has `[admin]` and runs, else the
/// command.
///
/// # Errors
/// Everything that is wrong with the configuration or the arguments.
pub(super) async fn through(args: &Where) -> Result<Through, Ended> {
    let path = args.config.as_deref().unwrap_or(Path::new(DEFAULT));
    if let Some(url) = &args.gateway {
        let has_token = args.token.is_some() || std::env::var_os(TOKEN).is_some();
        let needed = args.config.is_some() || (!has_token && path.exists());
        let config = needed.then(|| load(path)).transpose()?;
        let admin = config.as_ref().and_then(|config| config.admin.as_ref());
        return Remote::new(url, args.token.as_deref(), admin).map(Into::into).map_err(Ended::Refused);
    }
    let config = load(path)?;
    if let Some(admin) = config.admin.as_ref().filter(|admin| admin.listen.port() != 0) {
        if is_there(admin.listen).await? {
            let url = format!("http://{}", admin.listen);
            let remote = Remote::new(&url, args.token.as_deref(), Some(admin)).map_err(Ended::Refused)?;
            return Ok(remote.into());
        }
        if config.stores.is_empty() {
            let problem = format!(
                "no gateway answers at {}, and what it held in its memory has ended with it: is it another address, by \
                 --gateway?",
                admin.listen
            );
            return Err(Ended::Failed(problem));
        }
        complain(&format!("no gateway answers at {}: the stores are reached directly", admin.listen));
    }
    check(&config, args, path)?;
    Ok(Through::Stores(Box::new(config)))
}

/// Whether a gateway accepts connections there.
///
/// # Errors
/// When that cannot be told: one that runs would keep in its memory what is taken out of the stores behind its back.
async fn is_there(listen: SocketAddr) -> Result<bool, Ended> {
    let why = match tokio::time::timeout(ACCEPT, TcpStream::connect(listen)).await {
        Ok(Ok(_)) => return Ok(true),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return Ok(false),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it has accepted no connection for {ACCEPT:?}"),
    };
    Err(Ended::Failed(format!(
        "cannot tell whether a gateway runs at {listen}: {why}. Nothing was done; end it, or try again"
    )))
}

fn load(path: &Path) -> Result<Config, Ended> {
    let config = Config::load(path, &|name| std::env::var(name).ok());
    config.map_err(|errors| Ended::Refused(errors.to_string()))
}

/// Whether the stores that are asked for can be reached without a gateway.
fn check(config: &Config, args: &Where, path: &Path) -> Result<(), Ended> {
    let known: Vec<_> = config.stores.keys().map(String::as_str).collect();
    if config.stores.is_empty() {
        let problem = format!(
            "{}: there is no store in it: answers are kept in the gateway's memory, and end with it. To reach it there, give \
             the gateway an [admin] table",
            path.display()
        );
        return Err(Ended::Refused(problem));
    }
    let Some(stranger) = args.store.iter().find(|name| !config.stores.contains_key(*name)) else {
        return Ok(());
    };
    Err(Ended::Refused(unknown_store(stranger, &known)))
}

/// Says that there is no such store.
pub(crate) fn unknown_store(found: &str, known: &[&str]) -> String {
    unknown("store", found, "configured", known.iter().copied())
}

/// The stores that a command is about.
pub(super) fn chosen(config: &Config, args: &Where) -> Vec<Target> {
    let chosen = |name: &String| args.store.is_empty() || args.store.contains(name);
    let stores = config.stores.iter().filter(|(name, _)| chosen(name));
    stores.map(|(name, store)| Target::outside(name, store, config)).collect()
}

/// What a store said, with its name.
pub(super) fn failed(store: &str, error: &throughline::Error) -> String {
    let message = error.to_string();
    let hint = if message.starts_with("another process has ") {
        "; stop the gateway that has it, and start it again afterwards, or give it an [admin] table: then it does this itself"
    } else {
        ""
    };
    format!("store {store}: {}{hint}", visible(&message))
}

/// All failures of a command as its end.
pub(super) fn ended(failures: &[String]) -> Result<(), Ended> {
    if failures.is_empty() { Ok(()) } else { Err(Ended::Failed(failures.join("\n"))) }
}
