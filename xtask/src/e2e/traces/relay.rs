//! Hands every export on to several backends, byte for byte: so they are asked about the same request.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use crate::e2e::http::{self, Request};

/// What says how the body is to be read, and what an exporter was told to say.
const HEADERS: [&str; 3] = ["content-type", "content-encoding", "x-mlflow-experiment-id"];

/// A running relay. It serves until the program ends.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    refusals: Arc<Mutex<Vec<String>>>,
}

// === impl Relay ===

impl Relay {
    /// To the addresses of `/v1/traces`.
    ///
    /// # Errors
    /// When there is no free port.
    pub(crate) fn start(targets: Vec<String>) -> io::Result<Self> {
        let refusals = Arc::<Mutex<Vec<String>>>::default();
        let (client, noted) = (http::client(), Arc::clone(&refusals));
        let address =
            http::serve(move |request, stream| hand_on(&client, &targets, &noted, request, stream))?;
        Ok(Self { address, refusals })
    }

    /// What backends said to exports that they did not take.
    pub(crate) fn refusals(&self) -> Vec<String> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn hand_on(
    client: &ureq::Agent,
    targets: &[String],
    refusals: &Mutex<Vec<String>>,
    request: &Request,
    stream: &mut TcpStream,
) -> io::Result<()> {
    if request.path != "/v1/traces" {
        return http::respond(stream, 404, "text/plain", b"only /v1/traces is handed on");
    }
    let refused: Vec<_> = targets.iter().filter_map(|target| send(client, target, request).err()).collect();
    let status = if refused.is_empty() { 200 } else { 400 };
    refusals.lock().unwrap_or_else(PoisonError::into_inner).extend(refused);
    // Nothing in an empty message of protobuf: all was taken.
    http::respond(stream, status, "application/x-protobuf", b"")
}

fn send(client: &ureq::Agent, target: &str, request: &Request) -> Result<(), String> {
    let mut handed_on = client.post(target);
    for name in HEADERS {
        if let Some(value) = request.header(name) {
            handed_on = handed_on.header(name, value);
        }
    }
    match handed_on.send(&request.body) {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(mut answer) => {
            let said = answer.body_mut().read_to_string().unwrap_or_default();
            Err(format!("{target} refused an export with {}: {said}", answer.status()))
        }
        Err(error) => Err(format!("{target} could not be reached: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(status: u16) -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
        let got = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let taken = Arc::clone(&got);
        let address = http::serve(move |request, stream| {
            taken.lock().unwrap().push(request.body.clone());
            http::respond(stream, status, "text/plain", b"no room")
        });
        (format!("http://{}/v1/traces", address.unwrap()), got)
    }

    #[test]
    fn all_get_the_same_bytes_and_one_that_refuses_is_told_of() {
        let ((well, one), (ill, other)) = (target(200), target(507));
        let relay = Relay::start(vec![well, ill.clone()]).unwrap();
        let elsewhere = http::client().post(format!("http://{}/v1/logs", relay.address)).send("");
        assert_eq!(elsewhere.unwrap().status(), 404);
        let answer = http::client().post(format!("http://{}/v1/traces", relay.address)).send(&[0, 159, 146]);
        assert_eq!(answer.unwrap().status(), 400);
        assert_eq!(*one.lock().unwrap(), [[0, 159, 146]]);
        assert_eq!(*other.lock().unwrap(), [[0, 159, 146]]);
        let refusals = relay.refusals();
        assert_eq!(refusals.len(), 1);
        assert!(refusals[0].starts_with(&ill) && refusals[0].ends_with("no room"), "{refusals:?}");
    }
}
