//! HTTP to MoEngage: asks for an archive or a page, judges the answer, and hands on its contents.
//!
//! This folder must not know the contents of an archive, where it goes, which page is next, or when a request is repeated.
//! One file a subject, from the top down:
//!
//! | file | subject |
//! |---|---|
//! | `download` | an archive: the request, the judged answer, its bytes |
//! | `page` | one page of a JSON API |
//! | `address` | where a partition is requested; a line for curl |
//! | `question` | a request to a JSON API: URL, body and contents of the answer |
//! | `campaign_report`, `daily_dump`, `campaign_stats`, `campaigns`, `executions` | one API each |
//! | `contents` | the contents of an answer, in the form that all JSON APIs share |
//! | `answer` | what a status, and the body of an error, mean |
//! | `repair` | JSON that MoEngage writes wrongly |
//! | `transport` | the network: requests, redirects, deadlines, bodies |
//! | `encoding` | gzip that a server puts around an archive |
//! | `redact` | secrets in texts |

mod address;
mod answer;
mod campaign_report;
mod campaign_stats;
mod campaigns;
mod contents;
mod daily_dump;
mod download;
mod encoding;
mod executions;
mod page;
mod question;
mod redact;
mod repair;
mod transport;

use self::transport::Transport;
pub use self::{
    address::{curl_line, source_url},
    campaigns::executions_parent,
    download::Download,
    encoding::AnnouncedGzip,
    page::{Page, Record, Unread},
    question::{Question, RequestId},
    redact::shown,
    repair::{Oddity, Repair},
};
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
        Ok(Client { transport: Transport::new(network, limits)? })
    }
}
