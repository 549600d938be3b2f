//! What a request to a JSON API selects: a window of statistics, or filters of a search.

use jiff::civil::Date;

/// The channels that a filter may name.
pub(super) const CHANNELS: [&str; 10] =
    ["EMAIL", "PUSH", "SMS", "IN_APP", "WHATSAPP", "CARDS", "ONSITE", "FACEBOOK", "GOOGLE_ADS", "CONNECTOR"];
/// The statuses that a filter may name.
pub(super) const STATUSES: [&str; 9] =
    ["Active", "Archived", "Completed", "Draft", "Paused", "Retired", "Scheduled", "Sent", "Stopped"];

/// Which conversions are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attribution {
    ViewThrough,
    ClickThrough,
    InSession,
    TotalConversions,
    ClickConversions,
}

impl Attribution {
    pub(super) const ALL: [Attribution; 5] = [
        Attribution::ViewThrough,
        Attribution::ClickThrough,
        Attribution::InSession,
        Attribution::TotalConversions,
        Attribution::ClickConversions,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Attribution::ViewThrough => "VIEW_THROUGH",
            Attribution::ClickThrough => "CLICK_THROUGH",
            Attribution::InSession => "IN_SESSION",
            Attribution::TotalConversions => "TOTAL_CONVERSIONS",
            Attribution::ClickConversions => "CLICK_CONVERSIONS",
        }
    }

    /// The percentage of all conversions that it counts.
    pub(super) fn percent(self) -> u64 {
        match self {
            Attribution::ViewThrough => 80,
            Attribution::ClickThrough => 45,
            Attribution::InSession => 30,
            Attribution::TotalConversions => 100,
            Attribution::ClickConversions => 50,
        }
    }
}

/// Whether each event counts, or each user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metric {
    Total,
    Unique,
}

/// The statistics that a request selects.
#[derive(Debug, Clone)]
pub(super) struct StatsWindow {
    pub(super) from: Date,
    /// Not before `from`; within the window.
    pub(super) to: Date,
    pub(super) attribution: Attribution,
    pub(super) metric: Metric,
    /// Empty is all.
    pub(super) campaign_ids: Vec<String>,
}

/// The filters of a search. An empty filter matches every campaign.
#[derive(Debug, Clone, Default)]
pub(super) struct Search {
    pub(super) channels: Vec<&'static str>,
    pub(super) created_by: Vec<String>,
    /// The first and the last day.
    pub(super) created: Option<(Date, Date)>,
    pub(super) delivery_types: Vec<&'static str>,
    /// Of campaigns, or of versions where these are listed.
    pub(super) ids: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) statuses: Vec<&'static str>,
    pub(super) tags: Vec<String>,
    pub(super) children: bool,
    pub(super) archived: bool,
    /// Includes the channels that a search does not cover.
    pub(super) every_channel: bool,
    /// Lists each version of a campaign.
    pub(super) versions: bool,
    /// A filter that matches no campaign.
    pub(super) nothing: bool,
}
