//! The endpoint from outside: who is let in, over what, and what others can do to it.

#![cfg(feature = "web-config")]
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use throughline::telemetry::{EndpointSecurity, Status, Telemetry};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "a-token-of-many-letters";

fn started(security: EndpointSecurity) -> (Telemetry, SocketAddr) {
    let telemetry = Telemetry::builder()
        .metrics_listen(([127, 0, 0, 1], 0).into())
        .endpoint_security(security)
        .local()
        .init();
    let address = telemetry.metrics_address().unwrap();
    (telemetry, address)
}

/// The whole answer to a `GET` on a connection of its own.
async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    headers: &str,
) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("there is an answer")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    ask(TcpStream::connect(address).await.unwrap(), path, headers).await.unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn basic(user: &str, password: &str) -> String {
    format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")))
}

fn hashed(password: &str) -> String {
    bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap().to_string()
}

#[tokio::test]
async fn without_security_everything_is_open_and_nothing_else_is_there() {
    let (telemetry, address) = started(EndpointSecurity::new());
    assert!(get(address, "/metrics", "").await.contains("\napm_init_success{signal=\"metrics\"} 1\n"));
    assert!(get(address, "/healthz", "").await.ends_with("\r\n\r\nok"));
    let ready = get(address, "/readyz", "").await;
    assert!(ready.contains("content-type: application/json\r\n"), "{ready}");
    assert!(ready.ends_with(r#"{"status":"ready","degraded":[]}"#), "{ready}");
    for path in ["/", "/metrics/", "/debug/pprof", "/config", "//metrics", "/metrics;x", "/%6detrics", "*"] {
        assert_eq!(status(&get(address, path, "").await), "404", "{path}");
    }
    let posted = "POST /readyz HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(posted.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    telemetry.drain();
    let draining = get(address, "/readyz", "").await;
    assert!(
        draining.starts_with("HTTP/1.1 503 ") && draining.contains(r#""status":"draining""#),
        "{draining}"
    );
}

#[tokio::test]
async fn a_token_or_a_password_lets_in_and_anything_else_does_not() {
    let security = EndpointSecurity::new().bearer_token(TOKEN).unwrap();
    let security = security.basic_user("ada", hashed("right")).unwrap();
    let (_telemetry, address) = started(security);
    for right in [format!("authorization: Bearer {TOKEN}\r\n"), basic("ada", "right"), basic("ada", "right")]
    {
        assert_eq!(status(&get(address, "/metrics", &right).await), "200", "{right}");
    }
    for wrong in [
        String::new(),
        "authorization: Bearer a-token-of-many-lettert\r\n".to_owned(),
        "authorization: Bearer\r\n".to_owned(),
        "authorization: Digest x\r\n".to_owned(),
        "authorization: Basic !!!\r\n".to_owned(),
        format!("authorization: Bearer {TOKEN}\r\nauthorization: Bearer {TOKEN}\r\n"),
        basic("ada", "wrong"),
        basic("eve", "right"),
    ] {
        let answer = get(address, "/metrics", &wrong).await;
        assert_eq!(status(&answer), "401", "{wrong}");
        assert!(
            answer.contains("www-authenticate: Basic realm=\"metrics\", charset=\"UTF-8\"\r\n"),
            "{answer}"
        );
        assert!(answer.contains("www-authenticate: Bearer realm=\"metrics\"\r\n"), "{answer}");
        assert!(!answer.contains("build_info"), "{answer}");
    }
}

#[tokio::test]
async fn what_is_broken_is_for_those_who_have_shown_something() {
    // A file that breaks later is the reason that must not be shown to everybody.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let (telemetry, address) = started(EndpointSecurity::new().bearer_token_file(&file).unwrap());
    let token = format!("authorization: Bearer {TOKEN}\r\n");
    std::fs::write(&file, "short").unwrap();
    until(async || (telemetry.status() != Status::Enabled).then_some(())).await;
    let anonymous = get(address, "/readyz", "").await;
    assert!(
        anonymous.starts_with("HTTP/1.1 200 ") && anonymous.ends_with(r#"{"status":"degraded"}"#),
        "{anonymous}"
    );
    assert_eq!(status(&get(address, "/readyz", "authorization: Bearer x\r\n").await), "401");
    let shown = get(address, "/readyz", &token).await;
    assert!(shown.contains(r#""part":"endpoint_security","since":"2"#), "{shown}");
    assert!(shown.contains("goes on with the security it had"), "{shown}");
    assert!(get(address, "/healthz", "").await.ends_with("ok"));
    // The old one counts until there is a new one, and then no longer.
    std::fs::write(&file, "another-token-of-letters\n").unwrap();
    let other = "authorization: Bearer another-token-of-letters\r\n";
    until(async || (status(&get(address, "/metrics", other).await) == "200").then_some(())).await;
    assert_eq!(status(&get(address, "/metrics", &token).await), "401");
    until(async || (telemetry.status() == Status::Enabled).then_some(())).await;
}

#[tokio::test]
async fn other_machines_are_let_in_only_where_something_is_asked_of_them() {
    let public: SocketAddr = ([0, 0, 0, 0], 0).into();
    let closed = Telemetry::builder().metrics_listen(public).local().init();
    assert_eq!(closed.metrics_address(), None);
    let Status::Degraded { reasons } = closed.status() else { panic!("{closed:?}") };
    assert_eq!(
        reasons,
        [
            "metrics are not served on 0.0.0.0:0, where other machines could read them without showing who they are: \
          use a loopback address such as 127.0.0.1, or ask for a bearer token, a password or a client certificate"
        ]
    );
    let security = EndpointSecurity::new().bearer_token(TOKEN).unwrap();
    let open = Telemetry::builder().metrics_listen(public).endpoint_security(security).local().init();
    let address = SocketAddr::from(([127, 0, 0, 1], open.metrics_address().unwrap().port()));
    assert_eq!(status(&get(address, "/metrics", "").await), "401");
    assert_eq!(status(&get(address, "/metrics", &format!("authorization: bearer {TOKEN}\r\n")).await), "200");
}

#[tokio::test]
async fn a_public_endpoint_does_not_open_when_its_file_asks_for_nothing_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("web.yml");
    std::fs::write(&file, format!("basic_auth_users:\n  ada: {}\n", hashed("right"))).unwrap();
    let security = EndpointSecurity::new().web_config_file(&file).unwrap();
    let telemetry = Telemetry::builder().metrics_listen(([0, 0, 0, 0], 0).into()).endpoint_security(security);
    let telemetry = telemetry.local().init();
    let address = SocketAddr::from(([127, 0, 0, 1], telemetry.metrics_address().unwrap().port()));
    std::fs::write(&file, "basic_auth_users: {}\n").unwrap();
    until(async || (telemetry.status() != Status::Enabled).then_some(())).await;
    let Status::Degraded { reasons } = telemetry.status() else { unreachable!() };
    assert!(reasons[0].contains("nobody would have to show who they are any more"), "{reasons:?}");
    assert_eq!(status(&get(address, "/metrics", "").await), "401");
    assert_eq!(status(&get(address, "/metrics", &basic("ada", "right")).await), "200");
}

/// Asks again and again until there is an answer.
async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it comes about")
}

// === TLS ===

/// An authority, and a folder with what it has signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Signs a certificate for `names` and writes `NAME.pem` and `NAME.key`.
    fn sign(&self, file: &str, names: Vec<SanType>, purpose: ExtendedKeyUsagePurpose) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.pem")), certificate.pem()).unwrap();
    }

    fn sign_server(&self) {
        let name = SanType::IpAddress([127, 0, 0, 1].into());
        self.sign("server", vec![name], ExtendedKeyUsagePurpose::ServerAuth);
    }

    /// Writes the file for the endpoint, with these further lines under `tls_server_config`.
    fn web_config(&self, more: &str) -> std::path::PathBuf {
        let path = self.path("web.yml");
        let text = format!("tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n{more}");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A client that trusts the authority, and shows the certificate in `FILE.pem` if one is named.
    fn client(
        &self,
        show: Option<&str>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(pem(&self.path("ca.pem"))).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match show {
            Some(file) => {
                let key = std::fs::read(self.path(&format!("{file}.key"))).unwrap();
                let key = PrivateKeyDer::from_pem_slice(&key).unwrap();
                builder.with_client_auth_cert(vec![pem(&self.path(&format!("{file}.pem")))], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        TlsConnector::from(Arc::new(config))
    }
}

fn pem(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The answer over TLS, and the certificate that the server showed.
async fn get_with(
    client: &TlsConnector,
    address: SocketAddr,
    headers: &str,
) -> std::io::Result<(String, CertificateDer<'static>)> {
    let name = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
    let stream = client.connect(name, TcpStream::connect(address).await?).await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
    Ok((ask(stream, "/metrics", headers).await?, shown))
}

#[tokio::test]
async fn a_certificate_that_is_replaced_is_shown_to_the_next_client_and_a_broken_one_is_not() {
    let authority = Authority::new();
    authority.sign_server();
    let (telemetry, address) =
        started(EndpointSecurity::new().web_config_file(authority.web_config("")).unwrap());
    let client = authority.client(None, rustls::ALL_VERSIONS);
    let (answer, first) = get_with(&client, address, "").await.unwrap();
    assert_eq!(status(&answer), "200");
    assert!(!get(address, "/metrics", "").await.contains("build_info"), "without TLS there is nothing");

    std::fs::write(authority.path("server.pem"), "not a certificate").unwrap();
    until(async || (telemetry.status() != Status::Enabled).then_some(())).await;
    let Status::Degraded { reasons } = telemetry.status() else { unreachable!() };
    assert!(reasons[0].ends_with("server.pem` holds no certificate in PEM"), "{reasons:?}");
    assert_eq!(get_with(&client, address, "").await.unwrap().1, first);

    authority.sign_server();
    until(async || (get_with(&client, address, "").await.unwrap().1 != first).then_some(())).await;
    until(async || (telemetry.status() == Status::Enabled).then_some(())).await;
}

/// One answer with a `content-length` on a connection that stays open.
async fn answered(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                return text.into_owned();
            }
        }
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{answer:?}");
    }
}

#[tokio::test]
async fn whoever_connected_before_certificates_were_asked_for_gets_nothing_without_one() {
    let authority = Authority::new();
    authority.sign_server();
    let file = authority.web_config(&format!("basic_auth_users:\n  ada: {}\n", hashed("right")));
    let (telemetry, address) = started(EndpointSecurity::new().web_config_file(&file).unwrap());
    let client = authority.client(None, rustls::ALL_VERSIONS);
    let name = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
    let stream = TcpStream::connect(address).await.unwrap();
    let mut before = client.connect(name, stream).await.unwrap();
    assert!(answered(&mut before).await.starts_with("HTTP/1.1 401 "));
    authority.web_config("  client_ca_file: ca.pem\n  client_auth_type: RequireAndVerifyClientCert\n");
    until(async || get_with(&client, address, "").await.is_err().then_some(())).await;
    let after = answered(&mut before).await;
    assert!(after.starts_with("HTTP/1.1 401 ") && after.contains("connection: close\r\n"), "{after}");

    // And what was encrypted stays so.
    std::fs::write(&file, format!("basic_auth_users:\n  ada: {}\n", hashed("right"))).unwrap();
    until(async || (telemetry.status() != Status::Enabled).then_some(())).await;
    let Status::Degraded { reasons } = telemetry.status() else { unreachable!() };
    assert!(reasons[0].ends_with("it would not be encrypted any more, which takes a restart"), "{reasons:?}");
}

#[tokio::test]
async fn versions_are_those_that_the_file_allows() {
    let authority = Authority::new();
    authority.sign_server();
    let tls12 = authority.client(None, &[&rustls::version::TLS12]);
    let tls13 = authority.client(None, &[&rustls::version::TLS13]);
    for (more, with_12, with_13) in [
        ("", true, true),
        ("  min_version: TLS13\n", false, true),
        ("  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n", true, false),
        ("  curve_preferences: [CurveP384]\n", true, true),
    ] {
        let security = EndpointSecurity::new().web_config_file(authority.web_config(more)).unwrap();
        let (_telemetry, address) = started(security);
        assert_eq!(get_with(&tls12, address, "").await.is_ok(), with_12, "{more}");
        assert_eq!(get_with(&tls13, address, "").await.is_ok(), with_13, "{more}");
    }
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_authority_and_an_allowed_name_get_in() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.sign_server();
    let dns = |name: &str| vec![SanType::DnsName(name.try_into().unwrap())];
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    authority.sign("named", dns("prometheus.example"), client.clone());
    authority.sign("wild", dns("*.example"), client.clone());
    authority.sign("by-address", vec![SanType::IpAddress([192, 0, 2, 7].into())], client.clone());
    let uri = SanType::URI("spiffe://example/prometheus".try_into().unwrap());
    authority.sign("by-uri", vec![uri], client.clone());
    authority.sign("stranger", dns("other.example"), client.clone());
    other.sign("forged", dns("prometheus.example"), client);
    for end in ["pem", "key"] {
        std::fs::copy(other.path(&format!("forged.{end}")), authority.path(&format!("forged.{end}")))
            .unwrap();
    }
    let asks = "  client_ca_file: ca.pem\n  client_auth_type: RequireAndVerifyClientCert\n";
    let names = "  client_allowed_sans: [prometheus.example, 192.0.2.7, 'spiffe://example/prometheus']\n";
    let is_let_in = async |more: &str, show: Option<&str>| {
        let security = EndpointSecurity::new().web_config_file(authority.web_config(more)).unwrap();
        let (_telemetry, address) = started(security);
        let answer = get_with(&authority.client(show, rustls::ALL_VERSIONS), address, "").await;
        answer.is_ok_and(|(answer, _)| status(&answer) == "200")
    };
    for (show, by_authority, by_name) in [
        (None, false, false),
        (Some("forged"), false, false),
        (Some("stranger"), true, false),
        (Some("wild"), true, false),
        (Some("named"), true, true),
        (Some("by-address"), true, true),
        (Some("by-uri"), true, true),
    ] {
        assert_eq!(is_let_in(asks, show).await, by_authority, "{show:?}");
        assert_eq!(is_let_in(&format!("{asks}{names}"), show).await, by_name, "{show:?} by name");
    }
    let security = EndpointSecurity::new().web_config_file(authority.web_config(asks)).unwrap();
    assert!(security.authenticates() && security.encrypts());
    let if_given = "  client_ca_file: ca.pem\n  client_auth_type: VerifyClientCertIfGiven\n";
    assert!(is_let_in(if_given, None).await && !is_let_in(if_given, Some("forged")).await);
    let security = EndpointSecurity::new().web_config_file(authority.web_config(if_given)).unwrap();
    assert!(!security.authenticates(), "nobody has to show anything");
}

#[tokio::test]
async fn a_certificate_and_a_key_that_do_not_belong_together_are_refused() {
    let authority = Authority::new();
    authority.sign_server();
    authority.sign("other", vec![], ExtendedKeyUsagePurpose::ServerAuth);
    let file = authority.web_config("");
    let refusal = |file: &Path| EndpointSecurity::new().web_config_file(file).unwrap_err().to_string();
    std::fs::copy(authority.path("other.key"), authority.path("server.key")).unwrap();
    assert!(refusal(&file).contains("the certificate and the key cannot be used"), "{}", refusal(&file));
    std::fs::write(authority.path("server.key"), "").unwrap();
    assert!(refusal(&file).contains("server.key` holds no private key in PEM"), "{}", refusal(&file));
    std::fs::remove_file(authority.path("server.key")).unwrap();
    assert!(
        refusal(&file).ends_with("server.key` cannot be read: there is no such file"),
        "{}",
        refusal(&file)
    );
    authority.sign_server();
    for (more, named) in [
        (
            "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]\n",
            "cipher_suites: `TLS_RSA_WITH_RC4_128_SHA` is not supported",
        ),
        ("  curve_preferences: [CurveP521]\n", "curve_preferences: `CurveP521` is not supported"),
    ] {
        let refusal = refusal(&authority.web_config(more));
        assert!(refusal.contains(named), "{refusal}");
    }
}

// === those who mean harm ===

#[tokio::test]
async fn two_hundred_dribbling_connections_do_not_keep_a_scrape_waiting() {
    let authority = Authority::new();
    authority.sign_server();
    for tls in [false, true] {
        let security = if tls {
            EndpointSecurity::new().web_config_file(authority.web_config("")).unwrap()
        } else {
            EndpointSecurity::new()
        };
        let (_telemetry, address) = started(security);
        let mut dribbling = Vec::new();
        for number in 0..200 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&b"GET /metrics HTTP/1.1\r\nx"[..number % 24]).await.unwrap();
            dribbling.push(stream);
        }
        let client = authority.client(None, rustls::ALL_VERSIONS);
        // And more than there is room for, twice over.
        for round in 0..3 {
            let answer = if tls {
                get_with(&client, address, "").await.unwrap().0
            } else {
                get(address, "/metrics", "").await
            };
            assert_eq!(status(&answer), "200", "round {round}, TLS {tls}");
            for _ in 0..200 {
                dribbling.push(TcpStream::connect(address).await.unwrap());
            }
        }
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let (_telemetry, address) = started(EndpointSecurity::new());
    let long = format!("x-a: {}\r\n", "a".repeat(20 << 10));
    assert_eq!(status(&get(address, "/metrics", &long).await), "431");
    let many = "x: y\r\n".repeat(200);
    assert_eq!(status(&get(address, "/metrics", &many).await), "431");
    assert_eq!(status(&get(address, &format!("/{}", "a".repeat(20 << 10)), "").await), "431");
}

#[tokio::test]
async fn those_who_guess_passwords_are_sent_away_while_whoever_was_right_is_served() {
    let hash = bcrypt::hash_with_salt("right", 8, [7; 16]).unwrap().to_string();
    let (_telemetry, address) = started(EndpointSecurity::new().basic_user("ada", hash).unwrap());
    assert_eq!(status(&get(address, "/metrics", &basic("ada", "right")).await), "200");
    let mut guessing = tokio::task::JoinSet::new();
    for number in 0..20 {
        guessing
            .spawn(async move { get(address, "/metrics", &basic("ada", &format!("guess {number}"))).await });
    }
    assert_eq!(status(&get(address, "/metrics", &basic("ada", "right")).await), "200");
    let answers = guessing.join_all().await;
    let with = |code| answers.iter().filter(|answer| status(answer) == code).count();
    assert_eq!(with("401") + with("429"), 20, "{answers:?}");
    assert!(with("429") > 0, "one machine has one place in the queue");
    assert!(answers.iter().any(|answer| answer.contains("retry-after: 5\r\n")));
}
