//! Who may read the endpoint, as it is declared.
//!
//! What stands in files is read when it is declared, so that a mistake is found at the start, and read again
//! whenever the files change.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};

use super::basic::Users;
use super::bearer::Tokens;
use super::files::Files;
use crate::ConfigError;
use crate::telemetry::TelemetryBuilder;

/// Who may read metrics and health, and over what. Anyone on this machine, unless something is added.
///
/// Whoever shows a bearer token or a user's password is let in. Other machines are let in only where one of them, or
/// a client's certificate, is asked for.
///
/// ```
/// use throughline::telemetry::{EndpointSecurity, Telemetry};
///
/// # fn main() -> Result<(), throughline::ConfigError> {
/// # let token = "0123456789abcdef0123";
/// let security = EndpointSecurity::new().bearer_token(token)?;
/// let telemetry =
///     Telemetry::builder().metrics_listen(([127, 0, 0, 1], 0).into()).endpoint_security(security).init();
/// # drop(telemetry);
/// let refusal = EndpointSecurity::new().bearer_token("hunter2").unwrap_err();
/// assert!(refusal.to_string().contains("at least 16"));
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct EndpointSecurity {
    sources: Sources,
    rules: Arc<Rules>,
    /// What the rules were read from.
    files: Arc<Files>,
}

/// Where the rules come from.
#[derive(Clone, Default)]
pub(super) struct Sources {
    tokens: Tokens,
    token_files: Vec<PathBuf>,
    users: Vec<(String, String)>,
    #[cfg(feature = "web-config")]
    web_config: Option<PathBuf>,
}

/// The rules as they are now.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) tokens: Tokens,
    pub(super) users: Arc<Users>,
    /// Whether nobody gets as far as a request without a certificate that was checked.
    pub(super) client_certificates: bool,
    /// Sent with every answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// What is written and does nothing here.
    pub(super) without_effect: Vec<String>,
    #[cfg(feature = "web-config")]
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
}

// === impl EndpointSecurity ===

impl EndpointSecurity {
    /// Anyone on this machine may read.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets in whoever sends `Authorization: Bearer` with this token; may be repeated. Only a digest is kept.
    ///
    /// # Errors
    /// When the token is shorter than 16 characters or holds some that no header can carry.
    pub fn bearer_token(mut self, token: &str) -> Result<Self, ConfigError> {
        self.sources.tokens.add(token)?;
        self.checked()
    }

    /// As [`EndpointSecurity::bearer_token`], with the token in a file, which is read again when it changes.
    ///
    /// # Errors
    /// When the file cannot be read, and as for a token.
    pub fn bearer_token_file(mut self, path: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        self.sources.token_files.push(path.into());
        self.checked()
    }

    /// Lets in whoever sends this name and the password that `hash` is bcrypt's hash of; may be repeated.
    ///
    /// # Errors
    /// When the hash is none, or its cost is above 14: each check would take a second of a processor and more.
    pub fn basic_user(
        mut self,
        name: impl Into<String>,
        hash: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        self.sources.users.push((name.into(), hash.into()));
        self.checked()
    }

    /// Does what a file in the format of Prometheus' `web.config.file` says: TLS, clients' certificates, users,
    /// headers. The file and those that it names are read again when they change.
    ///
    /// # Errors
    /// When a file cannot be read, holds something wrong, or a key that is not supported.
    #[cfg(feature = "web-config")]
    pub fn web_config_file(mut self, path: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        self.sources.web_config = Some(path.into());
        self.checked()
    }

    /// Whether clients have to show who they are.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        self.rules.authenticate()
    }

    /// Whether what is sent is encrypted.
    #[must_use]
    pub fn encrypts(&self) -> bool {
        self.rules.encrypt()
    }

    /// Whether the endpoint may be at `address`.
    ///
    /// # Errors
    /// When other machines reach it and need not show who they are.
    pub fn permits(&self, address: SocketAddr) -> Result<(), ConfigError> {
        if !is_public(address) || self.authenticates() {
            return Ok(());
        }
        Err(ConfigError::new(format!(
            "metrics are not served on {address}, where other machines could read them without showing who they are: \
             use a loopback address such as 127.0.0.1, or ask for a bearer token, a password or a client certificate"
        )))
    }

    pub(super) fn into_parts(self) -> (Sources, Arc<Rules>, Arc<Files>) {
        (self.sources, self.rules, self.files)
    }

    fn checked(mut self) -> Result<Self, ConfigError> {
        let (rules, files) = self.sources.load();
        (self.rules, self.files) = (Arc::new(rules?), Arc::new(files));
        Ok(self)
    }
}

impl fmt::Debug for EndpointSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointSecurity")
            .field("authenticates", &self.authenticates())
            .field("encrypts", &self.encrypts())
            .finish_non_exhaustive()
    }
}

pub(super) fn is_public(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

// === impl TelemetryBuilder ===

impl TelemetryBuilder {
    /// Who may read the endpoint. Default: anyone on this machine. Needs the feature `endpoint`.
    pub fn endpoint_security(mut self, security: EndpointSecurity) -> Self {
        self.settings.security = security;
        self
    }
}

// === impl Sources ===

impl Sources {
    /// Reads everything, and says what was read.
    pub(super) fn load(&self) -> (Result<Rules, ConfigError>, Files) {
        let mut files = Files::default();
        (self.read(&mut files), files)
    }

    fn read(&self, files: &mut Files) -> Result<Rules, ConfigError> {
        let mut rules = Rules { tokens: self.tokens.clone(), ..Rules::default() };
        for path in &self.token_files {
            let token =
                files.read_text(path).map_err(|why| ConfigError::new(format!("a bearer token: {why}")))?;
            rules
                .tokens
                .add(&token)
                .map_err(|why| ConfigError::new(format!("`{}`: {why}", path.display())))?;
        }
        let users = self.users.iter().cloned().chain(self.read_web_config(&mut rules, files)?);
        rules.users = Arc::new(Users::new(users)?);
        Ok(rules)
    }

    /// Takes over what the file says, and gives its users.
    #[cfg(feature = "web-config")]
    fn read_web_config(
        &self,
        rules: &mut Rules,
        files: &mut Files,
    ) -> Result<Vec<(String, String)>, ConfigError> {
        let Some(path) = &self.web_config else { return Ok(Vec::new()) };
        let read = web_config(path, rules, files).and_then(|users| {
            // Checked by themselves first, so that a mistake is known to be this file's.
            Users::new(users.clone()).map_err(|why| why.to_string())?;
            Ok(users)
        });
        read.map_err(|why| ConfigError::new(format!("{}: {why}", path.display())))
    }

    #[cfg(not(feature = "web-config"))]
    fn read_web_config(&self, _: &mut Rules, _: &mut Files) -> Result<Vec<(String, String)>, ConfigError> {
        Ok(Vec::new())
    }
}

/// Takes over what a file says; the users are for the caller.
#[cfg(feature = "web-config")]
fn web_config(
    path: &std::path::Path,
    rules: &mut Rules,
    files: &mut Files,
) -> Result<Vec<(String, String)>, String> {
    use super::web_config::{Clients, WebConfig};
    let text = files.read_text(path)?;
    let config = WebConfig::parse(&text, path.parent().unwrap_or(std::path::Path::new("")))?;
    if let Some(section) = &config.tls {
        rules.tls = Some(super::tls::server_config(section, files)?);
        rules.client_certificates = section.clients == Clients::Verified;
    }
    rules.headers = config.headers;
    let notes = config.without_effect.iter().map(|key| format!("{}: {key}", path.display()));
    rules.without_effect.extend(notes);
    Ok(config.users)
}

// === impl Rules ===

impl Rules {
    pub(super) fn authenticate(&self) -> bool {
        self.client_certificates || self.ask_for_secrets()
    }

    /// Whether a request has to carry something.
    pub(super) fn ask_for_secrets(&self) -> bool {
        !self.tokens.is_empty() || !self.users.is_empty()
    }

    pub(super) fn encrypt(&self) -> bool {
        #[cfg(feature = "web-config")]
        return self.tls.is_some();
        #[cfg(not(feature = "web-config"))]
        return false;
    }
}
