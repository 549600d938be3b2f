//! `campaigns`: the live listing, page by page (seed document 003). It says no total: it ends with a page that is not
//! full.

use serde_json::{Value, json, value::RawValue};
use url::Url;

use super::{
    page::{Contents, Record},
    transport::below,
};
use crate::{config::CampaignsQuery, ndjson};

/// Most campaigns on a page (seed 003).
pub(super) const LIMIT: u64 = 15;

pub(super) fn url(base_url: &Url) -> Url {
    below(base_url, &["core-services", "v1", "campaigns", "search"])
}

pub(super) fn body(query: &CampaignsQuery, page: u64, request_id: &str) -> Value {
    let day = |date: jiff::civil::Date| date.strftime("%d-%m-%Y").to_string();
    let mut fields = serde_json::Map::new();
    for (name, words) in [
        ("channels", &query.channels),
        ("created_by", &query.created_by),
        ("delivery_type", &query.delivery_type),
        ("status", &query.status),
        ("tags", &query.tags),
    ] {
        if !words.is_empty() {
            fields.insert(name.into(), json!(words));
        }
    }
    if let Some((from, to)) = query.created_date {
        fields.insert("created_date".into(), json!({ "from_date": day(from), "to_date": day(to) }));
    }
    let mut body = json!({ "request_id": request_id, "limit": LIMIT, "page": page });
    if !fields.is_empty() {
        body["campaign_fields"] = fields.into();
    }
    for (name, value) in [
        ("include_child_campaigns", query.include_child_campaigns),
        ("include_archived_campaigns", query.include_archived_campaigns),
    ] {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
    body
}

/// A bare array of campaigns.
pub(super) fn read(json: &[u8]) -> Result<Contents, serde_json::Error> {
    let campaigns: Vec<Box<RawValue>> = serde_json::from_slice(json)?;
    let items = campaigns.len() as u64;
    let records = campaigns.into_iter().map(|json| Record { id: id(&json), json }).collect();
    Ok(Contents { records, items, total: None, is_followed: false })
}

/// What tells a campaign from others. The v5 API renames the field; what has neither is told by all it says.
fn id(json: &RawValue) -> String {
    let fields = ndjson::fields(json).unwrap_or_default();
    let id = ndjson::text(&fields, "campaign_id").or_else(|| ndjson::text(&fields, "id"));
    id.unwrap_or_else(|| json.get().to_owned())
}

/// Whether a campaign of the listing has executions: periodic ones and those that a business event triggers (seed 004).
pub fn has_executions(campaign: &RawValue) -> bool {
    let fields = ndjson::fields(campaign).unwrap_or_default();
    let delivery_type = fields.iter().find(|(key, _)| key == "campaign_delivery_type").map(|(_, value)| value.get());
    matches!(delivery_type, Some("\"PERIODIC\"" | "\"BUSINESS_EVENT_TRIGGERED\""))
}
