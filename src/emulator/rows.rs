//! Campaigns, executions and statistics as rows of the JSON APIs, after the vendor's samples.

use jiff::Timestamp;
use rand::{Rng as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};
use serde_json::{Map, Value, json};

use super::{
    campaign::CampaignAt,
    campaigns::DeliveryType,
    endpoint::{Api, Endpoint, Version},
    library::{Library, seconds},
    numbers::{Axes, Numbers, leaves, percentage},
    selection::StatsWindow,
};

impl Library<'_> {
    /// An element of `executions`, as in document 004.
    pub(super) fn execution(&self, place: CampaignAt) -> Value {
        let campaign = self.campaign(place);
        let sent_time = campaign.sent.map(|sent| text("%Y-%m-%dT%H:%M:%S%.6f", sent));
        json!({"campaign_id": campaign.id, "sent_time": sent_time, "status": campaign.status})
    }

    /// An element of the response of a search or of metadata.
    pub(super) fn listed(&self, place: CampaignAt, endpoint: Endpoint) -> Value {
        let mut listed = match endpoint.api {
            Api::Meta => self.metadata(place),
            _ => self.details(place),
        };
        if endpoint.version == Version::V5 {
            let campaign = self.campaign(place);
            listed["id"] = campaign.version_id().into();
            // The same word in another case: MoEngage sends both.
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

    /// An element of a search's response, after the sample in document 003.
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

    /// Repetitive markup of the requested length.
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

    /// The numbers of `window`, after the vendor's sample, with its id. `restated` is the number of restatements by
    /// late conversions.
    pub(super) fn stats(&self, place: CampaignAt, window: &StatsWindow, restated: u32) -> (String, Value) {
        let campaign = self.campaign(place);
        let (Axes { platforms, locales, variations }, leaves) = leaves(&campaign, window, restated);
        // On each axis the sum comes first, then the parts, if any.
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

/// No messages are sent to them, so the vendor's sample has no `performance_stats` here. The misspelling is the vendor's.
fn control_group(users: u64) -> Value {
    json!({
        "conversion_goal_stats": {"Goal 1": {"conversions": users / 20, "cvr": 0, "uplift": 0}},
        "delivery_funnel": {"reachable_users_in_segment": 0},
        "failure_breakdown": {"user_removed_due_to_campaing_control_group": users},
    })
}

fn text(format: &str, at: Timestamp) -> String {
    at.strftime(format).to_string()
}
