//! A question to a JSON API: which API, its URL, its body, and how to read its pages.
//!
//! This file owns the choice of the API. It must not know how a request is sent.

use std::fmt;

use bytes::Bytes;
use jiff::civil::Date;
use url::Url;

use super::{campaign_stats, campaigns, contents::PageContents, executions, redact::shown};
use crate::config::{ApiVersion, CampaignsQuery, Listing, SourceKind, StatsQuery};

/// The id of one request, a UUID v4. MoEngage's support finds the request by it, and v5 takes it as the
/// `Idempotency-Key`: every request, retries included, needs a new one, because a repeated key replays the first response.
#[derive(Debug, Clone)]
pub struct RequestId(String);

impl RequestId {
    /// An id from 128 random bits.
    pub fn new(random: u128) -> Self {
        // RFC 9562, section 5.4: four bits are the version, two the variant.
        let bits = random & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
        let hex = format!("{bits:032x}");
        Self([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is requested from a JSON API.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    /// A page of the listing, from 1.
    Campaigns {
        /// Filters of the listing.
        query: &'a CampaignsQuery,
        /// Number of the page.
        page: u64,
    },
    /// A page of one campaign's executions, from 1.
    Executions {
        /// Id of the campaign.
        parent: &'a str,
        /// Number of the page.
        page: u64,
    },
    /// Statistics of up to ten campaigns.
    Stats {
        /// Kinds of metrics and attribution.
        query: &'a StatsQuery,
        /// First and last day.
        window: (Date, Date),
        /// At most ten; all campaigns when empty.
        campaign_ids: &'a [String],
        /// Number of campaigns to skip.
        offset: u64,
    },
}

impl Question<'_> {
    /// The source that it belongs to.
    pub fn source(&self) -> SourceKind {
        match self {
            Question::Campaigns { query: CampaignsQuery { listing: Listing::Search, .. }, .. } => SourceKind::Campaigns,
            Question::Campaigns { query: CampaignsQuery { listing: Listing::Meta, .. }, .. } => {
                SourceKind::CampaignMeta
            }
            Question::Executions { .. } => SourceKind::Executions,
            Question::Stats { .. } => SourceKind::CampaignStats,
        }
    }

    /// Most items on a page.
    pub fn limit(&self) -> u64 {
        match self {
            Question::Campaigns { .. } => campaigns::LIMIT,
            Question::Executions { .. } => executions::LIMIT,
            Question::Stats { .. } => campaign_stats::LIMIT,
        }
    }

    /// Most campaigns that one question can name; see [`Question::Stats`].
    pub const CAMPAIGN_IDS: usize = campaign_stats::LIMIT as usize;

    pub(super) fn url(&self, base_url: &Url) -> Url {
        match self {
            Question::Campaigns { query, .. } => campaigns::url(base_url, query),
            Question::Executions { parent, .. } => executions::url(base_url, parent),
            Question::Stats { .. } => campaign_stats::url(base_url),
        }
    }

    /// The page in words, for messages.
    pub fn place(&self) -> String {
        match self {
            Question::Campaigns { page, .. } => format!("page {page} of the listing of campaigns"),
            Question::Executions { parent, page } => format!("page {page} of the executions of {}", shown(parent)),
            Question::Stats { offset, .. } => format!("page {} of the statistics", offset / campaign_stats::LIMIT + 1),
        }
    }

    pub(super) fn is_v5(&self) -> bool {
        matches!(self, Question::Campaigns { query: CampaignsQuery { api: ApiVersion::V5, .. }, .. })
    }

    pub(super) fn body(&self, request_id: &RequestId) -> Bytes {
        let request_id = request_id.0.as_str();
        let json = match *self {
            Question::Campaigns { query, page } => campaigns::body(query, page, request_id),
            Question::Executions { page, .. } => executions::body(page, request_id),
            Question::Stats { query, window, campaign_ids, offset } => {
                campaign_stats::body(query, window, campaign_ids, offset, request_id)
            }
        };
        json.to_string().into()
    }

    pub(super) fn read<'a>(&self, json: &'a str) -> Result<PageContents<'a>, serde_json::Error> {
        match *self {
            Question::Campaigns { query, page } => campaigns::read(query, page, json),
            Question::Executions { page, .. } => executions::read(page, json),
            Question::Stats { offset, .. } => campaign_stats::read(offset, json),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_uuid_of_version_4() {
        assert_eq!(RequestId::new(0).to_string(), "00000000-0000-4000-8000-000000000000");
        assert_eq!(RequestId::new(u128::MAX).to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_ne!(RequestId::new(1).to_string(), RequestId::new(2).to_string());
    }
}
