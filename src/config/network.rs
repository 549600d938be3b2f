//! The `[network]` table.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Mistakes, address, document::KeyPath, files::NamedFile};

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct Raw {
    /// HTTP proxy for requests to MoEngage, such as `http://proxy.example:3128`; default: the value of `HTTPS_PROXY`.
    proxy: Option<String>,
    /// PEM file with certificate authorities to trust besides the usual ones, for MoEngage, notification targets and
    /// destinations.
    ca_file: Option<String>,
    /// Whether a `base_url` may begin with `http://`. For loopback addresses it always may.
    pub(super) allow_http: bool,
}

/// How MoEngage and other servers are reached.
#[derive(Clone)]
pub struct Network {
    /// HTTP proxy for requests to MoEngage. May contain credentials.
    pub proxy: Option<Url>,
    /// PEM file with extra certificate authorities.
    pub ca_file: Option<NamedFile>,
    /// Whether `http://` base URLs are allowed for hosts other than loopback.
    pub allow_http: bool,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            // The rest of the URL may contain credentials.
            .field("proxy_host", &self.proxy.as_ref().and_then(Url::host_str))
            .field("ca_file", &self.ca_file.as_ref().map(|file| &file.path))
            .field("allow_http", &self.allow_http)
            .finish()
    }
}

impl Raw {
    pub(super) fn check(&self, at: &KeyPath<'_>) -> Result<Network, Mistakes> {
        let mut mistakes = Mistakes::default();
        // The message does not show the URL: it may contain a password.
        let proxy = self.proxy.as_deref().map(|text| {
            address::parse(text)
                .ok_or_else(|| at.key("proxy").problem("expected an address such as \"http://proxy.example:3128\""))
        });
        let proxy = mistakes.keep(proxy.transpose());
        let ca_file = mistakes.keep(NamedFile::check(self.ca_file.as_deref(), &at.key("ca_file")));
        mistakes.finish(|| Some(Network { proxy: proxy?, ca_file: ca_file?, allow_http: self.allow_http }))
    }
}
