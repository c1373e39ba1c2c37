//! Connections: accepted, made secret, bounded in time and in size.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;

use super::answer::Answers;
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
                () = connect(stream, peer.ip(), &answers, &slot) => {}
                _ = gone => {}
            }
        });
    }
}

async fn connect(stream: TcpStream, peer: IpAddr, answers: &Answers, slot: &Slot) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALLED));
    let stream = Box::pin(stream);
    #[cfg(feature = "web-config")]
    if let Some(tls) = answers.guard.rules().tls.clone() {
        let handshake = tokio_rustls::TlsAcceptor::from(tls).accept(stream);
        // Whoever cannot or may not shake hands learns why from TLS, as far as TLS tells.
        if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, handshake).await {
            converse(stream, peer, answers, slot).await;
        }
        return;
    }
    converse(stream, peer, answers, slot).await;
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, peer: IpAddr, answers: &Answers, slot: &Slot) {
    let service = service_fn(async |request| {
        let _busy = slot.busy();
        Ok::<_, Infallible>(answers.answer(&request, peer).await)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // A scraper that hangs up is its own affair.
    let _ = connection.await;
}
