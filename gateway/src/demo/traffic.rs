//! Drives requests through the gateway, over HTTP, as clients would.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::prompts::Prompts;

/// Clients at the same time.
const CLIENTS: usize = 16;
/// One request in this many asks for a stream.
const STREAMED: u64 = 8;

/// What the clients have in common.
struct Traffic {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    prompts: Prompts,
    end: Instant,
    stopped: AtomicBool,
    sent: AtomicU64,
    done: AtomicU64,
}

/// Sends requests for `duration`, or until `stop` completes, and waits for the last answers.
pub(super) async fn drive(
    address: SocketAddr,
    prompts: Prompts,
    duration: Duration,
    stop: impl Future<Output = ()>,
) {
    let traffic = Arc::new(Traffic {
        client: Client::builder(TokioExecutor::new()).build_http(),
        url: format!("http://{address}/v1/chat/completions"),
        prompts,
        end: Instant::now() + duration,
        stopped: AtomicBool::new(false),
        sent: AtomicU64::new(0),
        done: AtomicU64::new(0),
    });
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let traffic = Arc::clone(&traffic);
        clients.spawn(async move { traffic.client().await });
    }
    let mut clients = std::pin::pin!(clients.join_all());
    tokio::select! {
        _ = &mut clients => {}
        () = show_progress(&traffic, duration) => {}
        () = stop => {
            traffic.stopped.store(true, Ordering::Relaxed);
            clients.await;
        }
    }
}

// === impl Traffic ===

impl Traffic {
    async fn client(&self) {
        while Instant::now() < self.end && !self.stopped.load(Ordering::Relaxed) {
            let number = self.sent.fetch_add(1, Ordering::Relaxed);
            self.ask(number).await;
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request that fails is counted by the gateway, and that is where the report looks.
    async fn ask(&self, number: u64) {
        let stream = number % STREAMED == STREAMED - 1;
        let body =
            json!({ "model": "auto", "messages": self.prompts.deal(number), "stream": stream }).to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("the parts of the request are valid");
        if let Ok(answer) = self.client.request(request).await {
            let mut body = answer.into_body();
            while let Some(Ok(_)) = body.frame().await {}
        }
    }
}

/// A bar on a terminal, until this is dropped; nothing where standard error is a file.
async fn show_progress(traffic: &Traffic, duration: Duration) {
    let start = Instant::now();
    let length = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let bar = ProgressBar::new(length).with_finish(ProgressFinish::AndClear);
    let style = ProgressStyle::with_template("  {bar:40} {msg}").expect("the template is valid");
    bar.set_style(style);
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let passed = start.elapsed().min(duration);
        bar.set_position(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
        let done = traffic.done.load(Ordering::Relaxed);
        bar.set_message(format!("{done} requests in {}s of {}s", passed.as_secs(), duration.as_secs()));
    }
}
