//! The metrics port of a real gateway: who reads it, over what, and that Prometheus does.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::path::Path;
use std::process::Stdio;

use process::client::{self, get};
use process::prometheus::{Prometheus, program};
use process::{Gateway, Launch, prompt_config, until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

const GUIDE: &str = include_str!("../../docs/guides/metrics-endpoint.md");
const TOKEN: &str = "a-token-of-many-letters";
const PASSWORD: &str = "a password of the scraper";

/// What an operator has: an authority, a certificate and key of the endpoint, and a password's hash.
struct Operator {
    authority: String,
    certificate: String,
    key: String,
    hash: String,
}

impl Operator {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        let key = KeyPair::generate().unwrap();
        Self {
            certificate: params.signed_by(&key, &authority).unwrap().pem(),
            authority: authority.pem(),
            key: key.serialize_pem(),
            hash: bcrypt::hash_with_salt(PASSWORD, 4, [7; 16]).unwrap().to_string(),
        }
    }

    /// TLS, a user, a header: what the guide shows.
    fn web_config(&self) -> String {
        format!(
            "tls_server_config:\n  cert_file: metrics.crt\n  key_file: metrics.key\n  min_version: TLS12\n\
             http_server_config:\n  headers:\n    X-Content-Type-Options: nosniff\n\
             basic_auth_users:\n  prometheus: {}\n",
            self.hash
        )
    }

    /// Puts the certificate and the key where the configuration looks for them.
    fn equip(&self, launch: Launch) -> Launch {
        launch.file("metrics.crt", &self.certificate).file("metrics.key", &self.key)
    }

    fn write(&self, directory: &Path) {
        std::fs::write(directory.join("metrics.crt"), &self.certificate).unwrap();
        std::fs::write(directory.join("metrics.key"), &self.key).unwrap();
    }
}

fn serve(telemetry: &str) -> Launch {
    Launch::serve(&prompt_config(&format!("[telemetry]\n{telemetry}")))
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs prometheus"]
async fn prometheus_reads_us_plain_with_tls_and_a_password_and_with_a_token() {
    let operator = Operator::new();
    let plain = serve("").start().await;
    let secret =
        operator.equip(serve("web_config_file = \"web.yml\"")).file("web.yml", &operator.web_config());
    let secret = secret.start().await;
    let token = serve("bearer_tokens = [\"env:SCRAPE_TOKEN\", \"file:./token\"]").env("SCRAPE_TOKEN", TOKEN);
    let token = token.file("token", "another-token-of-letters\n").start().await;
    assert!(secret.stdout().contains("metrics https://127.0.0.1:"), "{}", secret.stdout());

    let tls = "  scheme: https\n  tls_config: { ca_file: ca.crt }\n";
    let user = |file: &str| format!("{tls}  basic_auth: {{ username: prometheus, password_file: {file} }}\n");
    let bearer = |file: &str| format!("  authorization: {{ credentials_file: {file} }}\n");
    let at = |gateway: &Gateway| gateway.metrics.unwrap();
    let jobs = [
        ("plain", at(&plain), String::new(), true, ""),
        ("password", at(&secret), user("password"), true, ""),
        ("wrong_password", at(&secret), user("wrong"), false, "401"),
        ("no_password", at(&secret), tls.to_owned(), false, "401 Unauthorized"),
        ("no_tls", at(&secret), String::new(), false, ""),
        ("distrust", at(&secret), "  scheme: https\n".to_owned(), false, "certificate"),
        ("token", at(&token), bearer("token"), true, ""),
        ("other_token", at(&token), bearer("other"), true, ""),
        ("wrong_token", at(&token), bearer("wrong"), false, "401 Unauthorized"),
        ("no_token", at(&token), String::new(), false, "401 Unauthorized"),
    ];
    let described: Vec<_> = jobs.iter().map(|(name, at, more, ..)| (*name, *at, more.as_str())).collect();
    let prometheus = Prometheus::with_jobs(&described, |directory| {
        let files = [
            ("ca.crt", operator.authority.as_str()),
            ("password", PASSWORD),
            ("wrong", "a-guess-of-many-letters"),
            ("token", TOKEN),
            ("other", "another-token-of-letters"),
        ];
        files.iter().for_each(|(name, text)| std::fs::write(directory.join(name), text).unwrap());
    })
    .await;
    for (name, _, _, up, error) in &jobs {
        prometheus.is_up(name, *up).await;
        if !up {
            until(&format!("why {name} fails"), async || {
                prometheus.last_error(name).await.contains(error).then_some(())
            })
            .await;
            assert_ne!(prometheus.last_error(name).await, "", "{name}");
        }
        let series = prometheus.series_of(name).await;
        assert_eq!(series.value("apm_init_success", &[("signal", "metrics")]), up.then_some(1.0), "{name}");
    }
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs promtool"]
async fn promtool_and_we_accept_and_refuse_the_same_files() {
    let operator = Operator::new();
    let good = operator.web_config();
    let tls = good.split_once("http_server_config").unwrap().0;
    let cases = [
        (good.clone(), true),
        (String::new(), true),
        ("basic_auth_users:\n".to_owned(), true),
        (good.replace("TLS12", "TLS13"), true),
        (
            format!("{tls}  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n"),
            true,
        ),
        (
            format!("{tls}  curve_preferences: [X25519, CurveP256]\n  prefer_server_cipher_suites: false\n"),
            true,
        ),
        (
            format!("{tls}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: metrics.crt\n"),
            true,
        ),
        (good.replace("nosniff", "sniff"), false),
        (good.replace("X-Content-Type-Options", "X-Unknown"), false),
        (good.replace("key_file", "key_fil"), false),
        (good.replace("metrics.key", "missing.key"), false),
        (good.replace("metrics.key", "metrics.crt"), false),
        (good.replace(&operator.hash, "in-plain-text"), false),
        (good.replace("TLS12", "TLS9"), false),
        (format!("{tls}  client_ca_file: metrics.crt\n"), false),
        (format!("{tls}  client_auth_type: Sometimes\n"), false),
        ("tls_server_config: [\n".to_owned(), false),
        ("- a\n".to_owned(), false),
        ("basic_auth_users:\n  a: x\n  a: y\n".to_owned(), false),
    ];
    for (text, good) in &cases {
        let dir = tempfile::tempdir().unwrap();
        operator.write(dir.path());
        let file = dir.path().join("web.yml");
        std::fs::write(&file, text).unwrap();
        let theirs = program("THROUGHLINE_E2E_PROMTOOL")
            .args(["check", "web-config"])
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        assert_eq!(theirs.status.success(), *good, "promtool on\n{text}\n{theirs:?}");
        let config = prompt_config("[telemetry]\nweb_config_file = \"web.yml\"");
        let check = Launch::new(&["check", "throughline.toml"]).file("throughline.toml", &config);
        let ours = operator.equip(check).file("web.yml", text).finish().await;
        assert_eq!(ours.code, Some(if *good { 0 } else { 2 }), "throughline on\n{text}\n{}", ours.stderr);
        assert!(*good || ours.stderr.contains("`web_config_file`: "), "{}", ours.stderr);
    }
}

/// The blocks of the guide in a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let opening = format!("```{language}\n");
    GUIDE.split(opening.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs promtool"]
async fn the_guides_examples_are_accepted_by_whom_they_are_for() {
    let operator = Operator::new();
    let dir = tempfile::tempdir().unwrap();
    operator.write(dir.path());
    std::fs::write(dir.path().join("ca.crt"), &operator.authority).unwrap();
    let (scrape, web): (Vec<_>, Vec<_>) =
        blocks("yaml").into_iter().partition(|text| text.starts_with("scrape"));
    assert_eq!((scrape.len(), web.len()), (3, 2), "plain, with a password, with a token");
    let promtool = async |args: &[&str], text: &str| {
        let file = dir.path().join("checked.yml");
        std::fs::write(&file, text).unwrap();
        let output = program("THROUGHLINE_E2E_PROMTOOL").args(args).arg(&file).output().await.unwrap();
        assert!(output.status.success(), "{text}\n{output:?}");
    };
    for text in scrape {
        promtool(&["check", "config", "--syntax-only"], text).await;
    }
    // A Prometheus of this age does not know the key yet.
    promtool(&["check", "web-config"], web[0]).await;
    for toml in blocks("toml") {
        for web in &web {
            let check = Launch::new(&["check", "throughline.toml"]).env("SCRAPE_TOKEN", TOKEN);
            let check = operator.equip(check).file("ca.crt", &operator.authority).file("scrape.token", TOKEN);
            let checked =
                check.file("throughline.toml", &prompt_config(toml)).file("web.yml", web).finish().await;
            assert_eq!(checked.code, Some(0), "{toml}\n{}", checked.stderr);
        }
    }
}

#[tokio::test]
async fn public_metrics_without_authentication_are_refused_with_exit_code_2() {
    let host = "OTEL_EXPORTER_PROMETHEUS_HOST";
    for (telemetry, args, address) in [
        ("metrics_listen = \"0.0.0.0:0\"", &[][..], "localhost"),
        ("", &["--metrics-listen", "0.0.0.0:0"], "localhost"),
        ("", &[], "0.0.0.0"),
        ("web_config_file = \"web.yml\"", &["--metrics-listen", "[::]:0"], "localhost"),
    ] {
        let config = prompt_config(&format!("[telemetry]\n{telemetry}"));
        let launch = Launch::new(&["serve", "--config", "throughline.toml", "--listen", "127.0.0.1:0"]);
        // TLS alone asks nobody who they are.
        let operator = Operator::new();
        let tls = operator.web_config().split_once("basic_auth").unwrap().0.to_owned();
        let launch = operator.equip(launch.args(args)).env(host, address);
        let launch = launch.file("throughline.toml", &config).file("web.yml", &tls);
        let refused = launch.finish().await;
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("where other machines can read them without a key"),
            "{}",
            refused.stderr
        );
        assert!(refused.stderr.contains("web_config_file or bearer_tokens"), "{}", refused.stderr);
    }
}

#[tokio::test]
async fn public_metrics_with_a_token_are_served_and_a_warning_says_that_they_are_not_encrypted() {
    let public = "0.0.0.0:0".parse().unwrap();
    let config = prompt_config("[telemetry]\nbearer_tokens = [\"env:SCRAPE_TOKEN\"]");
    let gateway = Launch::serve_with_metrics_on(public, &config).env("SCRAPE_TOKEN", TOKEN).start().await;
    let local = ([127, 0, 0, 1], gateway.metrics.unwrap().port()).into();
    let anonymous = get(local, "/metrics").await;
    assert_eq!(
        (anonymous.status, anonymous.header("www-authenticate")),
        (401, Some("Bearer realm=\"metrics\""))
    );
    let mut request = client::request(http::Method::GET, local, "/metrics", "");
    request.headers_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
    assert_eq!(client::send(&client::client(), request).await.status, 200);
    gateway.says("without TLS: passwords and tokens can be read on their way").await;
    assert!(!gateway.stop().await.stderr.contains(TOKEN));
}

#[tokio::test]
async fn both_ports_say_the_same_about_health_and_the_metrics_port_says_why_to_those_who_may_know() {
    let gateway = serve("bearer_tokens = [\"file:./token\"]").file("token", TOKEN).start().await;
    let metrics = gateway.metrics.unwrap();
    assert_eq!(&get(metrics, "/healthz").await.body[..], b"ok");
    assert_eq!(get(metrics, "/readyz").await.json(), serde_json::json!({ "status": "ready" }));
    let mut request = client::request(http::Method::GET, metrics, "/readyz", "");
    request.headers_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
    let known = client::send(&client::client(), request).await;
    assert_eq!(known.json(), serde_json::json!({ "status": "ready", "degraded": [] }));
    assert_eq!(known.body, get(gateway.address, "/readyz").await.body);
    for path in ["/v1/models", "/", "/debug", "/config", "/metrics/x"] {
        assert_eq!(get(metrics, path).await.status, 404, "{path}");
    }
}
