//! TLS as the certificate variables say. A file that cannot be used is an error: there is no falling back to less.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use super::super::otlp_settings::TlsFiles;

/// The configuration that `files` describe. The crypto provider is named, because asking for "the default" panics as
/// soon as some dependency turns on a second one.
pub(super) fn config(files: &TlsFiles) -> Result<ClientConfig, String> {
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("this provider has the cipher suites of TLS 1.2 and 1.3");
    let builder = match &files.authorities {
        Some(path) => builder.with_root_certificates(authorities(path)?),
        None => builder.with_native_roots().map_err(|_| {
            "this machine has no root certificates: install `ca-certificates` or set OTEL_EXPORTER_OTLP_CERTIFICATE"
        })?,
    };
    identity(builder, files)
}

/// A configuration for receivers without TLS: it trusts nobody.
pub(super) fn none() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("this provider has the cipher suites of TLS 1.2 and 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CERTIFICATE", path)? {
        roots
            .add(certificate)
            .map_err(|_| unusable("CERTIFICATE", path, "it holds what is no certificate"))?;
    }
    Ok(roots)
}

fn identity(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    files: &TlsFiles,
) -> Result<ClientConfig, String> {
    match (&files.certificate, &files.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let chain = certificates("CLIENT_CERTIFICATE", certificate)?;
            let private =
                PrivateKeyDer::from_pem_file(key).map_err(|error| pem("CLIENT_KEY", key, &error))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|_| unusable("CLIENT_KEY", key, "it does not fit the certificate"))
        }
        _ => {
            Err("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and _CLIENT_KEY go together: set both or none"
                .to_owned())
        }
    }
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| pem(what, path, &error))?;
    match certificates.is_empty() {
        true => Err(unusable(what, path, "it holds no certificate in the PEM format")),
        false => Ok(certificates),
    }
}

fn pem(what: &str, path: &Path, error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => {
            format!("the file of OTEL_EXPORTER_OTLP_{what} cannot be read: {}: {error}", path.display())
        }
        _ => unusable(what, path, "it is not in the PEM format"),
    }
}

fn unusable(what: &str, path: &Path, why: &str) -> String {
    format!("the file of OTEL_EXPORTER_OTLP_{what} cannot be used: {}: {why}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_file_is_missing_and_which_is_wrong() {
        let missing = TlsFiles { authorities: Some("/no/such/ca.pem".into()), ..TlsFiles::default() };
        let reason = config(&missing).unwrap_err();
        assert!(
            reason
                .starts_with("the file of OTEL_EXPORTER_OTLP_CERTIFICATE cannot be read: /no/such/ca.pem: ")
        );

        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let wrong = TlsFiles { authorities: Some(file.into()), ..TlsFiles::default() };
        let reason = config(&wrong).unwrap_err();
        assert!(reason.ends_with("Cargo.toml: it holds no certificate in the PEM format"), "{reason}");

        let half = TlsFiles { key: Some(file.into()), ..TlsFiles::default() };
        let reason = config(&half).unwrap_err();
        assert!(reason.ends_with("go together: set both or none"), "{reason}");
    }
}
