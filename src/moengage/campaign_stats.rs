//! `campaign_stats`: the metrics of a window of days, ten campaigns at a time (seed document 002).

use std::fmt;

use jiff::civil::Date;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor},
};
use serde_json::{Value, json, value::RawValue};
use url::Url;

use super::{
    page::{Contents, Record, total},
    transport::below,
};
use crate::config::StatsQuery;

/// Most campaigns on a page, and in a request that names them (seed 002).
pub(super) const LIMIT: u64 = 10;

pub(super) fn url(base_url: &Url) -> Url {
    below(base_url, &["core-services", "v1", "campaign-stats"])
}

pub(super) fn body(
    query: &StatsQuery,
    (from, to): (Date, Date),
    campaign_ids: &[String],
    offset: u64,
    request_id: &str,
) -> Value {
    let mut body = json!({
        "request_id": request_id,
        "start_date": from.to_string(),
        "end_date": to.to_string(),
        "attribution_type": query.attribution_type,
        "metric_type": query.metric_type,
        "offset": offset,
        "limit": LIMIT,
    });
    if !campaign_ids.is_empty() {
        body["campaign_ids"] = json!(campaign_ids);
    }
    body
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default, deserialize_with = "total")]
    total_campaigns: Option<u64>,
    #[serde(default, deserialize_with = "total")]
    current_page: Option<u64>,
    #[serde(default, deserialize_with = "total")]
    total_pages: Option<u64>,
    data: Option<Campaigns>,
}

pub(super) fn read(json: &[u8]) -> Result<Contents, serde_json::Error> {
    let Answer { total_campaigns, current_page, total_pages, data } = serde_json::from_slice(json)?;
    let records = match (data, total_campaigns) {
        (Some(Campaigns(records)), _) => records,
        (None, Some(0)) => Vec::new(),
        (None, _) => return Err(serde::de::Error::missing_field("data")),
    };
    let is_followed = current_page.zip(total_pages).is_some_and(|(current, pages)| current < pages);
    Ok(Contents { items: records.len() as u64, records, total: total_campaigns, is_followed })
}

/// The map from campaign id to its statistics, in its order.
struct Campaigns(Vec<Record>);

impl<'de> Deserialize<'de> for Campaigns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Vec<Record>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from campaign id to statistics")
            }

            // Some servers write an empty map so.
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                match list.next_element::<IgnoredAny>()? {
                    None => Ok(Vec::new()),
                    Some(_) => Err(A::Error::invalid_type(Unexpected::Seq, &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut records = Vec::new();
                while let Some((id, json)) = map.next_entry::<String, Box<RawValue>>()? {
                    records.push(Record { id, json });
                }
                Ok(records)
            }
        }
        deserializer.deserialize_any(Map).map(Campaigns)
    }
}
