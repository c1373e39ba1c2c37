//! How spans travel: the three kinds of OTLP, compressed or not, with headers, and with TLS that trusts as it is told.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod collector;
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use collector::{Collector, Mode};
use http::Method;
use process::{Gateway, Launch, chat, prompt_config, until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;

const PROTOCOLS: [(&str, &str, &str); 3] = [
    ("grpc", "application/grpc", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
    ("http/protobuf", "application/x-protobuf", "/v1/traces"),
    ("http/json", "application/json", "/v1/traces"),
];

async fn gateway(endpoint: &str, protocol: &str, more: &[(&str, &str)]) -> Gateway {
    let mut launch = Launch::serve(&prompt_config(""))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_BSP_SCHEDULE_DELAY", "10");
    for (name, value) in more {
        launch = launch.env(name, value);
    }
    launch.start().await
}

/// A request whose trace arrives.
async fn arrives(gateway: &Gateway, collector: &Collector) {
    let answer = gateway.ask(chat("auto", "hello")).await;
    assert_eq!(answer.status, 200);
    collector.takes(answer.header("x-throughline-trace-id").unwrap()).await;
}

/// What health says, once it says that spans do not arrive.
async fn refused(gateway: &Gateway) -> String {
    assert_eq!(gateway.ask(chat("auto", "hello")).await.status, 200, "requests do not care");
    until("health", async || {
        let body = gateway.send(Method::GET, "/readyz", "").await.body;
        let said: serde_json::Value = serde_json::from_slice(&body).unwrap();
        said["degraded"][0]["reason"].as_str().map(str::to_owned)
    })
    .await
}

/// Waits until nothing is degraded.
async fn ready(gateway: &Gateway) {
    let ready = async || {
        let body = gateway.send(Method::GET, "/readyz", "").await.body;
        String::from_utf8_lossy(&body).contains("\"ready\"").then_some(())
    };
    until("the recovery", ready).await;
}

#[tokio::test]
async fn all_three_protocols_carry_the_same_spans() {
    for (protocol, content, path) in PROTOCOLS {
        for compression in ["none", "gzip"] {
            let collector = Collector::start().await;
            let endpoint = format!("http://{}", collector.address);
            let settings = [
                ("OTEL_EXPORTER_OTLP_COMPRESSION", compression),
                ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20c2VjcmV0,x-tenant=a%2Cb"),
            ];
            let gateway = gateway(&endpoint, protocol, &settings).await;
            arrives(&gateway, &collector).await;
            let got = &collector.got()[0];
            assert_eq!((&*got.path, got.headers["content-type"].to_str().unwrap()), (path, content));
            assert_eq!(got.headers["authorization"], "Basic c2VjcmV0");
            assert_eq!(got.headers["x-tenant"], "a,b");
            let encoding = if protocol == "grpc" { "grpc-encoding" } else { "content-encoding" };
            let said = got.headers.get(encoding).map(|encoding| encoding.to_str().unwrap());
            assert_eq!(said, (compression == "gzip").then_some("gzip"), "{protocol}");
            let span = &got.request.resource_spans[0].scope_spans[0].spans[0];
            assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
            assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0);
            let log = gateway.stop().await.stderr;
            assert!(!log.contains("c2VjcmV0"), "{log}");
        }
    }
}

#[tokio::test]
async fn an_address_of_the_signal_is_used_as_it_is_and_a_base_address_gets_a_path() {
    let collector = Collector::start().await;
    let base = format!("http://{}/otlp/", collector.address);
    let gateway = gateway(&base, "http/protobuf", &[]).await;
    arrives(&gateway, &collector).await;
    assert_eq!(collector.got()[0].path, "/otlp/v1/traces");

    let collector = Collector::start().await;
    let own = format!("http://{}/spans", collector.address);
    let settings = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*own)];
    let gateway = self::gateway("http://127.0.0.1:9", "http/protobuf", &settings).await;
    arrives(&gateway, &collector).await;
    assert_eq!(collector.got()[0].path, "/spans");
}

async fn pushing(collector: &Collector, protocol: &str, interval: &str) -> Gateway {
    Launch::serve(&prompt_config(""))
        .env("OTEL_METRICS_EXPORTER", "prometheus,otlp")
        .env("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &format!("http://{}/v1/metrics", collector.address))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_METRIC_EXPORT_INTERVAL", interval)
        .start()
        .await
}

#[tokio::test]
async fn metrics_are_pushed_in_all_three_protocols_and_served_as_well() {
    for (protocol, ..) in PROTOCOLS {
        let collector = Collector::start().await;
        // gRPC has no paths.
        let gateway = match protocol {
            "grpc" => {
                let endpoint = format!("http://{}", collector.address);
                let settings =
                    [("OTEL_METRICS_EXPORTER", "prometheus,otlp"), ("OTEL_METRIC_EXPORT_INTERVAL", "20")];
                self::gateway(&endpoint, protocol, &settings).await
            }
            _ => pushing(&collector, protocol, "20").await,
        };
        for n in 1..=3 {
            assert_eq!(gateway.ask(chat("auto", "hello")).await.status, 200);
            until("the figure", async || (collector.sum("gateway_requests") == Some(n)).then_some(())).await;
        }
        assert_eq!(gateway.metric("gateway_requests_total", &[("code", "200")]).await, 3.0);
    }
}

#[tokio::test]
async fn metrics_are_pushed_once_more_at_the_end() {
    let collector = Collector::start().await;
    let gateway = pushing(&collector, "http/protobuf", "3600000").await;
    assert_eq!(gateway.ask(chat("auto", "hello")).await.status, 200);
    assert_eq!(gateway.stop().await.code, Some(0));
    assert_eq!(collector.sum("gateway_requests"), Some(1));
}

#[tokio::test]
async fn metrics_that_do_not_arrive_are_said_until_they_do() {
    let collector = Collector::start().await;
    collector.turn(Mode::Status(500, &[]));
    let gateway = pushing(&collector, "http/protobuf", "20").await;
    let reason = refused(&gateway).await;
    assert_eq!(reason, format!("metrics do not reach {}: it answered 500", collector.address));
    let labels = [("signal", "metrics"), ("error_type", "http_5xx")];
    assert!(gateway.metric("apm_export_failures_total", &labels).await >= 1.0);
    collector.turn(Mode::Take);
    until("the figure", async || collector.sum("gateway_requests").map(drop)).await;
    ready(&gateway).await;
}

/// Certificates of an authority that nobody else trusts.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { folder: tempfile::tempdir().unwrap(), issuer };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// A server for 127.0.0.1 that may ask its clients who they are.
    fn server(&self, asks: bool) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = match asks {
            true => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
            false => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    /// The files of a client's certificate and its key.
    fn client(&self) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (self.write("client.pem", &certificate.pem()), self.write("client.key", &key.serialize_pem()))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn a_named_authority_is_trusted_and_a_client_certificate_shown() {
    let authority = Authority::new();
    let (ca, (certificate, key)) = (authority.path("ca.pem"), authority.client());
    for (protocol, ..) in PROTOCOLS {
        for asks in [false, true] {
            let collector = Collector::tls(authority.server(asks)).await;
            let mut settings = vec![("OTEL_EXPORTER_OTLP_CERTIFICATE", text(&ca))];
            if asks {
                settings.push(("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", text(&certificate)));
                settings.push(("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", text(&key)));
            }
            let gateway = gateway(&format!("https://{}", collector.address), protocol, &settings).await;
            arrives(&gateway, &collector).await;
        }
    }
}

#[tokio::test]
async fn a_receiver_that_cannot_be_trusted_gets_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let ca = other.path("ca.pem");
    for (protocol, ..) in PROTOCOLS {
        let collector = Collector::tls(authority.server(false)).await;
        let endpoint = format!("https://{}", collector.address);
        let settings = [("OTEL_EXPORTER_OTLP_CERTIFICATE", text(&ca))];
        let gateway = gateway(&endpoint, protocol, &settings).await;
        let reason = refused(&gateway).await;
        assert!(reason.contains(": no TLS: invalid peer certificate: "), "{reason}");
        let labels = [("signal", "traces"), ("error_type", "tls")];
        assert!(gateway.metric("apm_export_failures_total", &labels).await >= 1.0);
        assert!(collector.got().is_empty());
    }
}

#[tokio::test]
async fn a_receiver_without_tls_gets_nothing_where_tls_is_asked_for() {
    let authority = Authority::new();
    let ca = authority.path("ca.pem");
    let collector = Collector::start().await;
    let endpoint = format!("https://{}", collector.address);
    let gateway = gateway(&endpoint, "http/protobuf", &[("OTEL_EXPORTER_OTLP_CERTIFICATE", text(&ca))]).await;
    assert!(refused(&gateway).await.contains(": no TLS: "));
    assert!(collector.got().is_empty());
}

#[tokio::test]
async fn a_file_that_is_missing_is_said_and_used_once_it_is_there() {
    let authority = Authority::new();
    let late = authority.path("late.pem");
    let collector = Collector::tls(authority.server(false)).await;
    let endpoint = format!("https://{}", collector.address);
    let gateway = gateway(&endpoint, "grpc", &[("OTEL_EXPORTER_OTLP_CERTIFICATE", text(&late))]).await;
    assert_eq!(gateway.metric("apm_init_success", &[("signal", "traces")]).await, 0.0);
    let reason = refused(&gateway).await;
    assert!(reason.contains("the file of OTEL_EXPORTER_OTLP_CERTIFICATE cannot be read: "), "{reason}");
    std::fs::copy(authority.path("ca.pem"), &late).unwrap();
    arrives(&gateway, &collector).await;
    ready(&gateway).await;
}
