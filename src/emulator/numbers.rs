//! The numbers of a campaign: by day, platform, locale and variation.

use std::ops::AddAssign;

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use rand::{Rng as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};

use super::{
    campaign::Campaign,
    selection::{Metric, StatsWindow},
};

/// The dimensions of a campaign's numbers.
pub(super) struct Axes {
    pub(super) platforms: &'static [&'static str],
    pub(super) locales: &'static [&'static str],
    pub(super) variations: &'static [&'static str],
}

/// The numbers by platform, then locale, then variation.
pub(super) fn leaves(campaign: &Campaign, window: &StatsWindow, restated: u32) -> (Axes, Vec<Numbers>) {
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
pub(super) struct CampaignDay {
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

impl CampaignDay {
    pub(super) fn of(campaign: &Campaign, date: Date, window: &StatsWindow) -> CampaignDay {
        let window = StatsWindow { from: date, to: date, ..window.clone() };
        let (axes, leaves) = leaves(campaign, &window, 0);
        let of_platform = |leaves: &[Numbers]| {
            leaves.iter().fold(Numbers::default(), |mut sum, leaf| {
                sum += *leaf;
                sum
            })
        };
        CampaignDay {
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

/// The counts of a funnel, each a share of an earlier one.
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
fn numbers(campaign: &Campaign, window: &StatsWindow, restated: u32, leaf: u64) -> Numbers {
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

/// In hundredths of a percent, so that no digit depends on rounding.
pub(super) fn percentage(part: u64, whole: u64) -> f64 {
    (part * 10_000).checked_div(whole).unwrap_or(0) as f64 / 100.0
}

pub(super) fn instant(date: Date) -> Timestamp {
    // Dates are within a few millennia, so the conversion does not fail.
    date.to_zoned(TimeZone::UTC).map(|midnight| midnight.timestamp()).unwrap_or_default()
}
