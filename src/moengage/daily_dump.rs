//! `daily_dump`: one archive a day for the whole account, signed in the query (Daily Campaign Report API). The signed
//! URL is itself a secret.

use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{endpoint::below, transport::Request};

/// `{base}/dailyCampaignReportDump/{API_ID}/{YYYYMMDD}.zip`, without the signature.
pub(super) fn url(base_url: &Url, app_id: &str, file_name: &str) -> Url {
    below(base_url, &["dailyCampaignReportDump", app_id, file_name])
}

pub(super) fn signed(mut url: Url, signature: &SecretString) -> Url {
    url.query_pairs_mut().append_pair("Signature", signature.expose_secret());
    url
}

pub(super) fn request(url: Url, signature: &SecretString) -> Request {
    Request { url: signed(url, signature), credentials: HeaderMap::new(), json: None }
}
