//! What goes wrong between here and a provider, and what of it is told.

use std::time::Duration;

use throughline::{Blame, Context, Error, Kind};
use throughline_llm::{ClientError, ClientErrorKind, MAX_ANSWER_BYTES, Refusal};
use tokio::net::TcpListener;

use super::upstream::{Act, Upstream};
use super::{STREAMED, ask, plain, request};

async fn failure(script: Vec<Act>) -> Error {
    let upstream = Upstream::start(script).await;
    plain(&ask(upstream.base_url.clone()), &Context::new()).await.unwrap_err()
}

fn client_error(error: &Error) -> ClientErrorKind {
    error.cause::<ClientError>().expect("the client says what happened").kind()
}

#[tokio::test]
async fn a_rate_limit_says_when_to_come_back() {
    let error =
        failure(vec![Act::json(429, "retry-after: 7\r\n", r#"{"error":{"message":"slow down"}}"#)]).await;
    assert_eq!((error.kind(), error.is_retryable()), (Kind::RateLimited, true));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert_eq!(error.to_string(), "the provider limits our rate");
    let error = failure(vec![Act::json(429, "", "")]).await;
    assert_eq!((error.is_retryable(), error.retry_after()), (true, None));
}

#[tokio::test]
async fn a_refused_key_says_nothing_of_what_the_provider_said() {
    let body = r#"{"error":{"message":"Incorrect API key provided: sk-12**34","code":"invalid_api_key"}}"#;
    for status in [401, 403] {
        let error = failure(vec![Act::json(status, "", body)]).await;
        assert_eq!(
            (error.kind(), error.is_retryable(), error.blame()),
            (Kind::Upstream, false, Blame::Upstream)
        );
        assert_eq!(error.to_string(), format!("the provider refused our key with {status}"));
        assert!(error.cause::<Refusal>().is_none());
        assert!(!format!("{error:?}").contains("sk-"));
    }
}

#[tokio::test]
async fn a_refused_request_says_what_was_wrong_with_it() {
    let body = r#"{"error":{"message":"too many tokens","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;
    let error = failure(vec![Act::json(400, "", body)]).await;
    assert_eq!(
        (error.kind(), error.is_retryable(), error.blame()),
        (Kind::InvalidInput, false, Blame::Caller)
    );
    let refusal: &Refusal = error.cause().unwrap();
    assert_eq!((refusal.status, refusal.message.as_str()), (400, "too many tokens"));
    assert_eq!(refusal.code.as_deref(), Some("context_length_exceeded"));
}

#[tokio::test]
async fn a_failing_provider_can_be_tried_again() {
    for status in [500, 502, 503, 504, 529] {
        let error = failure(vec![Act::json(status, "", "<html>")]).await;
        assert_eq!((error.kind(), error.is_retryable()), (Kind::Upstream, true), "{status}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_answer_is_a_failure() {
    for body in ["", "<html>", "{}", r#"{"error":{"message":"sk-1234"}}"#] {
        let error = failure(vec![Act::json(200, "", body)]).await;
        assert_eq!(error.kind(), Kind::Upstream, "{body}");
        assert!(!format!("{error:?}").contains("sk-1234"));
    }
}

#[tokio::test]
async fn a_refused_connection_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let error = plain(&ask(base_url), &Context::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Upstream, true));
    assert_eq!(error.to_string(), "the provider could not be reached");
    assert_eq!(client_error(&error), ClientErrorKind::Refused);
}

#[tokio::test]
async fn a_connection_that_breaks_is_told() {
    let half = || Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{\"choices\":".to_vec());
    for script in [vec![Act::Reset], vec![Act::Close], vec![half(), Act::Reset], vec![half(), Act::Close]] {
        let error = failure(script.clone()).await;
        assert_eq!((error.kind(), error.is_retryable()), (Kind::Upstream, true), "{script:?}");
        assert_eq!(client_error(&error), ClientErrorKind::Interrupted, "{script:?}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let announced = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", MAX_ANSWER_BYTES + 1);
    let endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for script in
        [vec![Act::Send(announced.into())], vec![Act::Send(endless), Act::chunks(vec![b' '; 1 << 20])]]
    {
        let upstream = Upstream::start(script).await;
        let error = plain(&ask(upstream.base_url.clone()), &Context::new()).await.unwrap_err();
        assert_eq!(client_error(&error), ClientErrorKind::TooLarge);
        upstream.closed().await;
    }
}

#[tokio::test]
async fn an_explanation_without_end_is_not_waited_for() {
    let head = b"HTTP/1.1 400 x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let upstream = Upstream::start(vec![Act::Send(head), Act::chunks(b"sk-1")]).await;
    let error = plain(&ask(upstream.base_url.clone()), &Context::new()).await.unwrap_err();
    assert_eq!(error.cause::<Refusal>().unwrap().message, "the provider answered 400");
    upstream.closed().await;
}

#[tokio::test]
async fn a_call_that_is_dropped_closes_the_connection() {
    for body in [super::PLAIN, STREAMED] {
        let upstream = Upstream::start(vec![]).await;
        let (ask, cx) = (ask(upstream.base_url.clone()), Context::new());
        let mut call = Box::pin(ask.run(request(body), &cx));
        while upstream.seen().is_empty() {
            tokio::select! {
                biased;
                answer = &mut call => panic!("{answer:?} came from nowhere"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(call);
        upstream.closed().await;
    }
}
