//! Prometheus' `web.config.file`: what of it is understood, and that the rest is refused by its name.
//!
//! The format is that of Prometheus' exporter-toolkit. No message repeats a value of the file, since what stands
//! in the wrong place may be a secret.

use std::path::{Path, PathBuf};

use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct WebConfig {
    pub(super) tls: Option<TlsSection>,
    /// Names and bcrypt hashes.
    pub(super) users: Vec<(String, String)>,
    /// Sent with every answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// What is accepted and has no effect here.
    pub(super) without_effect: Vec<&'static str>,
}

/// `tls_server_config`.
#[derive(Debug, Default)]
pub(super) struct TlsSection {
    pub(super) cert_file: PathBuf,
    pub(super) key_file: PathBuf,
    pub(super) clients: Clients,
    pub(super) client_ca_file: Option<PathBuf>,
    pub(super) client_allowed_sans: Vec<String>,
    pub(super) min_version: Version,
    pub(super) max_version: Version,
    /// All of the library's when empty.
    pub(super) cipher_suites: Vec<String>,
    /// All of the library's when empty, else in this order.
    pub(super) curves: Vec<String>,
    pub(super) client_order: bool,
}

/// `client_auth_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Clients {
    /// No certificate is asked for.
    #[default]
    Anyone,
    /// One that is shown must be good.
    VerifiedIfGiven,
    /// Only those with a good one.
    Verified,
}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Tls12,
    #[default]
    Tls13,
}

/// The headers that may be set, and which values they may have where that is fixed.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// A table of the file, of which each key is taken once; what is left is unknown.
struct Table {
    /// With a point at its end, unless it is the file itself.
    path: String,
    keys: Map<String, Value>,
    known: Vec<&'static str>,
}

// === impl WebConfig ===

impl WebConfig {
    /// Reads the text of a file. Paths in it are relative to `folder`.
    ///
    /// # Errors
    /// In words: what is wrong, and where.
    pub(super) fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        if text.lines().all(|line| matches!(line.trim().split('#').next(), Some("" | "---") | None)) {
            return Ok(Self::default());
        }
        let value: Value = serde_saphyr::from_str(text).map_err(|error| not_yaml(&error))?;
        let mut file = Table::new("", value)?;
        let mut config = Self::default();
        if let Some(mut section) = file.table("tls_server_config")? {
            config.tls = TlsSection::read(&mut section, folder)?;
            section.finish()?;
        }
        if let Some(mut section) = file.table("http_server_config")? {
            config.read_http(&mut section)?;
            section.finish()?;
        }
        if let Some(users) = file.table("basic_auth_users")? {
            config.users = users.texts()?;
        }
        file.finish()?;
        Ok(config)
    }

    fn read_http(&mut self, section: &mut Table) -> Result<(), String> {
        if section.flag("http2")? == Some(true) {
            self.without_effect.push("http_server_config.http2: this endpoint speaks HTTP/1.1 only");
        }
        let Some(headers) = section.table("headers")? else { return Ok(()) };
        for (name, value) in headers.texts()? {
            let allowed = HEADERS.iter().find(|(header, _)| *header == name);
            let Some((header, values)) = allowed else {
                let allowed = HEADERS.map(|(header, _)| header).join(", ");
                return Err(format!(
                    "http_server_config.headers: `{}` cannot be set (allowed: {allowed})",
                    name.escape_debug()
                ));
            };
            if !values.is_empty() && !values.contains(&value.as_str()) {
                let values = values.join(", ");
                return Err(format!("http_server_config.headers.{header} must be one of {values}"));
            }
            let value = HeaderValue::try_from(value).map_err(|_| {
                format!("http_server_config.headers.{header} holds characters that no header can carry")
            })?;
            let name = HeaderName::try_from(*header).expect("the list holds names of headers");
            self.headers.push((name, value));
        }
        Ok(())
    }
}

fn not_yaml(error: &serde_saphyr::Error) -> String {
    let place = error
        .location()
        .map_or(String::new(), |at| format!(" at line {}, column {}", at.line(), at.column()));
    format!("it is not valid YAML{place}: each key may stand once, and a colon and a space follow it")
}

// === impl TlsSection ===

impl TlsSection {
    fn read(section: &mut Table, folder: &Path) -> Result<Option<Self>, String> {
        let path = |section: &mut Table, key| -> Result<Option<PathBuf>, String> {
            Ok(section.text(key)?.filter(|path| !path.is_empty()).map(|path| folder.join(path)))
        };
        let (cert_file, key_file) = (path(section, "cert_file")?, path(section, "key_file")?);
        let client_ca_file = path(section, "client_ca_file")?;
        let clients = section.one_of("client_auth_type", clients)?.unwrap_or_default();
        let min_version = section.one_of("min_version", version)?.unwrap_or(Version::Tls12);
        let max_version = section.one_of("max_version", version)?.unwrap_or(Version::Tls13);
        let read = Self {
            cert_file: cert_file.clone().unwrap_or_default(),
            key_file: key_file.clone().unwrap_or_default(),
            clients,
            client_ca_file,
            client_allowed_sans: section.list("client_allowed_sans")?,
            min_version,
            max_version,
            cipher_suites: section.list("cipher_suites")?,
            curves: section.list("curve_preferences")?,
            client_order: section.flag("prefer_server_cipher_suites")? == Some(false),
        };
        match (cert_file, key_file) {
            (Some(_), Some(_)) => read.check().map(Some),
            (None, None) if read.is_plain() => Ok(None),
            (None, _) => {
                Err("tls_server_config.cert_file is missing: name the file of the certificate".to_owned())
            }
            (_, None) => {
                Err("tls_server_config.key_file is missing: name the file of the private key".to_owned())
            }
        }
    }

    fn is_plain(&self) -> bool {
        self.clients == Clients::Anyone
            && self.client_ca_file.is_none()
            && self.client_allowed_sans.is_empty()
    }

    fn check(self) -> Result<Self, String> {
        match (self.clients, &self.client_ca_file) {
            (Clients::Anyone, Some(_)) => {
                return Err("tls_server_config.client_ca_file needs a client_auth_type that uses it: \
                            RequireAndVerifyClientCert or VerifyClientCertIfGiven"
                    .to_owned());
            }
            (Clients::Verified | Clients::VerifiedIfGiven, None) => {
                return Err(
                    "tls_server_config.client_auth_type needs client_ca_file: by whom clients' certificates \
                            must be signed"
                        .to_owned(),
                );
            }
            _ => {}
        }
        if !self.client_allowed_sans.is_empty() && self.clients == Clients::Anyone {
            return Err(
                "tls_server_config.client_allowed_sans needs a client_auth_type that asks for certificates"
                    .to_owned(),
            );
        }
        if self.client_allowed_sans.iter().any(|name| name.contains('@') && !name.contains(':')) {
            return Err(
                "tls_server_config.client_allowed_sans: e-mail addresses are not supported: use DNS names, \
                        IP addresses or URIs"
                    .to_owned(),
            );
        }
        if self.min_version > self.max_version {
            return Err("tls_server_config.min_version is above max_version".to_owned());
        }
        Ok(self)
    }
}

fn clients(text: &str) -> Result<Clients, &'static str> {
    match text {
        "" | "NoClientCert" => Ok(Clients::Anyone),
        "VerifyClientCertIfGiven" => Ok(Clients::VerifiedIfGiven),
        "RequireAndVerifyClientCert" => Ok(Clients::Verified),
        "RequestClientCert" | "RequireAnyClientCert" | "RequireClientCert" => Err(
            "asks for certificates without checking them, which is not supported: use RequireAndVerifyClientCert",
        ),
        _ => Err("must be NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert"),
    }
}

fn version(text: &str) -> Result<Version, &'static str> {
    match text {
        "TLS12" => Ok(Version::Tls12),
        "TLS13" => Ok(Version::Tls13),
        "TLS10" | "TLS11" => Err("is too old a version, which is not supported: use TLS12 or TLS13"),
        _ => Err("must be TLS12 or TLS13"),
    }
}

// === impl Table ===

impl Table {
    fn new(path: &str, value: Value) -> Result<Self, String> {
        match value {
            Value::Object(keys) => Ok(Self { path: path.to_owned(), keys, known: Vec::new() }),
            _ if path.is_empty() => {
                Err("it is not a table of sections, such as `tls_server_config:`".to_owned())
            }
            _ => Err(format!("{} is not a table", path.trim_end_matches('.'))),
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.keys.remove(key).filter(|value| !value.is_null())
    }

    fn table(&mut self, key: &'static str) -> Result<Option<Table>, String> {
        let path = format!("{}{key}.", self.path);
        self.take(key).map(|value| Table::new(&path, value)).transpose()
    }

    fn text(&mut self, key: &'static str) -> Result<Option<String>, String> {
        let path = format!("{}{key}", self.path);
        self.take(key).map(|value| text(value, &path)).transpose()
    }

    fn list(&mut self, key: &'static str) -> Result<Vec<String>, String> {
        let path = format!("{}{key}", self.path);
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items.into_iter().map(|item| text(item, &path)).collect(),
            Some(_) => Err(format!("{path} is not a list of texts")),
        }
    }

    fn flag(&mut self, key: &'static str) -> Result<Option<bool>, String> {
        let path = format!("{}{key}", self.path);
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(format!("{path} must be true or false")),
        }
    }

    fn one_of<T>(
        &mut self,
        key: &'static str,
        known: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        known(&text).map(Some).map_err(|why| format!("{}{key} {why}", self.path))
    }

    /// All keys with their texts.
    fn texts(self) -> Result<Vec<(String, String)>, String> {
        let path = self.path;
        self.keys
            .into_iter()
            .map(|(key, value)| {
                let place = format!("{path}{}", key.escape_debug());
                Ok((key, text(value, &place)?))
            })
            .collect()
    }

    /// Refuses what nobody took.
    fn finish(self) -> Result<(), String> {
        let Some(unknown) = self.keys.keys().next() else { return Ok(()) };
        let known = self.known.join(", ");
        Err(format!(
            "{}{} is not a key that is supported (supported: {known})",
            self.path,
            unknown.escape_debug()
        ))
    }
}

fn text(value: Value, path: &str) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(format!("{path} is not text: put it in quotes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<WebConfig, String> {
        WebConfig::parse(text, Path::new("/etc/web"))
    }

    fn refusal(text: &str) -> String {
        parse(text).expect_err("it is refused")
    }

    const TLS: &str = "tls_server_config:\n  cert_file: c.pem\n  key_file: /k.pem\n";

    #[test]
    fn reads_all_that_is_supported() {
        let config = parse(&format!(
            "# of an operator\n{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  \
             client_allowed_sans: [prometheus.example, 10.0.0.1]\n  min_version: TLS13\n  max_version: TLS13\n  \
             cipher_suites:\n  - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\n  curve_preferences: [X25519]\n  \
             prefer_server_cipher_suites: false\n\
             http_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: deny\n\
             basic_auth_users:\n  ada: $2y$10$abc\n  123: hash\n"
        ))
        .unwrap();
        let tls = config.tls.unwrap();
        assert_eq!((tls.cert_file.to_str(), tls.key_file.to_str()), (Some("/etc/web/c.pem"), Some("/k.pem")));
        assert_eq!(tls.client_ca_file.unwrap().to_str(), Some("/etc/web/ca.pem"));
        assert_eq!((tls.clients, tls.client_order), (Clients::Verified, true));
        assert_eq!((tls.min_version, tls.max_version), (Version::Tls13, Version::Tls13));
        assert_eq!(tls.client_allowed_sans, ["prometheus.example", "10.0.0.1"]);
        assert_eq!((tls.cipher_suites.len(), tls.curves), (1, vec!["X25519".to_owned()]));
        assert_eq!(config.headers[0].0, "x-frame-options");
        assert_eq!(config.without_effect.len(), 1, "HTTP/2 is named");
        let users: Vec<_> = config.users.iter().map(|(user, hash)| (user.as_str(), hash.as_str())).collect();
        assert_eq!(users, [("123", "hash"), ("ada", "$2y$10$abc")]);
    }

    #[test]
    fn a_file_that_says_nothing_asks_for_nothing() {
        for text in ["", "# nothing\n", "---\n", "basic_auth_users:\n", "tls_server_config: {}\n"] {
            let config = parse(text).unwrap();
            assert!(config.tls.is_none() && config.users.is_empty(), "{text}");
        }
        let tls = parse(TLS).unwrap().tls.unwrap();
        assert_eq!((tls.min_version, tls.max_version), (Version::Tls12, Version::Tls13));
        assert_eq!((tls.clients, tls.client_order), (Clients::Anyone, false));
    }

    #[test]
    fn what_is_unknown_or_not_supported_is_refused_by_its_name() {
        for (text, named) in [
            ("tls_server_confg: {}\n".to_owned(), "tls_server_confg is not a key that is supported"),
            (format!("{TLS}  cert_fil: x\n"), "tls_server_config.cert_fil is not a key"),
            ("rate_limit: { interval: 1s }\n".to_owned(), "rate_limit is not a key"),
            ("http_server_config: { http3: true }\n".to_owned(), "http_server_config.http3 is not a key"),
            ("http_server_config: { headers: { Server: x } }\n".to_owned(), "`Server` cannot be set"),
            (
                "http_server_config: { headers: { X-Frame-Options: never } }\n".to_owned(),
                "X-Frame-Options must be one of deny, sameorigin",
            ),
            (
                format!("{TLS}  client_auth_type: RequireAnyClientCert\n"),
                "client_auth_type asks for certificates without",
            ),
            (format!("{TLS}  client_auth_type: Maybe\n"), "client_auth_type must be NoClientCert, "),
            (format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n"), "needs client_ca_file"),
            (format!("{TLS}  client_ca_file: ca.pem\n"), "client_ca_file needs a client_auth_type"),
            (format!("{TLS}  client_allowed_sans: [a]\n"), "client_allowed_sans needs a client_auth_type"),
            (format!("{TLS}  min_version: TLS11\n"), "min_version is too old"),
            (
                format!("{TLS}  max_version: TLS12\n  min_version: TLS13\n"),
                "min_version is above max_version",
            ),
            (format!("{TLS}  cipher_suites: x\n"), "cipher_suites is not a list of texts"),
            ("tls_server_config: { key_file: k }\n".to_owned(), "cert_file is missing"),
            ("tls_server_config: { cert_file: c }\n".to_owned(), "key_file is missing"),
            ("basic_auth_users: [ada]\n".to_owned(), "basic_auth_users is not a table"),
            (
                "http_server_config: { http2: 3 }\n".to_owned(),
                "http_server_config.http2 must be true or false",
            ),
            ("- a\n".to_owned(), "it is not a table of sections"),
        ] {
            let refusal = refusal(&text);
            assert!(refusal.contains(named), "{text} -> {refusal}");
        }
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_place_and_nothing_of_it_is_shown() {
        for text in [
            "basic_auth_users:\n  ada: hunter2\n  ada: hunter2\n",
            "basic_auth_users: {\n  ada: hunter2",
            "basic_auth_users:\n\thunter2: x\n",
            "basic_auth_users:\n  ada: *hunter2\n",
        ] {
            let refusal = refusal(text);
            assert!(refusal.starts_with("it is not valid YAML at line "), "{text} -> {refusal}");
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
        for text in ["basic_auth_users:\n  ada: [hunter2]\n", "basic_auth_users:\n  ada: 12345\n"] {
            assert_eq!(refusal(text), "basic_auth_users.ada is not text: put it in quotes");
        }
    }
}
