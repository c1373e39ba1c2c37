//! The one HTTP client that all providers share: pooled connections, TLS, and errors that say what failed.
//!
//! **When.** To send a request body to an upstream and get its answer, whole ([`collect`]) or as it comes.
//!
//! **Where.** At the very end of a chain, inside timeouts, retries and breakers: the only limit on time here
//! is the one on connecting. Redirects are not followed and proxy variables are not read, so a key that is
//! sent to an origin goes to that origin and to no other.
//!
//! ```no_run
//! # async fn example() -> Result<(), throughline_llm::ClientError> {
//! use std::time::Duration;
//! use throughline_llm::{HttpClient, MAX_ANSWER_BYTES, collect};
//!
//! let client = HttpClient::new(Duration::from_secs(5));
//! let uri = http::Uri::from_static("https://api.openai.com/v1/chat/completions");
//! let answer = client.post(&uri, http::HeaderMap::new(), "{}".into()).await?;
//! assert_eq!(answer.status(), 401);
//! let body = collect(answer.into_body(), MAX_ANSWER_BYTES).await?;
//! # Ok(()) }
//! ```

mod connect;

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use connect::{ConnectFailure, Connector, find};

/// The largest plain answer that is worth reading: 16 MiB.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Servers commonly close idle connections after 60 s or more; closing first avoids most lost races.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);
const POOL_IDLE_PER_HOST: usize = 128;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An HTTP/1.1 client with a pool of connections; a clone shares the pool.
#[derive(Clone)]
pub struct HttpClient {
    inner: Client<Connector, Full<Bytes>>,
    connect_timeout: Duration,
}

/// What went wrong, as a closed set for labels and decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientErrorKind {
    /// The address is not an `http` or `https` URL with a host.
    BadAddress,
    /// The host name could not be resolved.
    Dns,
    /// The host refused the connection.
    Refused,
    /// TLS could not be agreed on, or the host is not trusted.
    Tls,
    /// Name lookup, connection and TLS together took longer than allowed.
    ConnectTimeout,
    /// The connection could not be made for another reason.
    Connect,
    /// The connection broke while the request was sent or the answer was read.
    Interrupted,
    /// The answer is larger than allowed.
    TooLarge,
}

/// A call that brought no usable answer. The text names host and port, and never a path, a header or a body.
#[derive(Debug)]
pub struct ClientError {
    kind: ClientErrorKind,
    message: String,
    source: Option<BoxError>,
}

// === impl HttpClient ===

impl HttpClient {
    /// A client whose connections must stand, TLS included, within `connect_timeout`.
    ///
    /// Hosts are trusted by the certificates of this machine. Where there are none, `http` still works and
    /// every `https` call fails with [`ClientErrorKind::Tls`] and says why.
    #[must_use]
    pub fn new(connect_timeout: Duration) -> Self {
        let inner = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(POOL_IDLE_PER_HOST)
            .build(connect::connector(connect_timeout));
        Self { inner, connect_timeout }
    }

    /// Sends `body` to `uri` and returns the answer, whatever its status, as soon as its head is there.
    ///
    /// # Errors
    /// [`ClientError`], when there is no answer.
    ///
    /// # Cancellation
    /// Dropping the future, or later the answer's body, closes the connection.
    pub async fn post(
        &self,
        uri: &Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        self.send(Method::POST, uri, headers, body).await
    }

    /// Asks for `uri` and returns the answer as [`post`](Self::post) does.
    ///
    /// # Errors
    /// [`ClientError`], when there is no answer.
    ///
    /// # Cancellation
    /// Dropping the future, or later the answer's body, closes the connection.
    pub async fn get(&self, uri: &Uri, headers: HeaderMap) -> Result<Response<Incoming>, ClientError> {
        self.send(Method::GET, uri, headers, Bytes::new()).await
    }

    async fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let host = authority(uri).ok_or_else(|| {
            let message = "the address is not an http or https URL with a host";
            ClientError::new(ClientErrorKind::BadAddress, message)
        })?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers;
        self.inner.request(request).await.map_err(|error| self.failed(&host, error))
    }

    fn failed(&self, host: &str, error: hyper_util::client::legacy::Error) -> ClientError {
        let kind = match find::<ConnectFailure>(&error) {
            Some(failure) => failure.kind,
            None if error.is_connect() => ClientErrorKind::Connect,
            None => ClientErrorKind::Interrupted,
        };
        let message = match kind {
            ClientErrorKind::Dns => format!("the name of {host} could not be resolved"),
            ClientErrorKind::Refused => format!("{host} refused the connection"),
            ClientErrorKind::Tls if connect::trusts_nobody() => format!(
                "no TLS with {host}: this machine has no root certificates (install `ca-certificates`)"
            ),
            ClientErrorKind::Tls => format!("no TLS with {host}"),
            ClientErrorKind::ConnectTimeout => {
                format!("no connection to {host} within {:?}", self.connect_timeout)
            }
            ClientErrorKind::Connect => format!("no connection to {host}"),
            _ => format!("the connection to {host} broke before an answer came"),
        };
        ClientError { source: Some(error.into()), ..ClientError::new(kind, message) }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("connect_timeout", &self.connect_timeout).finish_non_exhaustive()
    }
}

/// Host and port, without the user and password that an address may hold.
pub(crate) fn authority(uri: &Uri) -> Option<String> {
    let port = port(uri)?;
    let host = uri.host().filter(|host| !host.is_empty())?;
    Some(format!("{host}:{port}"))
}

/// The port that `uri` is called on; `None` unless it is http or https.
pub(crate) fn port(uri: &Uri) -> Option<u16> {
    let default = match uri.scheme_str()? {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    Some(uri.port_u16().unwrap_or(default))
}

/// Reads a whole body of at most `max_bytes`.
///
/// # Errors
/// [`ClientErrorKind::TooLarge`] as soon as that is known, [`ClientErrorKind::Interrupted`] when the body
/// breaks off.
pub async fn collect<B>(body: B, max_bytes: usize) -> Result<Bytes, ClientError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let too_large = || {
        ClientError::new(ClientErrorKind::TooLarge, format!("the answer is larger than {max_bytes} bytes"))
    };
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large());
    }
    let mut body = std::pin::pin!(body);
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ClientError {
            source: Some(error.into()),
            ..ClientError::new(ClientErrorKind::Interrupted, "the answer broke off")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > max_bytes {
            return Err(too_large());
        }
        // Most answers come in one piece, which then needs no copy.
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { [first, rest.freeze()].concat().into() })
}

// === impl ClientErrorKind ===

impl ClientErrorKind {
    /// The label value: snake_case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadAddress => "bad_address",
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::Tls => "tls",
            Self::ConnectTimeout => "connect_timeout",
            Self::Connect => "connect",
            Self::Interrupted => "interrupted",
            Self::TooLarge => "too_large",
        }
    }
}

// === impl ClientError ===

impl ClientError {
    fn new(kind: ClientErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> ClientErrorKind {
        self.kind
    }

    /// Whether nothing of the request was sent, so that another upstream can be tried without doing the work
    /// twice.
    #[must_use]
    pub const fn is_unsent(&self) -> bool {
        !matches!(self.kind, ClientErrorKind::Interrupted | ClientErrorKind::TooLarge)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const PATIENT: Duration = Duration::from_secs(10);

    /// Accepts connections and gives each of them the same bytes as soon as it has sent something.
    async fn server(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut seen = [0; 4096];
                    while socket.read(&mut seen).await.is_ok_and(|count| count > 0) {
                        if answer.is_empty() {
                            return;
                        }
                        socket.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        port
    }

    async fn post(timeout: Duration, address: &str) -> Result<Response<Incoming>, ClientError> {
        let uri: Uri = address.parse().unwrap();
        HttpClient::new(timeout).post(&uri, HeaderMap::new(), Bytes::from_static(b"{\"s3cret\":1}")).await
    }

    async fn failure(timeout: Duration, address: &str) -> ClientError {
        post(timeout, address).await.expect_err(address)
    }

    #[tokio::test]
    async fn brings_back_an_answer_of_any_status() {
        let port =
            server(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\nretry-after: 3\r\n\r\nno").await;
        let answer = post(PATIENT, &format!("http://127.0.0.1:{port}/v1")).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["retry-after"]),
            (429, &"3".parse().unwrap())
        );
        assert_eq!(collect(answer.into_body(), MAX_ANSWER_BYTES).await.unwrap(), "no");
    }

    #[tokio::test]
    async fn does_not_follow_redirects() {
        let port =
            server(b"HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(post(PATIENT, &format!("http://127.0.0.1:{port}/")).await.unwrap().status(), 307);
    }

    #[tokio::test]
    async fn tells_a_refused_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = failure(PATIENT, &format!("http://user:pw@127.0.0.1:{port}/v1?key=s3cret")).await;
        assert_eq!((error.kind(), error.is_unsent()), (ClientErrorKind::Refused, true));
        assert_eq!(error.to_string(), format!("127.0.0.1:{port} refused the connection"));
    }

    #[tokio::test]
    async fn tells_a_name_that_cannot_be_resolved() {
        // A label of 64 bytes is too long for any resolver, so no server is asked.
        let name = format!("{}.invalid", "x".repeat(64));
        let error = failure(PATIENT, &format!("http://{name}/")).await;
        assert_eq!(error.kind(), ClientErrorKind::Dns);
        assert_eq!(error.to_string(), format!("the name of {name}:80 could not be resolved"));
    }

    #[tokio::test]
    async fn tells_a_server_without_tls() {
        for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
            let port = server(answer).await;
            let error = failure(PATIENT, &format!("https://127.0.0.1:{port}/")).await;
            assert_eq!((error.kind(), error.is_unsent()), (ClientErrorKind::Tls, true));
            assert!(error.to_string().starts_with(&format!("no TLS with 127.0.0.1:{port}")));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_connect_timeout_covers_a_silent_handshake() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = failure(Duration::from_secs(2), &format!("https://127.0.0.1:{port}/")).await;
        assert_eq!(error.kind(), ClientErrorKind::ConnectTimeout);
        assert_eq!(error.to_string(), format!("no connection to 127.0.0.1:{port} within 2s"));
    }

    #[tokio::test]
    async fn tells_a_connection_that_broke_before_the_answer() {
        let port = server(b"").await;
        let error = failure(PATIENT, &format!("http://127.0.0.1:{port}/")).await;
        assert_eq!((error.kind(), error.is_unsent()), (ClientErrorKind::Interrupted, false));
    }

    #[tokio::test]
    async fn refuses_an_address_that_is_no_url() {
        for address in ["/v1", "127.0.0.1:80", "ftp://127.0.0.1/", "*"] {
            let error = failure(PATIENT, address).await;
            assert_eq!(error.kind(), ClientErrorKind::BadAddress);
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_with_or_without_a_length() {
        let long = server(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n123456").await;
        let chunked =
            server(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n123\r\n3\r\n456\r\n0\r\n\r\n")
                .await;
        for port in [long, chunked] {
            let body = post(PATIENT, &format!("http://127.0.0.1:{port}/")).await.unwrap().into_body();
            let error = collect(body, 5).await.unwrap_err();
            assert_eq!(error.kind(), ClientErrorKind::TooLarge);
            assert_eq!(error.to_string(), "the answer is larger than 5 bytes");
            let body = post(PATIENT, &format!("http://127.0.0.1:{port}/")).await.unwrap().into_body();
            assert_eq!(collect(body, 6).await.unwrap(), "123456");
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut seen = [0; 4096];
            assert!(socket.read(&mut seen).await.unwrap() > 0);
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
        });
        let body = post(PATIENT, &format!("http://127.0.0.1:{port}/")).await.unwrap().into_body();
        assert_eq!(collect(body, 100).await.unwrap_err().kind(), ClientErrorKind::Interrupted);
    }

    #[tokio::test]
    async fn connections_are_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut seen = [0; 4096];
                    while socket.read(&mut seen).await.is_ok_and(|count| count > 0) {
                        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    }
                });
            }
        });
        let client = HttpClient::new(PATIENT);
        for _ in 0..50 {
            let answer = client.clone().post(&uri, HeaderMap::new(), Bytes::new()).await.unwrap();
            collect(answer.into_body(), 0).await.unwrap();
        }
        // A connection goes back to the pool in its own task, so a few may be opened before the first is back.
        assert!(accepted.load(Ordering::Relaxed) < 25);
    }
}
