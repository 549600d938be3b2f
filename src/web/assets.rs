//! Style, script and icon, from the binary. Each has a hash of its content in its name, so browsers may cache it without
//! limit.

use std::sync::LazyLock;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

/// The look of every page.
pub(super) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("style", "css", "text/css; charset=utf-8", include_str!("assets/style.css")));
/// Updates the page and shows local times, where scripts run.
pub(super) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("app", "js", "text/javascript; charset=utf-8", include_str!("assets/app.js")));
/// The icon of the page.
pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")));

/// A file that never changes under its name.
pub(super) struct Asset {
    name: String,
    content_type: &'static str,
    text: &'static str,
}

impl Asset {
    fn new(stem: &str, suffix: &str, content_type: &'static str, text: &'static str) -> Self {
        let hash = hex::encode(Sha256::digest(text));
        Self { name: format!("{stem}-{}.{suffix}", &hash[..12]), content_type, text }
    }

    /// The path of its URL.
    pub(super) fn path(&self) -> String {
        format!("/assets/{}", self.name)
    }
}

/// The asset of that name.
pub(super) fn response(name: &str) -> Option<Response> {
    let asset = [&STYLE, &SCRIPT, &ICON].into_iter().find(|asset| asset.name == name)?;
    let headers =
        [(header::CONTENT_TYPE, asset.content_type), (header::CACHE_CONTROL, "private, max-age=31536000, immutable")];
    Some((headers, asset.text).into_response())
}
