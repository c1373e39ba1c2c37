//! As much of an HTTP server as a peer in a script needs, and a client for JSON.
//!
//! A framework would hide what these peers are for: to hang in the middle of an answer, and to hand a body on
//! byte for byte.

use std::io::{self, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// The longest that a backend may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What a peer does with a request; its first error ends the connection.
pub(crate) type Handle = dyn Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync;

/// Serves on a free port of loopback until the program ends, a thread a connection. A connection ends with the
/// first error of `handle`.
///
/// # Errors
/// When there is no free port.
pub(crate) fn serve(
    handle: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let handle: Arc<Handle> = Arc::new(handle);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = Arc::clone(&handle);
            thread::spawn(move || converse(stream, &*handle));
        }
    });
    Ok(address)
}

/// A server that can go and come back: while it is away, its port refuses.
pub(crate) struct Peer {
    address: SocketAddr,
    handle: Arc<Handle>,
    /// Of the time that it is there now.
    present: Option<Arc<AtomicBool>>,
}

fn converse(mut stream: TcpStream, handle: &Handle) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = receive(&mut reader)? {
        handle(&request, &mut stream)?;
    }
    Ok(())
}

/// Reads one request; `None` when the other side has closed. Who calls us knows the length of what it sends.
fn receive(reader: &mut impl io::BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { path, headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
    request.body = vec![0; length];
    reader.read_exact(&mut request.body)?;
    Ok(Some(request))
}

/// Sends a whole answer.
///
/// # Errors
/// When the other side has gone.
pub(crate) fn respond(
    stream: &mut TcpStream,
    status: u16,
    content_type: &str,
    body: &[u8],
) -> io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} .\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    )?;
    stream.write_all(body)
}

/// A client that takes every status as an answer.
pub(crate) fn client() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
    config.proxy(None).build().new_agent()
}

/// The JSON at `url`, with its status; `None` when there is no answer, or none in JSON.
pub(crate) fn get_json(client: &ureq::Agent, url: &str) -> Option<(u16, Value)> {
    let mut answer = client.get(url).call().ok()?;
    let text = answer.body_mut().read_to_string().ok()?;
    Some((answer.status().as_u16(), serde_json::from_str(&text).ok()?))
}

/// What `url` answers to `body`, in JSON, if it answers well.
pub(crate) fn post_json(client: &ureq::Agent, url: &str, body: &Value) -> Option<Value> {
    let request = client.post(url).header("content-type", "application/json");
    let mut answer = request.send(body.to_string()).ok()?;
    let text = answer.body_mut().read_to_string().ok()?;
    answer.status().is_success().then(|| serde_json::from_str(&text).ok()).flatten()
}

// === impl Peer ===

impl Peer {
    /// On a free port of loopback.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn start(
        handle: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), handle)
    }

    /// At this address.
    ///
    /// # Errors
    /// When somebody else is there.
    pub(crate) fn start_at(
        address: SocketAddr,
        handle: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let mut peer = Self { address, handle: Arc::new(handle), present: None };
        peer.come()?;
        Ok(peer)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens, where it listened before.
    ///
    /// # Errors
    /// When somebody else has taken the port.
    pub(crate) fn come(&mut self) -> io::Result<()> {
        if self.present.is_some() {
            return Ok(());
        }
        let listener = TcpListener::bind(self.address)?;
        self.address = listener.local_addr()?;
        let (present, handle) = (Arc::new(AtomicBool::new(true)), Arc::clone(&self.handle));
        self.present = Some(Arc::clone(&present));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !present.load(Ordering::SeqCst) {
                    break;
                }
                let (handle, present) = (Arc::clone(&handle), Arc::clone(&present));
                thread::spawn(move || {
                    let while_present = move |request: &Request, stream: &mut TcpStream| {
                        if present.load(Ordering::SeqCst) {
                            handle(request, stream)
                        } else {
                            Err(io::ErrorKind::ConnectionAborted.into())
                        }
                    };
                    converse(stream, &while_present)
                });
            }
        });
        Ok(())
    }

    /// Refuses from here on, and drops connections that are open when something is asked on them.
    pub(crate) fn go(&mut self) {
        if let Some(present) = self.present.take() {
            present.store(false, Ordering::SeqCst);
            // Its thread waits for a connection; this one lets it end, and the port is free then.
            let _woken = TcpStream::connect(self.address);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.go();
    }
}

// === impl Request ===

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn serves_several_requests_of_one_connection() {
        let address = serve(|request, stream| {
            let text = String::from_utf8_lossy(&request.body).into_owned();
            let said = json!({ "path": request.path, "type": request.header("content-type"), "body": text });
            respond(stream, 200, "application/json", said.to_string().as_bytes())
        });
        let (client, url) = (client(), format!("http://{}/a", address.unwrap()));
        for number in [1, 2] {
            let answer = post_json(&client, &url, &json!(number)).unwrap();
            assert_eq!(
                answer,
                json!({ "path": "/a", "type": "application/json", "body": number.to_string() })
            );
        }
    }

    #[test]
    fn a_peer_that_has_gone_refuses_until_it_comes_back_to_its_port() {
        let mut peer = Peer::start(|_, stream| respond(stream, 200, "application/json", b"{}")).unwrap();
        let (client, url) = (client(), format!("http://{}/", peer.address()));
        let there = || get_json(&client, &url).is_some();
        let becomes = |wanted: bool| {
            let interrupt = super::super::interrupt::Interrupt::default();
            interrupt.poll(PATIENCE, || Ok((there() == wanted).then_some(()))).unwrap()
        };
        for _ in 0..2 {
            assert_eq!(becomes(true), Some(()));
            peer.go();
            assert_eq!(becomes(false), Some(()));
            peer.come().unwrap();
        }
    }

    #[test]
    fn a_status_is_an_answer_and_a_refused_connection_is_none() {
        let address = serve(|_, stream| respond(stream, 404, "application/json", b"{}")).unwrap();
        assert_eq!(get_json(&client(), &format!("http://{address}/")), Some((404, json!({}))));
        assert_eq!(post_json(&client(), &format!("http://{address}/"), &json!({})), None);
        let free = super::super::service::free_port().unwrap();
        assert_eq!(get_json(&client(), &format!("http://127.0.0.1:{free}/")), None);
    }
}
