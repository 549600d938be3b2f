//! URLs below a base URL.
//!
//! This file owns how they are escaped. It must not know which there are.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

/// Everything but the unreserved characters of RFC 3986, so that a server can read a segment in one way only.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The URL of `segments` below `base_url`, whose path is kept. Escapes each segment, so that the server receives exactly
/// its UTF-8 bytes.
pub(super) fn below(base_url: &Url, segments: &[&str]) -> Url {
    let mut url = base_url.clone();
    clear_userinfo(&mut url);
    url.set_query(None);
    url.set_fragment(None);
    let mut path = base_url.path().trim_end_matches('/').to_owned();
    for segment in segments {
        path.push('/');
        path.extend(utf8_percent_encode(segment, SEGMENT));
    }
    url.set_path(&path);
    url
}

/// Removes user name and password.
pub(super) fn clear_userinfo(url: &mut Url) {
    // Both fail only for URLs without a host, which have no user name or password.
    let _ = url.set_username("");
    let _ = url.set_password(None);
}
