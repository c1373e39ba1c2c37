//! What is served: a file a group of routes.

mod chat;
mod health;
mod models;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, Request, Uri};
use axum::routing::{MethodRouter, any, get, get_service, post_service};
use futures_util::FutureExt as _;
use throughline::{Context, Primitive as _};

use crate::errors::ApiError;
use crate::exchange::{Exchange, Received, Reply};
use crate::gateway::Gateway;
use crate::served::Served;

/// A route that is observed. Its path is a label: there are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `POST /v1/chat/completions`
    Chat,
    /// `GET /v1/models` and `GET /v1/models/NAME`
    Models,
    /// Every other path, and every wrong method.
    Other,
}

// === impl Route ===

impl Route {
    /// The path, as label and attribute.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Models => "/v1/models",
            Self::Other => "other",
        }
    }

    /// The method, as attribute.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Chat => "POST",
            Self::Models => "GET",
            Self::Other => "_OTHER",
        }
    }

    /// The name of the server span.
    pub(crate) fn span_name(self) -> &'static str {
        match self {
            Self::Chat => "POST /v1/chat/completions",
            Self::Models => "GET /v1/models",
            Self::Other => "HTTP other",
        }
    }

    /// Answers a request.
    pub(crate) async fn answer(
        self,
        gateway: &Gateway,
        served: &Served,
        request: Request<Body>,
        cx: &Context,
    ) -> Reply {
        if is_foreign(request.headers()) {
            return Reply::Whole(ApiError::foreign_origin().into_response());
        }
        match self {
            Self::Chat => chat::answer(gateway, served, request, cx).await,
            Self::Models => Reply::Whole(models::answer(served, request.uri().path())),
            Self::Other => Reply::Whole(refuse(&request).into_response()),
        }
    }
}

/// Whether a browser sends this for a page that is not of this machine. Nobody else names an origin, and
/// without this any page that is open could spend the operator's money.
fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let host = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok()?.host().map(str::to_owned));
    host.is_none_or(|host| {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        host != "localhost" && !address.is_ok_and(|address| address.is_loopback())
    })
}

fn refuse(request: &Request<Body>) -> ApiError {
    match request.uri().path() {
        "/v1/chat/completions" | "/v1/models" | "/healthz" | "/readyz" => ApiError::wrong_method(),
        path if path.starts_with("/v1/models/") => ApiError::wrong_method(),
        _ => ApiError::unknown_path(),
    }
}

/// The HTTP face of `gateway`.
pub(crate) fn router(gateway: &Arc<Gateway>) -> Router {
    let other = observed(Route::Other, gateway);
    let chat = post_service(observed(Route::Chat, gateway)).fallback_service(other.clone());
    let models = get_service(observed(Route::Models, gateway)).fallback_service(other.clone());
    Router::new()
        .route(Route::Chat.path(), chat)
        .route(Route::Models.path(), models.clone())
        .route("/v1/models/{*name}", models)
        .route("/healthz", get(health::live).fallback_service(other.clone()))
        .route("/readyz", get(health::ready).fallback_service(other.clone()))
        .with_state(Arc::clone(gateway))
        .fallback_service(other)
}

/// A service for every request to `route`, in whichever way it gets here.
fn observed(route: Route, gateway: &Arc<Gateway>) -> MethodRouter {
    let (exchange, gateway) = (Exchange::new(route, Arc::clone(gateway)), Arc::clone(gateway));
    exchange.bind(gateway.sink());
    any(move |request: Request<Body>| {
        let (exchange, gateway) = (exchange.clone(), Arc::clone(&gateway));
        async move {
            let served = gateway.served();
            let cx = served.context(request.headers(), gateway.sink());
            // The run has counted the panic, and the panic hook has shown it.
            let answer =
                AssertUnwindSafe(exchange.execute(Received { request, served }, &cx)).catch_unwind().await;
            match answer {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => ApiError::from(&error).into_response(),
                Err(_) => ApiError::internal().into_response(),
            }
        }
    })
}
