//! `campaigns` and `campaign_meta`: the live listings of campaigns, page by page, each in two versions (Get Campaign
//! Details API for v1's search, MoEngage's current documentation for the others). None states a total: they end with an
//! empty page.

use jiff::civil::Date;
use serde::{Deserialize, de::Error as _};
use serde_json::{Value, json, value::RawValue};
use url::Url;

use super::{
    contents::{PageContents, RawRecord},
    endpoint::below,
};
use crate::{
    config::{ApiVersion, CampaignsQuery, Listing},
    ndjson,
};

/// Most campaigns on a page (Get Campaign Details API).
pub(super) const LIMIT: u64 = 15;

pub(super) fn url(base_url: &Url, query: &CampaignsQuery) -> Url {
    let listing = match query.listing {
        Listing::Search => "search",
        Listing::Meta => "meta",
    };
    match query.api {
        ApiVersion::V1 => below(base_url, &["core-services", "v1", "campaigns", listing]),
        ApiVersion::V5 => below(base_url, &["v5", "campaigns", listing]),
    }
}

pub(super) fn body(query: &CampaignsQuery, page: u64, request_id: &str) -> Value {
    // v5 ignores v1's name, and then lists nothing.
    let delivery_type = match query.api {
        ApiVersion::V1 => "delivery_type",
        ApiVersion::V5 => "campaign_delivery_type",
    };
    let mut fields = serde_json::Map::new();
    for (name, words) in [
        ("channels", &query.channels),
        ("created_by", &query.created_by),
        (delivery_type, &query.delivery_type),
        ("status", &query.status),
        ("tags", &query.tags),
    ] {
        if !words.is_empty() {
            fields.insert(name.into(), json!(words));
        }
    }
    if let Some(period) = query.created_date {
        fields.insert("created_date".into(), created_date(query.api, period));
    }
    let mut body = json!({ "request_id": request_id, "limit": LIMIT, "page": page });
    if !fields.is_empty() {
        body["campaign_fields"] = fields.into();
    }
    for (name, value) in [
        ("include_child_campaigns", query.include_child_campaigns),
        ("include_archive_campaigns", query.include_archive_campaigns),
    ] {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
    body
}

/// In v1 the days; in v5 the first instant of the first day and the last of the last day.
fn created_date(api: ApiVersion, (from, to): (Date, Date)) -> Value {
    match api {
        ApiVersion::V1 => json!({ "from_date": from.to_string(), "to_date": to.to_string() }),
        ApiVersion::V5 => {
            json!({ "from_date": format!("{from}T00:00:00Z"), "to_date": format!("{to}T23:59:59Z") })
        }
    }
}

#[derive(Deserialize)]
struct PageV5<'a> {
    #[serde(borrow)]
    data: Option<DataV5<'a>>,
}

#[derive(Deserialize)]
struct DataV5<'a> {
    #[serde(borrow)]
    campaigns: Option<Vec<&'a RawValue>>,
}

/// v1: a bare array of campaigns. v5: the array in `data.campaigns`. After the first page, `null` is an empty page.
pub(super) fn read<'a>(
    query: &CampaignsQuery,
    page: u64,
    json: &'a str,
) -> Result<PageContents<'a>, serde_json::Error> {
    let campaigns: Option<Vec<&RawValue>> = match query.api {
        ApiVersion::V1 => serde_json::from_str(json)?,
        ApiVersion::V5 => serde_json::from_str::<PageV5<'a>>(json)?.data.and_then(|data| data.campaigns),
    };
    let campaigns = match campaigns {
        Some(campaigns) => campaigns,
        None if page > 1 => Vec::new(),
        None if query.api == ApiVersion::V1 => {
            return Err(serde_json::Error::custom("null, expected a list of campaigns"));
        }
        None => return Err(serde_json::Error::custom("there is no list `data.campaigns`")),
    };
    let items = campaigns.into_iter().map(|json| RawRecord { id: id(json), json }).collect();
    Ok(PageContents { items, total: None, is_followed: false })
}

/// Identifies a campaign. In v5, `id` identifies a version and `campaign_id` all versions; both, because a record must not
/// replace another one that only has the same `id`.
fn id(json: &RawValue) -> Option<String> {
    let fields = ndjson::fields(json)?;
    match (ndjson::text(&fields, "id"), ndjson::text(&fields, "campaign_id")) {
        (Some(id), Some(campaign)) if id != campaign => Some(format!("{id} {campaign}")),
        (id, campaign) => id.or(campaign),
    }
}

/// The id for requests of a campaign's executions; `None` if it has no executions. Only Email and Push campaigns that
/// are periodic or triggered by a business event have them (Get Child of a Campaign API). A campaign without a channel
/// may have them.
pub fn executions_parent(campaign: &RawValue) -> Option<String> {
    let fields = ndjson::fields(campaign)?;
    let word = |name| ndjson::text(&fields, name).map(|word| word.trim().to_ascii_uppercase().replace([' ', '-'], "_"));
    let is_recurring = matches!(
        word("campaign_delivery_type")?.as_str(),
        "PERIODIC" | "BUSINESS_EVENT_TRIGGERED" | "BUSINESS_TRIGGERED"
    );
    let is_covered = word("channel").is_none_or(|channel| matches!(channel.as_str(), "EMAIL" | "PUSH"));
    let id = ndjson::text(&fields, "campaign_id").or_else(|| ndjson::text(&fields, "id"));
    id.filter(|_| is_recurring && is_covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn campaigns_that_share_one_of_their_two_ids_are_not_the_same() {
        let of = |json: &str| id(&RawValue::from_string(json.to_owned()).unwrap());
        let first = of(r#"{"id": "v1", "campaign_id": "c1"}"#);
        assert_ne!(first, of(r#"{"id": "v1", "campaign_id": "c2"}"#));
        assert_ne!(first, of(r#"{"id": "v2", "campaign_id": "c1"}"#));
        assert_eq!(of(r#"{"campaign_id": "c1"}"#), of(r#"{"id": "c1"}"#));
        assert_eq!(of("{}"), None);
    }
}
