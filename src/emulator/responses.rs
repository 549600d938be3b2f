//! Parts that the APIs share: routes of one method, query parameters, MoEngage's errors.

use axum::{
    Extension,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use serde_json::json;

use super::recipe::Recipe;

/// `handler` for GET, and 405 for every other method, HEAD included.
pub(super) fn get_only<H, T, S>(handler: H) -> MethodRouter<S>
where
    H: axum::handler::Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    only("GET", MethodFilter::GET, handler)
}

/// `handler` for POST, and 405 for every other method.
pub(super) fn post_only<H, T, S>(handler: H) -> MethodRouter<S>
where
    H: axum::handler::Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    only("POST", MethodFilter::POST, handler)
}

fn only<H, T, S>(name: &'static str, method: MethodFilter, handler: H) -> MethodRouter<S>
where
    H: axum::handler::Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    let refuse = async move || {
        let message = format!("only {name} is supported");
        let refusal = json_error(StatusCode::METHOD_NOT_ALLOWED, "METHOD NOT ALLOWED", &message);
        ([(header::ALLOW, name)], refusal)
    };
    on(method, handler).head(refuse).fallback(refuse)
}

/// The first value of a query parameter, decoded.
pub(super) fn query_value(query: Option<String>, name: &str) -> Option<String> {
    let query = query?;
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// An error in MoEngage's form (document 001, "Response Description").
pub(super) fn json_error(status: StatusCode, kind: &str, message: &str) -> Response {
    let error = json!({"error": {"attribute": "", "message": message, "type": kind, "request_id": ""}});
    (status, [(header::CONTENT_TYPE, "application/json")], error.to_string()).into_response()
}

/// 400 in MoEngage's form.
pub(super) fn bad_request(message: &str) -> Response {
    json_error(StatusCode::BAD_REQUEST, "BAD REQUEST", message)
}

/// 401 of the campaign report API: an empty body of type JSON.
pub(super) fn unauthorized() -> Response {
    (StatusCode::UNAUTHORIZED, [(header::CONTENT_TYPE, "application/json")]).into_response()
}

/// Stands for the archive of `recipe` until `middleware.rs` sends it.
pub(super) fn archive(recipe: Recipe) -> Response {
    Extension(recipe).into_response()
}
