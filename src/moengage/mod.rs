//! HTTP to MoEngage: requests an archive or a page, derives the outcome from the response, and passes on its contents.
//!
//! This folder must not know the contents of an archive, where it is stored, which page is next, or when a request is
//! repeated. Its files, from the top down:
//!
//! | file | subject |
//! |---|---|
//! | `download` | an archive: the request, the outcome of its status, its bytes |
//! | `page` | one page of a JSON API |
//! | `address` | where a partition is requested; a line for curl |
//! | `question` | a question to a JSON API: URL, body, reading its pages |
//! | `campaign_report`, `daily_dump`, `campaign_stats`, `campaigns`, `executions` | one API each |
//! | `contents` | the contents of a page, in the form that all JSON APIs share |
//! | `status` | what a status means, and when to request again |
//! | `error_body` | the body of an error response |
//! | `repair` | JSON that MoEngage writes wrongly |
//! | `transport` | one request, redirects included |
//! | `sender` | one request, without redirects: connections, and why there is no response |
//! | `body` | the body of a response: deadline, minimum rate, damage |
//! | `bandwidth` | the limit on the bytes a second of all downloads |
//! | `head` | status, headers and dates of a response |
//! | `endpoint` | URLs below a base URL |
//! | `encoding` | gzip that a server puts around an archive |
//! | `redact` | secrets in texts |

mod address;
mod bandwidth;
mod body;
mod campaign_report;
mod campaign_stats;
mod campaigns;
mod contents;
mod daily_dump;
mod download;
mod encoding;
mod endpoint;
mod error_body;
mod executions;
mod head;
mod page;
mod question;
mod redact;
mod repair;
mod sender;
mod status;
mod transport;

use std::sync::Arc;

pub use self::{
    address::{curl_line, source_url},
    campaigns::executions_parent,
    download::Download,
    encoding::AnnouncedGzip,
    page::{Page, Record, Unread},
    question::{Question, RequestId},
    redact::shown,
    repair::{JsonRepair, Oddity},
    sender::{Outgoing, Sender},
};
use self::{sender::HttpSender, transport::Transport};
use crate::{
    config::{Limits, Network},
    http::ClientError,
};

/// The client of MoEngage. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    transport: Transport,
}

impl Client {
    /// Prepares connections: the proxy of the configuration, else that of the system's environment; the system's
    /// certificate authorities and those of `ca_file`; TLS 1.2 or later.
    ///
    /// # Errors
    ///
    /// If `ca_file` or the proxy cannot be used, or the system has no certificate authorities at all.
    pub fn new(network: &Network, limits: &Limits) -> Result<Self, ClientError> {
        Ok(Self::over(Arc::new(HttpSender::new(network, limits)?), network, limits))
    }

    /// A client whose requests are sent by `sender`. Redirects, deadlines, bandwidth and the minimum rate are the same.
    pub fn over(sender: Arc<dyn Sender>, network: &Network, limits: &Limits) -> Self {
        let transport = Transport::new(sender, network.allow_http, limits);
        transport.bandwidth().set(limits.bandwidth);
        Client { transport }
    }

    /// This client in place of `old`: downloads of both together keep to this client's bandwidth.
    #[must_use]
    pub fn replacing(self, old: &Client, limits: &Limits) -> Self {
        let bandwidth = old.transport.bandwidth().clone();
        bandwidth.set(limits.bandwidth);
        Client { transport: self.transport.limited_by(bandwidth) }
    }
}
