//! `campaign_report`: named archives, signed in a header (Campaign Report API and Campaign Stats and Reports API,
//! section "Campaign Report").

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{endpoint::below, transport::Request};

/// Carries the signature of the file name.
pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("signature");

/// `{base}/campaign_reports/rest_api/{APP_ID}/{FILENAME}`.
pub(super) fn url(base_url: &Url, app_id: &str, file_name: &str) -> Url {
    below(base_url, &["campaign_reports", "rest_api", app_id, file_name])
}

pub(super) fn request(url: Url, signature: &SecretString) -> Result<Request, InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(signature.expose_secret())?;
    value.set_sensitive(true);
    Ok(Request { url, credentials: HeaderMap::from_iter([(SIGNATURE, value)]), json: None })
}
