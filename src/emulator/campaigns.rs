//! The settings of an account's campaigns, and the words for how a campaign is delivered.

use jiff::civil::Date;

/// Settings of the campaigns of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaigns {
    /// The number of campaigns that a search without filters lists, below 2^23. A tenth of this number is archived in
    /// addition.
    pub count: u32,
    /// Their delivery types, in rotation; if empty, all are [`DeliveryType::OneTime`].
    pub delivery_types: Vec<DeliveryType>,
    /// Campaigns are created in the two years before this day, and recurring ones run until then.
    pub created_before: Date,
    /// Text of each campaign, in bytes.
    pub content_bytes: usize,
    /// The number of additional flow nodes, below 2^21. A search lists them together with child campaigns, and statistics
    /// include them.
    pub flow_nodes: u32,
    /// The number of additional campaigns in channels that a search does not cover, below 2^21. Metadata and statistics
    /// include them.
    pub other_channels: u32,
    /// The percentage of recurring campaigns made in the dashboard, whose executions are refused. The others are made
    /// through the Create Campaign API, which supports email and push.
    pub dashboard_percent: u8,
}

impl Default for Campaigns {
    /// 40 campaigns of all delivery types, with little text, created before 2021: no flows, only channels that a search
    /// covers, and all recurring ones made through the API.
    fn default() -> Self {
        Campaigns {
            count: 40,
            delivery_types: vec![
                DeliveryType::OneTime,
                DeliveryType::Periodic,
                DeliveryType::EventTriggered,
                DeliveryType::OneTime,
                DeliveryType::BusinessEventTriggered,
                DeliveryType::ApiTriggered,
                DeliveryType::EventTriggered,
                DeliveryType::LocationTriggered,
            ],
            created_before: jiff::civil::date(2021, 1, 1),
            content_bytes: 200,
            flow_nodes: 0,
            other_channels: 0,
            dashboard_percent: 0,
        }
    }
}

/// How a campaign is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryType {
    /// Once: statistics in the week after it was sent.
    OneTime,
    /// At fixed times: has executions.
    Periodic,
    /// By an event of a user: has statistics for every window after its creation.
    EventTriggered,
    /// By an event of the business: has executions.
    BusinessEventTriggered,
    /// By a device.
    DeviceTriggered,
    /// By a location.
    LocationTriggered,
    /// A live activity.
    BroadcastLiveActivity,
    /// By an API request: has no statistics.
    ApiTriggered,
}

impl DeliveryType {
    pub(super) const ALL: [DeliveryType; 8] = [
        DeliveryType::OneTime,
        DeliveryType::Periodic,
        DeliveryType::EventTriggered,
        DeliveryType::BusinessEventTriggered,
        DeliveryType::DeviceTriggered,
        DeliveryType::LocationTriggered,
        DeliveryType::BroadcastLiveActivity,
        DeliveryType::ApiTriggered,
    ];

    /// MoEngage's word.
    pub(super) fn word(self) -> &'static str {
        match self {
            DeliveryType::OneTime => "ONE_TIME",
            DeliveryType::Periodic => "PERIODIC",
            DeliveryType::EventTriggered => "EVENT_TRIGGERED",
            DeliveryType::BusinessEventTriggered => "BUSINESS_EVENT_TRIGGERED",
            DeliveryType::DeviceTriggered => "DEVICE_TRIGGERED",
            DeliveryType::LocationTriggered => "LOCATION_TRIGGERED",
            DeliveryType::BroadcastLiveActivity => "BROADCAST_LIVE_ACTIVITY",
            DeliveryType::ApiTriggered => "API_TRIGGERED",
        }
    }

    pub(super) fn recurs(self) -> bool {
        matches!(self, DeliveryType::Periodic | DeliveryType::BusinessEventTriggered)
    }
}
