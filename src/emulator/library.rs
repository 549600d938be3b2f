//! All campaigns of an account, the same in every process.
//!
//! A campaign is computed on request, from the seed and its position in the listing, so that a hundred thousand of them
//! take no memory. This file must not know requests, pages or limits.

use std::ops::Range;

use jiff::{Span, ToSpan as _, civil::Date};
use rand::{Rng as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};
use sha2::{Digest as _, Sha256};

use super::{
    campaign::{Campaign, CampaignAt},
    campaigns::{Campaigns, DeliveryType},
    numbers::{CampaignDay, instant},
    selection::{Attribution, Metric, Search, StatsWindow},
};

/// "Covers Push, Email and SMS only."
const SEARCHED: [&str; 3] = ["EMAIL", "PUSH", "SMS"];
/// The channels that metadata has in addition.
const OTHERS: [&str; 4] = ["WHATSAPP", "FACEBOOK", "GOOGLE_ADS", "CONNECTOR"];
/// The channels of campaigns with executions, if they are made through the API.
const WITH_EXECUTIONS: [&str; 2] = ["EMAIL", "PUSH"];
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
const NODES_OF_A_FLOW: u32 = 4;

/// The parts of a library that a listing includes, besides live campaigns.
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
    /// The campaigns that `search` finds, newest first, each followed by its executions if these are requested; then
    /// archived ones, flow nodes, and other channels.
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
    pub(super) fn with_stats(&self, window: &StatsWindow) -> Vec<CampaignAt> {
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
    /// The reason why the campaign has no executions.
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

    /// Messages sent from `from` to `to` through `channel`, by flow nodes or by other campaigns: one value for each
    /// campaign and day, as in the statistics of that day.
    pub(super) fn days(&self, channel: &str, is_flow: bool, from: Date, to: Date) -> impl Iterator<Item = CampaignDay> {
        let window = StatsWindow {
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
            dates.map(move |date| CampaignDay::of(&campaign, date, &window)).collect::<Vec<_>>()
        })
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

    pub(super) fn campaign(&self, place: CampaignAt) -> Campaign {
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
        // As an ObjectId: the time, then a discriminator, then a count.
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
}

pub(super) fn seconds(seconds: i64) -> Span {
    Span::new().seconds(seconds)
}
