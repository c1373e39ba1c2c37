//! Who is let in: whoever shows a token, and no web page, whatever it shows.
//!
//! A page that is open on an operator's machine reaches this port too. It has no token, and a browser sends none by itself; a form
//! cannot send JSON, and questions of browsers before other requests (`OPTIONS`) are refused like everything without a token. What
//! browsers say of a page is refused all the same, and so is a `Host` of another machine, by which a page that has its own name point here
//! (DNS rebinding) gives itself away.

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method};

use super::refusal::Refusal;
use super::wire::Task;
use crate::config::is_loopback;

/// What browsers say of a request, and nobody else.
const OF_BROWSERS: [&str; 3] = ["sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest"];

/// What a request asks for, if it may. `admits` says whether a token does.
///
/// # Errors
/// Why it may not.
pub(super) fn admitted(head: &Parts, admits: impl Fn(&str) -> bool) -> Result<Task, Refusal> {
    if !is_for_here(head) {
        return Err(Refusal::foreign_host());
    }
    let headers = &head.headers;
    if headers.contains_key(ORIGIN) || OF_BROWSERS.iter().any(|name| headers.contains_key(*name)) {
        return Err(Refusal::browser());
    }
    if !token(headers).is_some_and(admits) {
        return Err(Refusal::unauthorized());
    }
    let task = Task::at(head.uri.path()).ok_or_else(Refusal::unknown_path)?;
    if head.method != Method::POST {
        return Err(Refusal::wrong_method());
    }
    if !is_json(headers) {
        return Err(Refusal::not_json());
    }
    Ok(task)
}

/// Whether it names this machine, once, and nowhere another one.
fn is_for_here(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let host = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    host.is_some_and(|host| is_here(&host)) && head.uri.authority().is_none_or(is_here)
}

fn is_here(authority: &Authority) -> bool {
    is_loopback(authority.host()) && !authority.as_str().contains('@')
}

/// The token that is shown, if it is one.
fn token(headers: &HeaderMap) -> Option<&str> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let (Some(shown), None) = (shown.next(), shown.next()) else { return None };
    let (scheme, token) = shown.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// What becomes of a request that is fine but for these headers; an empty value takes one away.
    fn code(method: &str, uri: &str, other: &[(&str, &str)]) -> Result<Task, &'static str> {
        let mut request = Request::builder().method(method).uri(uri);
        let fine = [
            ("host", "127.0.0.1:9465"),
            ("authorization", "Bearer right"),
            ("content-type", "application/json"),
        ];
        for (name, value) in fine.iter().filter(|(name, _)| !other.iter().any(|(same, _)| same == name)) {
            request = request.header(*name, *value);
        }
        for (name, value) in other.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        admitted(&head, |token| token == "right").map_err(|refusal| refusal.code)
    }

    #[test]
    fn who_shows_a_token_by_post_with_json_is_let_in() {
        let purge = "/admin/cache/purge";
        assert_eq!(code("POST", purge, &[]), Ok(Task::Purge));
        for fine in [
            ("host", "localhost:1"),
            ("host", "[::1]:9465"),
            ("host", "LOCALHOST"),
            ("authorization", "bearer right"),
            ("content-type", "Application/JSON; charset=utf-8"),
        ] {
            assert_eq!(code("POST", purge, &[fine]), Ok(Task::Purge), "{fine:?}");
        }
    }

    #[test]
    fn everybody_else_is_not() {
        let purge = "/admin/cache/purge";
        for (header, expected) in [
            (("authorization", ""), "unauthorized"),
            (("authorization", "Bearer wrong"), "unauthorized"),
            (("authorization", "Bearer"), "unauthorized"),
            (("authorization", "Basic right"), "unauthorized"),
            (("authorization", "right"), "unauthorized"),
            (("origin", "http://127.0.0.1:9465"), "browser"),
            (("origin", "null"), "browser"),
            (("sec-fetch-site", "same-origin"), "browser"),
            (("sec-fetch-mode", "navigate"), "browser"),
            (("host", ""), "foreign_host"),
            (("host", "evil.example:9465"), "foreign_host"),
            (("host", "127.0.0.1.evil.example"), "foreign_host"),
            (("host", "localhost.evil.example"), "foreign_host"),
            (("host", "0.0.0.0:9465"), "foreign_host"),
            (("host", "evil.example@localhost"), "foreign_host"),
            (("content-type", ""), "wrong_content_type"),
            (("content-type", "text/plain"), "wrong_content_type"),
            (("content-type", "application/x-www-form-urlencoded"), "wrong_content_type"),
        ] {
            assert_eq!(code("POST", purge, &[header]), Err(expected), "{header:?}");
        }
        let twice = [("authorization", "Bearer right"), ("authorization", "Bearer wrong")];
        assert_eq!(code("POST", purge, &twice), Err("unauthorized"));
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(code("POST", purge, &twice), Err("foreign_host"));
        assert_eq!(code("POST", "http://evil.example/admin/cache/purge", &[]), Err("foreign_host"));
    }

    #[test]
    fn only_these_paths_are_there_and_nobody_learns_of_them_without_a_token() {
        for path in ["/", "/admin/cache", "/admin/cache/purge/", "/admin//cache/purge", "/ADMIN/cache/purge"]
        {
            assert_eq!(code("POST", path, &[]), Err("unknown_path"), "{path}");
            assert_eq!(code("POST", path, &[("authorization", "")]), Err("unauthorized"), "{path}");
        }
        for method in ["GET", "DELETE", "PUT", "OPTIONS", "HEAD"] {
            assert_eq!(code(method, "/admin/cache/purge", &[]), Err("wrong_method"), "{method}");
        }
        assert_eq!(code("OPTIONS", "/admin/cache/purge", &[("authorization", "")]), Err("unauthorized"));
    }
}
