//! The campaigns of an account, their executions and their numbers: plausible, and the same in every process.
//!
//! This file owns data. Every campaign is worked out when it is asked for, from the seed and its place in the listing, so
//! that a hundred thousand of them take no memory. It must not know who asks, pages or limits.

use std::ops::{AddAssign, Range};

use jiff::{Span, Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use rand::{Rng, SeedableRng, rngs::Xoshiro256PlusPlus};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::endpoint::{Api, Endpoint, Version};

/// What the campaigns of an account are like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaigns {
    /// How many a search without filters lists, below 2^23. A tenth as many more are archived.
    pub count: u32,
    /// Their delivery types, in turn; without any, all are [`DeliveryType::OneTime`].
    pub delivery_types: Vec<DeliveryType>,
    /// They were created in the two years before this day, and recurring ones have run until then.
    pub created_before: Date,
    /// How much text each one has, in bytes.
    pub content_bytes: usize,
    /// How many nodes of flows there are beside these, below 2^21: a search lists them with the children, and
    /// statistics have them.
    pub flow_nodes: u32,
    /// How many there are beside these in channels that a search doesn't cover, below 2^21: metadata and statistics
    /// have them.
    pub other_channels: u32,
    /// How many in a hundred of those that recur were made in the dashboard: their executions are refused. The others were
    /// made through the Create Campaign API, which makes recurring ones by email and push.
    pub dashboard_percent: u8,
}

impl Default for Campaigns {
    /// 40 campaigns of all delivery types, with little text, created before 2021; no flows, no channels but those of a
    /// search, and all that recur made through the API.
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
    /// By an event of a user: statistics for every window since it was created.
    EventTriggered,
    /// By an event of the business: has executions.
    BusinessEventTriggered,
    /// By a device.
    DeviceTriggered,
    /// By a place.
    LocationTriggered,
    /// A live activity.
    BroadcastLiveActivity,
    /// By a request: has no statistics at all.
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

    fn recurs(self) -> bool {
        matches!(self, DeliveryType::Periodic | DeliveryType::BusinessEventTriggered)
    }
}

/// Every word that a filter knows.
pub(super) const CHANNELS: [&str; 10] =
    ["EMAIL", "PUSH", "SMS", "IN_APP", "WHATSAPP", "CARDS", "ONSITE", "FACEBOOK", "GOOGLE_ADS", "CONNECTOR"];
/// "Covers Push, Email and SMS only."
const SEARCHED: [&str; 3] = ["EMAIL", "PUSH", "SMS"];
/// What metadata has beside them.
const OTHERS: [&str; 4] = ["WHATSAPP", "FACEBOOK", "GOOGLE_ADS", "CONNECTOR"];
/// Where campaigns have executions, if they were made through the API.
const WITH_EXECUTIONS: [&str; 2] = ["EMAIL", "PUSH"];
pub(super) const STATUSES: [&str; 9] =
    ["Active", "Archived", "Completed", "Draft", "Paused", "Retired", "Scheduled", "Sent", "Stopped"];
const PEOPLE: [&str; 3] = ["john.doe@example.com", "jane.roe@example.com", "marta.núñez@example.com"];
const TAGS: [&str; 4] = ["activation", "retention", "onboarding", "sale"];
const THEMES: [&str; 6] = [
    "Welcome series",
    "Cart abandoned",
    "Flash sale, 24 h",
    "Price \"drop\"",
    "Año nuevo 50% off",
    "Für dich empfohlen",
];
/// How many days after sending an audience still reacts.
const REACTION: i32 = 6;
const NODES_OF_A_FLOW: u32 = 4;

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

    /// Which share of all conversions these are, in percent.
    fn percent(self) -> u64 {
        match self {
            Attribution::ViewThrough => 80,
            Attribution::ClickThrough => 45,
            Attribution::InSession => 30,
            Attribution::TotalConversions => 100,
            Attribution::ClickConversions => 50,
        }
    }
}

/// Whether each time counts, or each user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metric {
    Total,
    Unique,
}

/// Of what statistics are asked for.
#[derive(Debug, Clone)]
pub(super) struct Window {
    pub(super) from: Date,
    /// Not before `from`; within the window.
    pub(super) to: Date,
    pub(super) attribution: Attribution,
    pub(super) metric: Metric,
    /// None is all.
    pub(super) campaign_ids: Vec<String>,
}

/// Which campaigns are searched for. What is empty asks for nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Search {
    pub(super) channels: Vec<&'static str>,
    pub(super) created_by: Vec<String>,
    /// Both days within.
    pub(super) created: Option<(Date, Date)>,
    pub(super) delivery_types: Vec<&'static str>,
    /// Of campaigns, or of versions where these are listed.
    pub(super) ids: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) statuses: Vec<&'static str>,
    pub(super) tags: Vec<String>,
    pub(super) children: bool,
    pub(super) archived: bool,
    /// Also those that a search doesn't cover.
    pub(super) every_channel: bool,
    /// Each version of a campaign for itself.
    pub(super) versions: bool,
    /// A filter that nothing passes.
    pub(super) nothing: bool,
}

impl Search {
    fn finds(&self, campaign: &Campaign) -> bool {
        let any = |wanted: &[&str], has: &str| wanted.is_empty() || wanted.contains(&has);
        any(&self.channels, campaign.channel)
            && any(&self.delivery_types, campaign.delivery_type.word())
            && any(&self.statuses, campaign.status)
            && (self.created_by.is_empty() || self.created_by.iter().any(|person| person == campaign.created_by))
            && (self.tags.is_empty() || self.tags.iter().any(|tag| campaign.tags.contains(&tag.as_str())))
            && self.created.is_none_or(|(from, to)| (from..=to).contains(&day(campaign.created)))
            && (self.ids.is_empty() || self.ids.iter().any(|id| *id == campaign.id || *id == campaign.version_id()))
            && !self.nothing
            && self.name.as_ref().is_none_or(|name| *name == campaign.name)
    }
}

/// The place of a campaign in the listing of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CampaignAt {
    /// Newest first; the archived ones follow.
    index: u32,
    /// Which execution of that campaign it is, from 1; 0 is the campaign itself.
    execution: u8,
    /// Which version of it, from 0.
    version: u8,
}

impl CampaignAt {
    fn of(index: u32) -> CampaignAt {
        CampaignAt { index, execution: 0, version: 0 }
    }
}

/// What follows from a place.
struct Campaign {
    place: CampaignAt,
    id: String,
    name: String,
    delivery_type: DeliveryType,
    channel: &'static str,
    status: &'static str,
    created_by: &'static str,
    tags: Vec<&'static str>,
    created: Timestamp,
    sent: Option<Timestamp>,
    executions: u8,
    /// Its own, or those that it is one of.
    executions_of_parent: u8,
    /// How many versions it has.
    versions: u8,
    is_from_dashboard: bool,
    /// Of what it is an execution.
    parent_id: Option<String>,
    /// Id and name of the flow that it is a node of.
    flow: Option<(String, String)>,
    /// For all that needs no name.
    random: u64,
}

impl Campaign {
    /// "`id` (one a version)": never that of a campaign.
    fn version_id(&self) -> String {
        let Campaign { id, place, .. } = self;
        format!("{}{:02x}{}", &id[..8], 0xf0 + place.version, &id[10..])
    }

    /// The days of `window` of which there are numbers, as a first and a last.
    fn days_with_stats(&self, window: &Window) -> Option<(Date, Date)> {
        let (first, last) = match (self.delivery_type, self.sent) {
            (DeliveryType::ApiTriggered, _) => return None,
            (_, Some(sent)) => (day(sent), day(sent).saturating_add(REACTION.days())),
            (DeliveryType::OneTime, None) => return None,
            (_, None) => (day(self.created), Date::MAX),
        };
        let days = (first.max(window.from), last.min(window.to));
        (days.0 <= days.1).then_some(days)
    }
}

/// Which parts of a library are looked at, beside what is live.
#[derive(Debug, Clone, Copy)]
struct Parts {
    archived: bool,
    /// Executions and nodes of flows.
    children: bool,
    /// The channels that a search doesn't cover.
    others: bool,
}

impl Parts {
    const WITH_STATS: Parts = Parts { archived: false, children: true, others: true };
}

/// All campaigns of one account.
#[derive(Debug, Clone, Copy)]
pub(super) struct Library<'a> {
    pub(super) seed: u64,
    pub(super) app_id: &'a str,
    pub(super) campaigns: &'a Campaigns,
}

impl Library<'_> {
    /// The campaigns that `search` finds, newest first, each followed by its executions if these are asked for; then those
    /// that are archived, the nodes of flows, and other channels.
    pub(super) fn search(&self, search: &Search) -> Vec<CampaignAt> {
        let parts = Parts { archived: search.archived, children: search.children, others: search.every_channel };
        let versions = |mut campaign: Campaign| {
            let count = if search.versions { campaign.versions } else { 1 };
            let found = (0..count).filter_map(|version| {
                campaign.place.version = version;
                search.finds(&campaign).then_some(campaign.place)
            });
            found.collect::<Vec<_>>()
        };
        self.all(parts).flat_map(versions).collect()
    }

    /// The campaigns and executions that have numbers in `window`.
    pub(super) fn with_stats(&self, window: &Window) -> Vec<CampaignAt> {
        let has = |campaign: &Campaign| campaign.days_with_stats(window).is_some();
        if window.campaign_ids.is_empty() {
            return self.all(Parts::WITH_STATS).filter(has).map(|campaign| campaign.place).collect();
        }
        let mut ids = window.campaign_ids.clone();
        ids.sort();
        ids.dedup();
        let asked = ids.iter().filter_map(|id| self.of_id(id));
        asked.filter(has).map(|campaign| campaign.place).collect()
    }

    /// The executions of the campaign with that id, oldest first.
    ///
    /// # Errors
    ///
    /// Why there can be none.
    pub(super) fn executions(&self, id: &str) -> Result<Vec<CampaignAt>, &'static str> {
        let parent = self.of_id(id).ok_or("no campaign has this id")?;
        if !parent.delivery_type.recurs() || parent.place.execution > 0 {
            return Err("only a periodic or business event triggered campaign has executions");
        }
        if !WITH_EXECUTIONS.contains(&parent.channel) {
            return Err("only campaigns by email and push have executions");
        }
        if parent.is_from_dashboard {
            return Err("only a campaign that was created through the API has executions");
        }
        Ok((1..=parent.executions).map(|execution| CampaignAt { execution, ..parent.place }).collect())
    }

    /// What was sent from `from` to `to` through `channel`, by nodes of flows or by other campaigns: one for each campaign
    /// and day, as the statistics of that day count it.
    pub(super) fn days(&self, channel: &str, is_flow: bool, from: Date, to: Date) -> impl Iterator<Item = Day> {
        let window = Window {
            from,
            to,
            attribution: Attribution::ClickThrough,
            metric: Metric::Total,
            campaign_ids: Vec::new(),
        };
        let of_channel = move |campaign: &Campaign| campaign.channel == channel && campaign.flow.is_some() == is_flow;
        self.all(Parts::WITH_STATS).filter(of_channel).flat_map(move |campaign| {
            let days = campaign.days_with_stats(&window);
            let dates =
                days.into_iter().flat_map(|(first, last)| first.series(1.day()).take_while(move |d| *d <= last));
            let window = window.clone();
            dates.map(move |date| Day::of(&campaign, date, &window)).collect::<Vec<_>>()
        })
    }

    /// An element of `executions`, as document 004 has it.
    pub(super) fn execution(&self, place: CampaignAt) -> Value {
        let campaign = self.campaign(place);
        let sent_time = campaign.sent.map(|sent| text("%Y-%m-%dT%H:%M:%S%.6f", sent));
        json!({"campaign_id": campaign.id, "sent_time": sent_time, "status": campaign.status})
    }

    fn archived(&self) -> u32 {
        self.campaigns.count / 10
    }

    fn all(&self, parts: Parts) -> impl Iterator<Item = Campaign> {
        let Campaigns { count, flow_nodes, other_channels, .. } = *self.campaigns;
        let flows = count + self.archived();
        let others = flows + flow_nodes;
        let only = |wanted: bool, range: Range<u32>| if wanted { range } else { 0..0 };
        let indices = (0..count)
            .chain(only(parts.archived, count..flows))
            .chain(only(parts.children, flows..others))
            .chain(only(parts.others, others..others + other_channels));
        indices.flat_map(move |index| {
            let parent = self.campaign(CampaignAt::of(index));
            let executions = if parts.children { parent.executions } else { 0 };
            let executions =
                (1..=executions).map(move |execution| self.campaign(CampaignAt { execution, ..CampaignAt::of(index) }));
            std::iter::once(parent).chain(executions)
        })
    }

    fn of_id(&self, id: &str) -> Option<Campaign> {
        // As `campaign` writes it.
        let part = |from: usize, to: usize| u32::from_str_radix(id.get(from..to)?, 16).ok();
        let place = CampaignAt { execution: u8::try_from(part(8, 10)?).ok()?, ..CampaignAt::of(part(18, 24)?) };
        let Campaigns { count, flow_nodes, other_channels, .. } = *self.campaigns;
        let exists = place.index < count + self.archived() + flow_nodes + other_channels;
        exists
            .then(|| self.campaign(place))
            .filter(|campaign| campaign.id == id && place.execution <= campaign.executions_of_parent)
    }

    fn campaign(&self, place: CampaignAt) -> Campaign {
        let Library { seed, app_id, campaigns } = self;
        let CampaignAt { index, execution, .. } = place;
        let digest = Sha256::digest(format!("campaign|{seed}|{app_id}|{index}"));
        let mut random = Xoshiro256PlusPlus::from_seed(digest.into());
        let mut below = |limit: u64| random.next_u64() % limit;

        let Campaigns { count, flow_nodes, other_channels, .. } = **campaigns;
        let flows = count + self.archived();
        let others = flows + flow_nodes;
        // Evenly over two years, so that the order of the listing is that of the dates.
        let (position, of) = match index {
            live if live < count => (live, count),
            archived if archived < flows => (archived - count, self.archived()),
            node if node < others => (node - flows, flow_nodes),
            other => (other - others, other_channels),
        };
        let is_archived = (count..flows).contains(&index);
        let is_node = (flows..others).contains(&index);
        let delivery_type = match campaigns.delivery_types.as_slice() {
            _ if is_node || index >= others => DeliveryType::EventTriggered,
            [] => DeliveryType::OneTime,
            types => types[index as usize % types.len()],
        };
        let end = instant(campaigns.created_before);
        let created =
            end - seconds(86_400 + i64::from(position) * 729 * 86_400 / i64::from(of.max(1)) - below(86_000) as i64);
        let executions = if delivery_type.recurs() { 3 + below(40) as u8 } else { 0 };
        let is_scheduled = delivery_type == DeliveryType::OneTime && below(9) == 0;
        let sent = match (delivery_type, execution) {
            (DeliveryType::OneTime, _) => (!is_scheduled).then(|| created + seconds(3_600 + below(86_400) as i64)),
            (_, 0) => None,
            (_, execution) => {
                let age = end.duration_since(created).as_secs();
                Some(created + seconds(age * i64::from(execution) / i64::from(executions + 1)))
            }
        };
        let status = match (is_archived, sent, below(11)) {
            (true, ..) => "Archived",
            (false, Some(_), _) => "Sent",
            (false, None, _) if is_scheduled => "Scheduled",
            (false, None, 0) => "Paused",
            (false, None, 1) => "Stopped",
            (false, None, _) => "Active",
        };
        let theme = THEMES[below(THEMES.len() as u64) as usize];
        let first_tag = below(TAGS.len() as u64) as usize;
        let is_from_dashboard = delivery_type.recurs() && below(100) < u64::from(campaigns.dashboard_percent);
        let channels: &[&str] = match () {
            () if index >= others => &OTHERS,
            () if delivery_type.recurs() && !is_from_dashboard => &WITH_EXECUTIONS,
            () => &SEARCHED,
        };
        // As an ObjectId: the time, then what tells apart, then a count.
        let id = |execution: u8| {
            format!("{:08x}{execution:02x}{}{index:06x}", created.as_second() as u32, hex::encode(&digest[..4]))
        };
        let flow = is_node.then(|| {
            let number = position / NODES_OF_A_FLOW;
            let flow = Sha256::digest(format!("flow|{seed}|{app_id}|{number}"));
            (hex::encode(&flow[..12]), format!("Flow #{number}"))
        });
        Campaign {
            place,
            id: id(execution),
            name: match execution {
                0 => format!("{theme} #{index}"),
                execution => format!("{theme} #{index} ({execution})"),
            },
            delivery_type,
            channel: channels[below(channels.len() as u64) as usize],
            status,
            created_by: PEOPLE[below(PEOPLE.len() as u64) as usize],
            tags: TAGS.iter().skip(first_tag).take(below(3) as usize).copied().collect(),
            created,
            sent,
            executions: if execution == 0 { executions } else { 0 },
            executions_of_parent: executions,
            versions: if below(8) == 0 { 2 } else { 1 },
            is_from_dashboard,
            parent_id: (execution > 0).then(|| id(0)),
            flow,
            random: below(u64::MAX) ^ u64::from(execution) << 32,
        }
    }

    /// An element of the answer of a search or its metadata twin.
    pub(super) fn listed(&self, place: CampaignAt, endpoint: Endpoint) -> Value {
        let mut listed = match endpoint.api {
            Api::Meta => self.metadata(place),
            _ => self.details(place),
        };
        if endpoint.version == Version::V5 {
            let campaign = self.campaign(place);
            listed["id"] = campaign.version_id().into();
            // The other case of the same word: both are seen.
            listed["status"] = campaign.status.to_uppercase().into();
        }
        listed
    }

    fn metadata(&self, place: CampaignAt) -> Value {
        let campaign = self.campaign(place);
        json!({
            "campaign_id": campaign.id,
            "name": campaign.name,
            "channel": campaign.channel,
            "status": campaign.status,
            "campaign_delivery_type": campaign.delivery_type.word(),
            "team": "growth",
            "tags": campaign.tags,
            "created_by": campaign.created_by,
            "created_at": text("%Y-%m-%d %H:%M:%S%.6f", campaign.created),
            "children_count": campaign.executions,
        })
    }

    /// An element of a search's answer, after the sample in document 003.
    fn details(&self, place: CampaignAt) -> Value {
        let campaign = self.campaign(place);
        let random = campaign.random;
        let content = |locale: &str| json!({"subject": format!("{} in {locale}", campaign.name), "preview_text": "", "html_content": self.text(random)});
        let mut details = json!({
            "campaign_id": campaign.id,
            "status": campaign.status,
            "channel": campaign.channel,
            "created_by": campaign.created_by,
            "created_at": text("%Y-%m-%d %H:%M:%S%.6f", campaign.created),
            "updated_by": campaign.created_by,
            "updated_at": text("%Y-%m-%d %H:%M:%S%.6f", campaign.created + seconds((random % 3_600) as i64)),
            "campaign_delivery_type": campaign.delivery_type.word(),
            "basic_details": {
                "name": campaign.name,
                "content_type": "PROMOTIONAL",
                "team": "growth",
                "tags": campaign.tags,
                "subscription_category": "music",
            },
            "campaign_content": {
                "locales": ["default"],
                "variation_details": {"_id": format!("{random:024x}")},
                "content": {"default": {campaign.channel.to_lowercase(): content("default")}},
            },
            "connector": {"connector_type": "SENDGRID", "connector_name": "default"},
            "control_group_details": {
                "is_global_control_group_enabled": false,
                "is_campaign_control_group_enabled": true,
                "campaign_control_group_percentage": 2.0,
            },
            "conversion_goal_details": {
                "attribution_window_in_hours": 36,
                "goals": [{"goal_name": "Goal 1", "goal_event_name": "purchase", "is_primary_goal": true}],
            },
            "delivery_controls": {
                "bypass_dnd": false,
                "ignore_frequency_capping": random.is_multiple_of(2),
                "campaign_throttle_rpm": 3000,
            },
            "scheduling_details": {
                "delivery_type": "AT_FIXED_TIME",
                "start_time": text("%Y-%m-%dT%H:%M:%S", campaign.sent.unwrap_or(campaign.created)),
            },
            "segmentation_details": {
                "is_all_user_campaign": false,
                "included_filters": {"filter_operator": "and", "filters": [{"name": "u_em", "operator": "exists"}]},
                "excluded_filters": {},
            },
            "utm_params": {},
        });
        if let Some(sent) = campaign.sent {
            details["sent_time"] = text("%Y-%m-%d %H:%M:%S", sent).into();
        }
        if let Some(parent_id) = campaign.parent_id {
            details["parent_id"] = parent_id.into();
        }
        if let Some((id, name)) = campaign.flow {
            (details["flow_id"], details["flow_name"]) = (id.into(), name.into());
        }
        if campaign.delivery_type == DeliveryType::EventTriggered {
            details["trigger_condition"] = json!({"included_filters": {"filters": [{"name": "purchase"}]}});
        }
        details
    }

    /// Markup of the length that is asked for, soon repeating itself, as markup does.
    fn text(&self, random: u64) -> String {
        const WORDS: [&str; 8] =
            ["{{UserAttribute['First Name']}} ", "<p>", "</p>\n", "save ", "today ", "50% ", "für ", "mañana "];
        let mut random = Xoshiro256PlusPlus::seed_from_u64(random);
        let part: String = (0..100).map(|_| WORDS[(random.next_u64() % WORDS.len() as u64) as usize]).collect();
        let wanted = self.campaigns.content_bytes;
        let mut text = part.repeat(wanted / part.len() + 1);
        text.truncate(text.floor_char_boundary(wanted));
        text
    }

    /// The numbers of `window`, after the vendor's sample, with its id. `restated` is how often conversions
    /// have come in late.
    pub(super) fn stats(&self, place: CampaignAt, window: &Window, restated: u32) -> (String, Value) {
        let campaign = self.campaign(place);
        let (Axes { platforms, locales, variations }, leaves) = leaves(&campaign, window, restated);
        // Of every axis the sum comes first, and then the parts, should there be any.
        let parts = |names: &'static str, parts: &[&'static str]| {
            let all = std::iter::once((names, (0..parts.len()).collect::<Vec<_>>()));
            let single = parts.iter().enumerate().map(|(number, name)| (*name, vec![number]));
            all.chain(single.filter(|_| parts.len() > 1)).collect::<Vec<_>>()
        };
        let sum = |platforms: &[usize], locale: &[usize], variation: &[usize]| {
            let mut sum = Numbers::default();
            for platform in platforms {
                for locale in locale {
                    for variation in variation {
                        sum += leaves[(platform * locales.len() + locale) * variations.len() + variation];
                    }
                }
            }
            sum
        };
        let mut by_platform = Map::new();
        for (platform, of_platform) in parts("ALL_PLATFORMS", platforms) {
            let mut by_locale = Map::new();
            for (locale, of_locale) in parts("all_locale", locales) {
                let mut by_variation = Map::new();
                for (variation, of_variation) in parts("all_variations", variations) {
                    let numbers = sum(&of_platform, &of_locale, &of_variation);
                    by_variation.insert(variation.to_owned(), numbers.shown(campaign.channel));
                }
                by_variation.insert("campaign_control_group".to_owned(), control_group(campaign.random % 90));
                by_locale.insert(locale.to_owned(), json!({"variations": by_variation}));
            }
            by_platform.insert(platform.to_owned(), json!({"locales": by_locale}));
        }
        (campaign.id, json!({"platforms": by_platform}))
    }
}

/// How the numbers of a campaign are taken apart.
struct Axes {
    platforms: &'static [&'static str],
    locales: &'static [&'static str],
    variations: &'static [&'static str],
}

/// The numbers of each platform, of these each locale, of these each variation.
fn leaves(campaign: &Campaign, window: &Window, restated: u32) -> (Axes, Vec<Numbers>) {
    let random = campaign.random;
    let axes = Axes {
        platforms: if campaign.channel == "PUSH" { &["android", "ios"] } else { &["web"] },
        locales: if random.is_multiple_of(3) { &["default", "es"] } else { &["default"] },
        variations: if random.is_multiple_of(2) { &["variation_1", "variation_2"] } else { &["variation_1"] },
    };
    let count = axes.platforms.len() * axes.locales.len() * axes.variations.len();
    let leaves = (0..count as u64).map(|leaf| numbers(campaign, window, restated, leaf)).collect();
    (axes, leaves)
}

/// A campaign on one day, as a row of an archive has it.
#[derive(Debug)]
pub(super) struct Day {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) delivery_type: &'static str,
    pub(super) status: &'static str,
    pub(super) sent: Option<Timestamp>,
    pub(super) parent_id: Option<String>,
    pub(super) flow_name: Option<String>,
    pub(super) date: Date,
    /// Of each platform.
    pub(super) platforms: Vec<Numbers>,
}

impl Day {
    /// `window` says what is counted.
    fn of(campaign: &Campaign, date: Date, window: &Window) -> Day {
        let window = Window { from: date, to: date, ..window.clone() };
        let (axes, leaves) = leaves(campaign, &window, 0);
        let of_platform = |leaves: &[Numbers]| {
            leaves.iter().fold(Numbers::default(), |mut sum, leaf| {
                sum += *leaf;
                sum
            })
        };
        Day {
            id: campaign.id.clone(),
            name: campaign.name.clone(),
            delivery_type: campaign.delivery_type.word(),
            status: campaign.status,
            sent: campaign.sent,
            parent_id: campaign.parent_id.clone(),
            flow_name: campaign.flow.as_ref().map(|(_, name)| name.clone()),
            date,
            platforms: leaves.chunks(axes.locales.len() * axes.variations.len()).map(of_platform).collect(),
        }
    }
}

/// What is counted, each a share of one before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Numbers {
    pub(super) attempted: u64,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) impressions: u64,
    pub(super) clicks: u64,
    pub(super) conversions: u64,
}

impl AddAssign for Numbers {
    fn add_assign(&mut self, other: Numbers) {
        self.attempted += other.attempted;
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.impressions += other.impressions;
        self.clicks += other.clicks;
        self.conversions += other.conversions;
    }
}

/// The numbers of one platform, locale and variation: the sum of its days.
fn numbers(campaign: &Campaign, window: &Window, restated: u32, leaf: u64) -> Numbers {
    let mut sum = Numbers::default();
    let Some((first, last)) = campaign.days_with_stats(window) else { return sum };
    for date in first.series(1.day()).take_while(|date| *date <= last) {
        let day = instant(date).as_second() as u64 / 86_400;
        let mut random = Xoshiro256PlusPlus::seed_from_u64(campaign.random ^ leaf << 40 ^ day);
        let mut below = |limit: u64| random.next_u64() % limit;
        let attempted = 20 + below(4_000);
        let sent = attempted - attempted * below(8) / 100;
        let impressions = sent * (20 + below(75)) / 100;
        let clicks = impressions * below(120) / 1000;
        let conversions = clicks * below(200) / 1000 * window.attribution.percent() / 100;
        let delivered = sent - sent * below(4) / 100;
        let conversions = conversions + u64::from(restated);
        sum += Numbers { attempted, sent, delivered, impressions, clicks, conversions };
    }
    if window.metric == Metric::Unique {
        (sum.impressions, sum.clicks) = (sum.impressions * 7 / 10, sum.clicks * 7 / 10);
    }
    sum
}

impl Numbers {
    fn shown(self, channel: &str) -> Value {
        let Numbers { attempted, sent, delivered, impressions, clicks, conversions } = self;
        let failed = attempted - sent;
        let mut performance = json!({
            "attempted": attempted, "sent": sent, "failed": failed, "impression": impressions, "click": clicks,
            "ctr": percentage(clicks, impressions), "delivery_rate": percentage(impressions, sent),
            "sent_rate": percentage(sent, attempted), "failure_rate": percentage(failed, attempted),
        });
        if channel != "PUSH" {
            performance["delivered"] = delivered.into();
        }
        if channel == "EMAIL" {
            performance["open"] = (impressions / 2).into();
            performance["unsubscribe"] = (clicks / 50).into();
        }
        let failures = match failed {
            0 => json!({}),
            failed => json!({"user_removed_due_to_invalid_token": failed}),
        };
        json!({
            "performance_stats": performance,
            "conversion_goal_stats": {
                "Goal 1": {"conversions": conversions, "cvr": percentage(conversions, clicks), "uplift": 0},
            },
            "delivery_funnel": {
                "reachable_users_in_segment": attempted + 7, "segment_after_uninstall": attempted + 3,
                "after_fc": attempted + 1, "users_after_dup": attempted, "sent": sent, "impressions": impressions,
            },
            "failure_breakdown": failures,
        })
    }
}

/// Nothing is sent to them, so the vendor's sample has no `performance_stats` here. The misspelling is the vendor's.
fn control_group(users: u64) -> Value {
    json!({
        "conversion_goal_stats": {"Goal 1": {"conversions": users / 20, "cvr": 0, "uplift": 0}},
        "delivery_funnel": {"reachable_users_in_segment": 0},
        "failure_breakdown": {"user_removed_due_to_campaing_control_group": users},
    })
}

/// In hundredths of a percent, so that no digit depends on how it was rounded.
pub(super) fn percentage(part: u64, whole: u64) -> f64 {
    (part * 10_000).checked_div(whole).unwrap_or(0) as f64 / 100.0
}

fn instant(date: Date) -> Timestamp {
    // Dates are within a few millennia, and so are instants.
    date.to_zoned(TimeZone::UTC).map(|midnight| midnight.timestamp()).unwrap_or_default()
}

fn seconds(seconds: i64) -> Span {
    Span::new().seconds(seconds)
}

fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

fn text(format: &str, at: Timestamp) -> String {
    at.strftime(format).to_string()
}
