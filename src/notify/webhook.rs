//! An event as signed JSON, by the Standard Webhooks specification (<https://www.standardwebhooks.com>).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use reqwest::{RequestBuilder, header::CONTENT_TYPE};
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;
use url::Url;

use crate::event::Event;

pub(super) fn request(
    http: &reqwest::Client,
    url: &Url,
    event: &Event,
    key: Option<&SecretSlice<u8>>,
    now: Timestamp,
) -> RequestBuilder {
    let body = serde_json::to_string(event).unwrap_or_default();
    // The time of this request, so that receivers can refuse replayed ones.
    let timestamp = now.as_second();
    let signature = key.map_or(String::new(), |key| sign(key, &event.id, timestamp, &body));
    http.post(url.clone())
        .header(CONTENT_TYPE, "application/json")
        .header("webhook-id", &event.id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature)
        .body(body)
}

/// `v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64; the timestamp is in seconds.
fn sign(key: &SecretSlice<u8>, id: &str, timestamp: i64, body: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose_secret()) else {
        // Unreachable: HMAC takes a key of any length.
        return String::new();
    };
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body.as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_vector_of_the_reference_libraries_is_reproduced() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap().into();
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
