//! What a live Prometheus has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use throughline_llm::{HttpClient, collect};

use crate::causes::chain;

/// How long it may take to connect, and to answer.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);
const MOST: usize = 64 * 1024 * 1024;

/// A Prometheus, or what answers like one.
pub(super) struct Prometheus {
    client: HttpClient,
    /// Without a slash at its end.
    url: String,
}

/// An answer of the API.
#[derive(Deserialize)]
struct Envelope<T> {
    data: Option<T>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Vector {
    result: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    metric: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Loaded>,
}

/// A rule that Prometheus has loaded.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Loaded {
    pub(super) name: String,
    /// What was wrong when it was evaluated last; empty when nothing was.
    #[serde(default, rename = "lastError")]
    pub(super) last_error: String,
}

// === impl Prometheus ===

impl Prometheus {
    /// The one at this address.
    ///
    /// # Errors
    /// When that is no address.
    pub(super) fn at(url: &str) -> Result<Self, String> {
        let parsed: Option<Uri> = url.parse().ok();
        let fine = parsed
            .is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none());
        if !fine {
            return Err(format!("`{url}` is not the address of a Prometheus: write http://HOST:PORT"));
        }
        Ok(Self { client: HttpClient::new(CONNECT), url: url.trim_end_matches('/').to_owned() })
    }

    /// Which of the names have series now, those of the job where one is given.
    pub(super) async fn present(
        &self,
        names: &[&str],
        job: Option<&str>,
    ) -> Result<BTreeSet<String>, String> {
        if names.is_empty() {
            return Ok(BTreeSet::new());
        }
        let of_job = job.map(|job| format!(", job=\"{job}\"")).unwrap_or_default();
        // Names have no character that means something in a pattern.
        let query = format!("count by (__name__) ({{__name__=~\"{}\"{of_job}}})", names.join("|"));
        let body = format!("query={}", form(&query));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let uri = self.uri("/api/v1/query")?;
        let vector: Vector = self.read(self.client.post(&uri, headers, Bytes::from(body))).await?;
        Ok(vector.result.into_iter().filter_map(|mut sample| sample.metric.remove("__name__")).collect())
    }

    /// Every rule that it has loaded.
    pub(super) async fn rules(&self) -> Result<Vec<Loaded>, String> {
        let uri = self.uri("/api/v1/rules")?;
        let groups: Groups = self.read(self.client.get(&uri, HeaderMap::new())).await?;
        Ok(groups.groups.into_iter().flat_map(|group| group.rules).collect())
    }

    fn uri(&self, path: &str) -> Result<Uri, String> {
        let url = format!("{}{path}", self.url);
        url.parse().map_err(|_| format!("`{url}` is not an address"))
    }

    async fn read<T: DeserializeOwned>(
        &self,
        asked: impl Future<Output = Result<http::Response<hyper::body::Incoming>, throughline_llm::ClientError>>,
    ) -> Result<T, String> {
        let answered = async {
            let answer = asked.await.map_err(|error| chain(&error))?;
            let status = answer.status();
            let body = collect(answer.into_body(), MOST).await.map_err(|error| chain(&error))?;
            let envelope: Option<Envelope<T>> = serde_json::from_slice(&body).ok();
            match envelope {
                Some(Envelope { data: Some(data), .. }) => Ok(data),
                Some(Envelope { error: Some(error), .. }) => {
                    Err(format!("it says {}: {error}", status.as_u16()))
                }
                _ => Err(format!("it answers {} and nothing that Prometheus would", status.as_u16())),
            }
        };
        let outcome = tokio::time::timeout(ANSWER, answered).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER.as_secs())));
        outcome.map_err(|why| format!("cannot ask Prometheus at {}: {why}", self.url))
    }
}

/// A value of a form.
fn form(value: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    value.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_holds_any_query() {
        assert_eq!(form("up{a=~\"b|c\"} + 1"), "up%7Ba%3D~%22b%7Cc%22%7D%20%2B%201".replace('~', "%7E"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in ["prometheus:9090", "ftp://a", "http://a/?query=x", ""] {
            let why = Prometheus::at(url).err().unwrap();
            assert!(why.ends_with("write http://HOST:PORT"), "{why}");
        }
        assert_eq!(Prometheus::at("http://a:9090/prometheus/").ok().unwrap().url, "http://a:9090/prometheus");
    }
}
