//! The campaigns of an account, their executions and their numbers: plausible, and the same in every process.
//!
//! This file owns data. Every campaign is worked out when it is asked for, from the seed and its place in the listing, so
//! that a hundred thousand of them take no memory. It must not know who asks, pages or limits.

use std::ops::AddAssign;

use jiff::{Span, Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use rand::{Rng, SeedableRng, rngs::Xoshiro256PlusPlus};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

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
}

impl Default for Campaigns {
    /// 40 campaigns of all kinds, with little text, created before 2021.
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

pub(super) const CHANNELS: [&str; 7] = ["EMAIL", "PUSH", "SMS", "IN_APP", "WHATSAPP", "CARDS", "ONSITE"];
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
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) statuses: Vec<&'static str>,
    pub(super) tags: Vec<String>,
    pub(super) children: bool,
    pub(super) archived: bool,
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
            && self.id.as_ref().is_none_or(|id| *id == campaign.id)
            && self.name.as_ref().is_none_or(|name| *name == campaign.name)
    }
}

/// The place of a campaign in the listing of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Newest first; the archived ones follow.
    index: u32,
    /// Which execution of that campaign it is, from 1; 0 is the campaign itself.
    execution: u8,
}

/// What follows from a place.
struct Campaign {
    place: Place,
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
    /// For all that needs no name.
    random: u64,
}

impl Campaign {
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

/// All campaigns of one account.
#[derive(Debug, Clone, Copy)]
pub(super) struct Library<'a> {
    pub(super) seed: u64,
    pub(super) app_id: &'a str,
    pub(super) campaigns: &'a Campaigns,
}

impl Library<'_> {
    /// The campaigns that `search` finds, newest first, each followed by its executions if these are asked for.
    pub(super) fn search(&self, search: &Search) -> Vec<Place> {
        let found = self.all(search.archived, search.children);
        found.filter(|campaign| search.finds(campaign)).map(|campaign| campaign.place).collect()
    }

    /// The campaigns and executions that have numbers in `window`.
    pub(super) fn with_stats(&self, window: &Window) -> Vec<Place> {
        let has = |campaign: &Campaign| campaign.days_with_stats(window).is_some();
        if window.campaign_ids.is_empty() {
            return self.all(false, true).filter(has).map(|campaign| campaign.place).collect();
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
    pub(super) fn executions(&self, id: &str) -> Result<Vec<Place>, &'static str> {
        let parent = self.of_id(id).ok_or("no campaign has this id")?;
        if !parent.delivery_type.recurs() || parent.place.execution > 0 {
            return Err("only a periodic or business event triggered campaign has executions");
        }
        Ok((1..=parent.executions).map(|execution| Place { execution, ..parent.place }).collect())
    }

    /// An element of `executions`, as document 004 has it.
    pub(super) fn execution(&self, place: Place) -> Value {
        let campaign = self.campaign(place);
        let sent_time = campaign.sent.map(|sent| text("%Y-%m-%dT%H:%M:%S%.6f", sent));
        json!({"campaign_id": campaign.id, "sent_time": sent_time, "status": campaign.status})
    }

    fn archived(&self) -> u32 {
        self.campaigns.count / 10
    }

    fn all(&self, archived: bool, children: bool) -> impl Iterator<Item = Campaign> {
        let end = self.campaigns.count + if archived { self.archived() } else { 0 };
        (0..end).flat_map(move |index| {
            let parent = self.campaign(Place { index, execution: 0 });
            let executions = if children { parent.executions } else { 0 };
            let executions = (1..=executions).map(move |execution| self.campaign(Place { index, execution }));
            std::iter::once(parent).chain(executions)
        })
    }

    fn of_id(&self, id: &str) -> Option<Campaign> {
        // As `campaign` writes it.
        let part = |from: usize, to: usize| u32::from_str_radix(id.get(from..to)?, 16).ok();
        let place = Place { index: part(18, 24)?, execution: u8::try_from(part(8, 10)?).ok()? };
        let exists = place.index < self.campaigns.count + self.archived();
        exists
            .then(|| self.campaign(place))
            .filter(|campaign| campaign.id == id && place.execution <= campaign.executions)
    }

    fn campaign(&self, place: Place) -> Campaign {
        let Library { seed, app_id, campaigns } = self;
        let Place { index, execution } = place;
        let digest = Sha256::digest(format!("campaign|{seed}|{app_id}|{index}"));
        let mut random = Xoshiro256PlusPlus::from_seed(digest.into());
        let mut below = |limit: u64| random.next_u64() % limit;

        let delivery_type = match campaigns.delivery_types.as_slice() {
            [] => DeliveryType::OneTime,
            types => types[index as usize % types.len()],
        };
        let archived = index >= campaigns.count;
        // Evenly over two years, so that the order of the listing is that of the dates.
        let (position, of) =
            if archived { (index - campaigns.count, self.archived()) } else { (index, campaigns.count) };
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
        let status = match (archived, sent, below(11)) {
            (true, ..) => "Archived",
            (false, Some(_), _) => "Sent",
            (false, None, _) if is_scheduled => "Scheduled",
            (false, None, 0) => "Paused",
            (false, None, 1) => "Stopped",
            (false, None, _) => "Active",
        };
        let theme = THEMES[below(THEMES.len() as u64) as usize];
        let first_tag = below(TAGS.len() as u64) as usize;
        Campaign {
            place,
            // As an ObjectId: the time, then what tells apart, then a count.
            id: format!("{:08x}{execution:02x}{}{index:06x}", created.as_second() as u32, hex::encode(&digest[..4])),
            name: match execution {
                0 => format!("{theme} #{index}"),
                execution => format!("{theme} #{index} ({execution})"),
            },
            delivery_type,
            channel: CHANNELS[below(CHANNELS.len() as u64) as usize],
            status,
            created_by: PEOPLE[below(PEOPLE.len() as u64) as usize],
            tags: TAGS.iter().skip(first_tag).take(below(3) as usize).copied().collect(),
            created,
            sent,
            executions: if execution == 0 { executions } else { 0 },
            random: below(u64::MAX) ^ u64::from(execution) << 32,
        }
    }

    /// An element of a search's answer, after the sample in document 003.
    pub(super) fn details(&self, place: Place) -> Value {
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

    /// The numbers of `window`, after the vendor's sample: a list with one object. `restated` is how often conversions
    /// have come in late.
    pub(super) fn stats(&self, place: Place, window: &Window, restated: u32) -> (String, Value) {
        let campaign = self.campaign(place);
        let random = campaign.random;
        let platforms: &[&str] = if campaign.channel == "PUSH" { &["android", "ios"] } else { &["web"] };
        let locales: &[&str] = if random.is_multiple_of(3) { &["default", "es"] } else { &["default"] };
        let variations: &[&str] =
            if random.is_multiple_of(2) { &["variation_1", "variation_2"] } else { &["variation_1"] };
        // Of every axis the sum comes first, and then the parts, should there be any.
        let parts = |names: &'static str, parts: &[&'static str]| {
            let all = std::iter::once((names, (0..parts.len()).collect::<Vec<_>>()));
            let single = parts.iter().enumerate().map(|(number, name)| (*name, vec![number]));
            all.chain(single.filter(|_| parts.len() > 1)).collect::<Vec<_>>()
        };
        let mut leaves = Vec::new();
        for leaf in 0..platforms.len() * locales.len() * variations.len() {
            leaves.push(numbers(&campaign, window, restated, leaf as u64));
        }
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
            for (locale, of_locale) in parts("all_locales", locales) {
                let mut by_variation = Map::new();
                for (variation, of_variation) in parts("all_variations", variations) {
                    let numbers = sum(&of_platform, &of_locale, &of_variation);
                    by_variation.insert(variation.to_owned(), numbers.shown(campaign.channel));
                }
                by_variation.insert("campaign_control_group".to_owned(), control_group(random % 90));
                by_locale.insert(locale.to_owned(), json!({"variations": by_variation}));
            }
            by_platform.insert(platform.to_owned(), json!({"locales": by_locale}));
        }
        (campaign.id, json!([{"platforms": by_platform}]))
    }
}

/// What is counted, each a share of the one before.
#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    attempted: u64,
    sent: u64,
    impressions: u64,
    clicks: u64,
    conversions: u64,
}

impl AddAssign for Numbers {
    fn add_assign(&mut self, other: Numbers) {
        self.attempted += other.attempted;
        self.sent += other.sent;
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
        sum += Numbers { attempted, sent, impressions, clicks, conversions: conversions + u64::from(restated) };
    }
    if window.metric == Metric::Unique {
        (sum.impressions, sum.clicks) = (sum.impressions * 7 / 10, sum.clicks * 7 / 10);
    }
    sum
}

impl Numbers {
    fn shown(self, channel: &str) -> Value {
        let Numbers { attempted, sent, impressions, clicks, conversions } = self;
        let failed = attempted - sent;
        let mut performance = json!({
            "attempted": attempted, "sent": sent, "failed": failed, "impression": impressions, "click": clicks,
            "ctr": percentage(clicks, impressions), "delivery_rate": percentage(impressions, sent),
            "sent_rate": percentage(sent, attempted), "failure_rate": percentage(failed, attempted),
        });
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
fn percentage(part: u64, whole: u64) -> f64 {
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
