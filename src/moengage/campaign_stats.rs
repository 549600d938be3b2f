//! `campaign_stats`: the metrics of a window of days, ten campaigns at a time (Campaign Stats and Reports API).

use std::fmt;

use jiff::civil::Date;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor},
};
use serde_json::{Value, json, value::RawValue};
use url::Url;

use super::{
    contents::{PageContents, RawRecord, total},
    endpoint::below,
};
use crate::{config::StatsQuery, ndjson::Text};

/// Most campaigns on a page, and in a request that names them (Campaign Stats and Reports API).
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
struct StatsPage<'a> {
    #[serde(default, deserialize_with = "total")]
    total_campaigns: Option<u64>,
    #[serde(default, deserialize_with = "total")]
    current_page: Option<u64>,
    #[serde(default, deserialize_with = "total")]
    total_pages: Option<u64>,
    #[serde(borrow)]
    data: Option<StatsByCampaign<'a>>,
}

pub(super) fn read(offset: u64, json: &str) -> Result<PageContents<'_>, serde_json::Error> {
    let StatsPage { total_campaigns, current_page, total_pages, data } = serde_json::from_str(json)?;
    let items = match (data, total_campaigns) {
        (Some(StatsByCampaign(items)), _) => items,
        (None, Some(0)) => Vec::new(),
        (None, _) if offset > 0 => Vec::new(),
        (None, _) => return Err(serde_json::Error::custom("there is no map `data`, nor a total of 0")),
    };
    let is_followed = current_page.zip(total_pages).is_some_and(|(current, pages)| current < pages);
    Ok(PageContents { items, total: total_campaigns, is_followed })
}

/// The map from campaign id to statistics, in its order.
struct StatsByCampaign<'a>(Vec<RawRecord<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for StatsByCampaign<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Vec<RawRecord<'de>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from campaign id to statistics")
            }

            // Some servers write an empty map as `[]`.
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                match list.next_element::<IgnoredAny>()? {
                    None => Ok(Vec::new()),
                    Some(_) => Err(A::Error::invalid_type(Unexpected::Seq, &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some((Text(id), json)) = map.next_entry::<Text, &'de RawValue>()? {
                    items.push(RawRecord { id: Some(id), json });
                }
                Ok(items)
            }
        }
        deserializer.deserialize_any(Map).map(StatsByCampaign)
    }
}
