//! One campaign or execution.

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};

use super::{
    campaigns::DeliveryType,
    selection::{Search, StatsWindow},
};

/// The number of days after sending in which users react.
const REACTION: i32 = 6;

/// The position of a campaign, an execution or a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CampaignAt {
    /// The index in the listing of all campaigns: newest first, then the archived ones.
    pub(super) index: u32,
    /// The number of the execution, from 1; 0 is the campaign itself.
    pub(super) execution: u8,
    /// The number of the version, from 0.
    pub(super) version: u8,
}

impl CampaignAt {
    pub(super) fn of(index: u32) -> CampaignAt {
        CampaignAt { index, execution: 0, version: 0 }
    }
}

/// One campaign or execution, computed from its position.
pub(super) struct Campaign {
    pub(super) place: CampaignAt,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) delivery_type: DeliveryType,
    pub(super) channel: &'static str,
    pub(super) status: &'static str,
    pub(super) created_by: &'static str,
    pub(super) tags: Vec<&'static str>,
    pub(super) created: Timestamp,
    pub(super) sent: Option<Timestamp>,
    pub(super) executions: u8,
    /// Of an execution: the number of executions of its parent.
    pub(super) executions_of_parent: u8,
    /// How many versions it has.
    pub(super) versions: u8,
    pub(super) is_from_dashboard: bool,
    /// Of an execution: the id of its parent.
    pub(super) parent_id: Option<String>,
    /// Id and name of the flow that it is a node of.
    pub(super) flow: Option<(String, String)>,
    /// The seed of all other values.
    pub(super) random: u64,
}

impl Campaign {
    /// The id of this version, which differs from every campaign's.
    pub(super) fn version_id(&self) -> String {
        let Campaign { id, place, .. } = self;
        format!("{}{:02x}{}", &id[..8], 0xf0 + place.version, &id[10..])
    }

    /// The first and the last day of `window` with numbers.
    pub(super) fn days_with_stats(&self, window: &StatsWindow) -> Option<(Date, Date)> {
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

impl Search {
    pub(super) fn finds(&self, campaign: &Campaign) -> bool {
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

fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}
