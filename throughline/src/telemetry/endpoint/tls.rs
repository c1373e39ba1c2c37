//! TLS as `tls_server_config` asks for it.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion, version,
};
use webpki::EndEntityCert;

use super::files::Files;
use super::web_config::{Clients, TlsSection, Version};

/// Lets in whom `inner` lets in, if the certificate has one of `names`.
#[derive(Debug)]
struct Named {
    inner: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

/// What `section` asks for, with the certificates and keys that the files hold now.
///
/// # Errors
/// In words: what is wrong.
pub(super) fn server_config(section: &TlsSection, files: &mut Files) -> Result<Arc<ServerConfig>, String> {
    let certificates = certificates(&section.cert_file, "cert_file", files)?;
    let key = files.read(&section.key_file).map_err(|why| format!("tls_server_config.key_file: {why}"))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
        let path = section.key_file.display();
        format!("tls_server_config.key_file: `{path}` holds no private key in PEM that is not encrypted")
    })?;
    let provider = Arc::new(provider(section)?);
    let clients = clients(section, &provider, files)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(section))
        .map_err(|error| format!("tls_server_config: {error}"))?;
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(|error| format!("tls_server_config: the certificate and the key cannot be used: {error}"))?;
    config.ignore_client_order = !section.client_order;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(
    path: &std::path::Path,
    key: &str,
    files: &mut Files,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = files.read(path).map_err(|why| format!("tls_server_config.{key}: {why}"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| format!("tls_server_config.{key}: `{}` holds no certificate in PEM", path.display()))
}

fn versions(section: &TlsSection) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(Version::Tls12, &version::TLS12), (Version::Tls13, &version::TLS13)];
    let allowed = section.min_version..=section.max_version;
    all.into_iter().filter(|(version, _)| allowed.contains(version)).map(|(_, version)| version).collect()
}

fn provider(section: &TlsSection) -> Result<CryptoProvider, String> {
    let mut provider = aws_lc_rs::default_provider();
    if !section.cipher_suites.is_empty() {
        // As in Go, the list is about TLS 1.2: the suites of 1.3 are not chosen from.
        let wanted: Vec<SupportedCipherSuite> =
            section.cipher_suites.iter().map(|name| suite(name)).collect::<Result<_, _>>()?;
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
        provider.cipher_suites.extend(wanted);
    }
    if !section.curves.is_empty() {
        provider.kx_groups = section.curves.iter().map(|name| curve(name)).collect::<Result<_, _>>()?;
    }
    Ok(provider)
}

fn suite(name: &str) -> Result<SupportedCipherSuite, String> {
    use aws_lc_rs::cipher_suite::*;
    match name {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => Ok(TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => Ok(TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => {
            Ok(TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256)
        }
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => Ok(TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => Ok(TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => {
            Ok(TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)
        }
        _ => Err(format!(
            "tls_server_config.cipher_suites: `{}` is not supported: use TLS_ECDHE_ECDSA_ or TLS_ECDHE_RSA_ with \
             WITH_AES_128_GCM_SHA256, WITH_AES_256_GCM_SHA384 or WITH_CHACHA20_POLY1305_SHA256",
            name.escape_debug()
        )),
    }
}

fn curve(name: &str) -> Result<&'static dyn SupportedKxGroup, String> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519};
    match name {
        "CurveP256" => Ok(SECP256R1),
        "CurveP384" => Ok(SECP384R1),
        "X25519" => Ok(X25519),
        _ => Err(format!(
            "tls_server_config.curve_preferences: `{}` is not supported: use CurveP256, CurveP384 or X25519",
            name.escape_debug()
        )),
    }
}

fn clients(
    section: &TlsSection,
    provider: &Arc<CryptoProvider>,
    files: &mut Files,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let Some(path) = &section.client_ca_file else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, "client_ca_file", files)? {
        roots.add(certificate).map_err(|error| format!("tls_server_config.client_ca_file: {error}"))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if section.clients == Clients::VerifiedIfGiven {
        builder = builder.allow_unauthenticated();
    }
    let inner = builder.build().map_err(|error| format!("tls_server_config.client_ca_file: {error}"))?;
    if section.client_allowed_sans.is_empty() {
        return Ok(Some(inner));
    }
    Ok(Some(Arc::new(Named { inner, names: section.client_allowed_sans.clone() })))
}

// === impl Named ===

impl Named {
    fn has_name(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(certificate) = EndEntityCert::try_from(certificate) else { return false };
        self.names.iter().any(|name| {
            // Word for word: what a wildcard in the certificate would cover has not been allowed.
            certificate.valid_dns_names().any(|found| found.eq_ignore_ascii_case(name))
                || certificate.valid_uri_names().any(|found| found == name)
                || name.parse::<IpAddr>().is_ok_and(|address| {
                    let address = ServerName::IpAddress(address.into());
                    certificate.verify_is_valid_for_subject_name(&address).is_ok()
                })
        })
    }
}

impl ClientCertVerifier for Named {
    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        if self.has_name(end_entity) {
            return Ok(verified);
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
