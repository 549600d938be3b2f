//! The object storage that redirects lead to.
//!
//! This file owns presigned URLs. The storage is a third party's, so it must not know the account's keys.

use std::{io, sync::Arc};

use axum::{
    Router,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    recipe::Recipe,
    responses::{archive, get_only, query_value},
    vendor::Vendor,
};
use crate::lock::lock;

const FOLDER: &str = "/storage/";
const SIGNATURE: &str = "X-Amz-Signature";

pub(super) fn routes() -> Router<Arc<Vendor>> {
    Router::new().route("/storage/{token}", get_only(object))
}

/// Whether the storage serves `path`.
pub(super) fn serves(path: &str) -> bool {
    path.starts_with(FOLDER)
}

/// Makes the archive available and returns its URL, with the request's host if it has one.
pub(super) fn hand_over(vendor: &Vendor, recipe: Recipe, host: Option<HeaderValue>) -> io::Result<HeaderValue> {
    let (token, signature) = (vendor.archives.token("object", &recipe), vendor.archives.token("presigned", &recipe));
    lock(&vendor.handed_over).insert(token.clone(), recipe);
    let host = host.as_ref().and_then(|host| host.to_str().ok());
    let origin = host.map(|host| format!("http://{host}")).unwrap_or_default();
    HeaderValue::try_from(format!("{origin}{FOLDER}{token}?{SIGNATURE}={signature}")).map_err(io::Error::other)
}

async fn object(
    State(vendor): State<Arc<Vendor>>,
    Path(token): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if headers.contains_key("Signature") || headers.contains_key(header::AUTHORIZATION) {
        return refusal(StatusCode::BAD_REQUEST, "InvalidArgument", "Only one auth mechanism allowed");
    }
    let Some(recipe) = lock(&vendor.handed_over).get(&token).cloned() else {
        return refusal(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist");
    };
    if query_value(query, SIGNATURE) != Some(vendor.archives.token("presigned", &recipe)) {
        return refusal(StatusCode::FORBIDDEN, "SignatureDoesNotMatch", "The request signature does not match");
    }
    archive(recipe)
}

/// An error in S3's words.
fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    (status, [(header::CONTENT_TYPE, "application/xml")], xml).into_response()
}
