//! A client that shows the whole answer, and one that speaks in bytes.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::PATIENCE;

/// An HTTP client; a clone shares its connections.
pub(crate) type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A client without connections yet.
pub(crate) fn client() -> HttpClient {
    Client::builder(TokioExecutor::new()).build_http()
}

/// The body of a chat request with one message.
pub(crate) fn chat(model: &str, prompt: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": prompt }] })
}

/// A request to `path` of the server at `address`.
pub(crate) fn request(
    method: Method,
    address: SocketAddr,
    path: &str,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    request.body(Full::new(body.into())).expect("the tests ask for valid paths")
}

/// Sends `request` and reads the whole answer.
pub(crate) async fn send(client: &HttpClient, request: Request<Full<Bytes>>) -> Answer {
    let answer = tokio::time::timeout(PATIENCE, async {
        let (head, body) = open(client, request).await.into_parts();
        let body = body.collect().await.expect("the answer comes to its end").to_bytes();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    });
    answer.await.expect("there is an answer")
}

/// What is at `path` of the server at `address`.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    send(&client(), request(Method::GET, address, path, "")).await
}

/// Sends `request` and returns the answer once its head is there.
pub(crate) async fn open(client: &HttpClient, request: Request<Full<Bytes>>) -> Response<Incoming> {
    client.request(request).await.expect("the server answers")
}

/// Everything that a server says on a connection that begins with `bytes`, until it closes it.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the server accepts");
    // A server that has seen enough may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    rest(&mut stream).await
}

/// Everything that is still to come on `stream`.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let reading = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    // A reset is an end as well: what came before it counts.
    let _ = reading.expect("the server closes the connection");
    String::from_utf8_lossy(&said).into_owned()
}

// === impl Answer ===

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// A header, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("headers are ASCII"))
    }

    /// The `error` of the body, which must have OpenAI's shape.
    pub(crate) fn error(&self) -> Value {
        let error = self.json()["error"].take();
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        assert!(error["type"].is_string(), "{self:?}");
        let known = error.as_object().into_iter().flat_map(serde_json::Map::keys);
        assert_eq!(known.collect::<Vec<_>>(), ["code", "message", "param", "type"], "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        error
    }

    /// The text of the first choice.
    pub(crate) fn text(&self) -> String {
        let text = &self.json()["choices"][0]["message"]["content"];
        text.as_str().unwrap_or_else(|| panic!("no answer: {self:?}")).to_owned()
    }
}
