//! `executions`: the runs of one recurring campaign, page by page, with their number (seed document 004).

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use url::Url;

use super::{
    page::{Contents, Record, total},
    transport::below,
};
use crate::ndjson;

/// Most executions on a page (seed 004).
pub(super) const LIMIT: u64 = 15;

pub(super) fn url(base_url: &Url, parent: &str) -> Url {
    below(base_url, &["core-services", "v1", "campaigns", parent, "executions"])
}

pub(super) fn body(page: u64, request_id: &str) -> Value {
    json!({ "request_id": request_id, "limit": LIMIT, "page": page })
}

#[derive(Deserialize)]
struct Answer {
    executions: Option<Vec<Box<RawValue>>>,
    #[serde(default, deserialize_with = "total")]
    total_instances: Option<u64>,
}

pub(super) fn read(json: &[u8]) -> Result<Contents, serde_json::Error> {
    let Answer { executions, total_instances } = serde_json::from_slice(json)?;
    let executions = match (executions, total_instances) {
        (Some(executions), _) => executions,
        (None, Some(0)) => Vec::new(),
        (None, _) => return Err(serde::de::Error::missing_field("executions")),
    };
    let items = executions.len() as u64;
    let records = executions.into_iter().map(|json| Record { id: id(&json), json }).collect();
    Ok(Contents { records, items, total: total_instances, is_followed: false })
}

/// What tells an execution from others: a child campaign, and when it was sent. Its status may change between two pages.
fn id(json: &RawValue) -> String {
    let fields = ndjson::fields(json).unwrap_or_default();
    let text = |name| ndjson::text(&fields, name);
    match (text("campaign_id").or_else(|| text("id")), text("sent_time")) {
        (Some(child), sent_time) => format!("{child} {}", sent_time.unwrap_or_default()),
        (None, _) => json.get().to_owned(),
    }
}
