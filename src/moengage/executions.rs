//! `executions`: the runs of one recurring campaign, page by page, with their total (Get Child of a Campaign API).

use std::collections::HashMap;

use serde::{Deserialize, de::Error as _};
use serde_json::{Value, json, value::RawValue};
use url::Url;

use super::{
    contents::{PageContents, RawRecord, total},
    endpoint::below,
};
use crate::ndjson;

/// Most executions on a page (Get Child of a Campaign API).
pub(super) const LIMIT: u64 = 15;

pub(super) fn url(base_url: &Url, parent: &str) -> Url {
    below(base_url, &["core-services", "v1", "campaigns", parent, "executions"])
}

pub(super) fn body(page: u64, request_id: &str) -> Value {
    json!({ "request_id": request_id, "limit": LIMIT, "page": page })
}

#[derive(Deserialize)]
struct ExecutionsPage<'a> {
    #[serde(borrow)]
    executions: Option<Vec<&'a RawValue>>,
    #[serde(default, deserialize_with = "total")]
    total_instances: Option<u64>,
}

pub(super) fn read(page: u64, json: &str) -> Result<PageContents<'_>, serde_json::Error> {
    let ExecutionsPage { executions, total_instances } = serde_json::from_str(json)?;
    let executions = match (executions, total_instances) {
        (Some(executions), _) => executions,
        (None, Some(0)) => Vec::new(),
        (None, _) if page > 1 => Vec::new(),
        (None, _) => return Err(serde_json::Error::custom("there is no list `executions`, nor a total of 0")),
    };
    let mut counts = HashMap::new();
    let items = executions
        .into_iter()
        .map(|json| {
            let id = id(json).map(|id| {
                // Equal ids on one page are two executions; on two pages they are one that moved between requests.
                let number: &mut u64 = counts.entry(id.clone()).or_default();
                *number += 1;
                match *number {
                    1 => id,
                    number => format!("{id} #{number}"),
                }
            });
            RawRecord { id, json }
        })
        .collect();
    Ok(PageContents { items, total: total_instances, is_followed: false })
}

/// Identifies an execution by child campaign and time. Its other fields may change between two pages.
fn id(json: &RawValue) -> Option<String> {
    let fields = ndjson::fields(json)?;
    let text = |name| ndjson::text(&fields, name);
    let child = text("id").or_else(|| text("campaign_id"))?;
    Some(format!("{child} {}", text("sent_time").unwrap_or_default()))
}
