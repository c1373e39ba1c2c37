//! Connections: accepted, made secret, bounded in time and in size.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;

use super::answer::Answers;
use super::guard::Peer;
use super::slots::{Slot, Slots};

/// Connections at the same time.
const CONNECTIONS: usize = 256;
/// How long a client may take for the handshake of TLS.
#[cfg(feature = "web-config")]
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take for the head of a request. It begins with the end of the answer before, so that a
/// connection without requests is closed after the same time.
const HEAD: Duration = Duration::from_secs(10);
/// How long a client may take nothing of an answer.
const STALLED: Duration = Duration::from_secs(10);
/// The most bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;
/// How long to wait before accepting again when the system has no more file descriptors.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// Serves whoever connects to `listener`.
pub(super) async fn accept(listener: TcpListener, answers: &Arc<Answers>) {
    let slots = Slots::new(CONNECTIONS);
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(OUT_OF_FILES).await;
            continue;
        };
        let Some((slot, gone)) = slots.take() else { continue };
        let answers = Arc::clone(answers);
        tokio::spawn(async move {
            tokio::select! {
                () = connect(stream, Peer { address: peer.ip(), rules: answers.guard.rules() }, &answers, &slot) => {}
                _ = gone => {}
            }
        });
    }
}

async fn connect(stream: TcpStream, peer: Peer, answers: &Answers, slot: &Slot) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALLED));
    let stream = Box::pin(stream);
    #[cfg(feature = "web-config")]
    if let Some(tls) = peer.rules.tls.clone() {
        let handshake = tokio_rustls::TlsAcceptor::from(tls).accept(stream);
        // Whoever cannot or may not shake hands learns why from TLS, as far as TLS tells.
        if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, handshake).await {
            converse(stream, peer, answers, slot).await;
        }
        return;
    }
    converse(stream, peer, answers, slot).await;
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer, answers: &Answers, slot: &Slot) {
    let service = service_fn(async |request| {
        let _busy = slot.busy();
        Ok::<_, Infallible>(answers.answer(&request, &peer).await)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // A scraper that hangs up is its own affair.
    let _ = connection.await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::super::guard::Guard;
    use super::super::security::EndpointSecurity;
    use super::*;
    use crate::telemetry::health::Health;
    use crate::telemetry::{Clock, Sink};

    /// How long a client that sends `said` and then nothing keeps its connection, in seconds.
    async fn kept_for(security: EndpointSecurity, said: &str) -> u64 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let guard = Arc::new(Guard::new(security, false));
        let sink = Sink::without_telemetry(Clock::default());
        let answers = Arc::new(Answers { sink, health: Arc::new(Health::default()), guard });
        let serving = tokio::spawn(async move { accept(listener, &answers).await });
        let mut stream = TcpStream::connect(address).await.unwrap();
        let began = Instant::now();
        stream.write_all(said.as_bytes()).await.unwrap();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        serving.abort();
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_closed_before_the_first_and_after_the_last() {
        for said in ["", "GET /metrics HTTP/1.1\r\nx-a: ", "GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n"] {
            assert_eq!(kept_for(EndpointSecurity::new(), said).await, HEAD.as_secs(), "{said}");
        }
    }

    #[cfg(feature = "web-config")]
    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_handshake_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.path().join("c.pem"), signed.cert.pem()).unwrap();
        std::fs::write(dir.path().join("k.pem"), signed.signing_key.serialize_pem()).unwrap();
        let file = dir.path().join("web.yml");
        std::fs::write(&file, "tls_server_config: { cert_file: c.pem, key_file: k.pem }").unwrap();
        for said in ["", "\u{16}\u{3}\u{1}"] {
            let security = EndpointSecurity::new().web_config_file(&file).unwrap();
            assert_eq!(kept_for(security, said).await, HANDSHAKE.as_secs());
        }
    }
}
