//! The rules for the bodies of JSON requests, after the vendor's documents 002, 003 and 004 and its OpenAPI
//! description.
//!
//! This file owns the keys, their ranges and the messages of refusals. It must not know the data or the form of errors.

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use serde_json::{Map, Value};

use super::{
    campaigns::DeliveryType,
    endpoint::{Api, Endpoint, Version},
    selection::{Attribution, CHANNELS, Metric, STATUSES, Search, StatsWindow},
};

/// A longer window is refused: "the difference … must not exceed 30 days".
const LONGEST_WINDOW: i32 = 30;
/// The most ids in a request.
const MOST_IDS: usize = 10;

/// The reason why a request is refused.
#[derive(Debug)]
pub(super) struct InvalidField {
    /// The key.
    pub(super) target: String,
    pub(super) message: String,
}

impl InvalidField {
    pub(super) fn new(target: &str, message: impl Into<String>) -> InvalidField {
        InvalidField { target: target.to_owned(), message: message.into() }
    }
}

/// The rows of a listing that are requested.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageRange {
    pub(super) offset: u64,
    /// From 1.
    pub(super) limit: u64,
}

/// A body, one JSON object.
#[derive(Debug, Default)]
pub(super) struct JsonBody(Map<String, Value>);

impl JsonBody {
    pub(super) fn read(bytes: &[u8]) -> Result<JsonBody, InvalidField> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(object)) => Ok(JsonBody(object)),
            Ok(_) => Err(InvalidField::new("body", "the body must be a JSON object")),
            Err(error) => Err(InvalidField::new("body", format!("the body must be JSON: {error}"))),
        }
    }

    /// The `request_id`, if there is one.
    pub(super) fn given_request_id(&self) -> String {
        self.0.get("request_id").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub(super) fn request_id(&self) -> Result<String, InvalidField> {
        self.required("request_id", "a string that isn't empty", |id| {
            id.as_str().filter(|id| !id.is_empty()).map(str::to_owned)
        })
    }

    /// `offset` and `limit`, as statistics have them.
    pub(super) fn range_by_offset(&self) -> Result<PageRange, InvalidField> {
        Ok(PageRange {
            offset: self.optional("offset", "a whole number from 0", Value::as_u64)?.unwrap_or(0),
            limit: self.optional("limit", "a whole number from 1 to 10", |n| within(n, 1, 10))?.unwrap_or(10),
        })
    }

    /// `page` and `limit`, as the listings have them.
    pub(super) fn range_by_page(&self) -> Result<PageRange, InvalidField> {
        let limit = self.required("limit", "a whole number from 1 to 15", |n| within(n, 1, 15))?;
        let page = self.required("page", "a whole number from 1", |n| within(n, 1, u64::from(u32::MAX)))?;
        Ok(PageRange { offset: (page - 1) * limit, limit })
    }

    pub(super) fn window(&self) -> Result<StatsWindow, InvalidField> {
        let date = |key| self.required(key, "a date as YYYY-MM-DD", |text| date("%Y-%m-%d", text));
        let (from, to) = (date("start_date")?, date("end_date")?);
        if from > to {
            return Err(InvalidField::new("end_date", "end_date must not be before start_date"));
        }
        if (to - from).get_days() > LONGEST_WINDOW {
            return Err(InvalidField::new("end_date", "start_date and end_date must be at most 30 days apart"));
        }
        Ok(StatsWindow {
            from,
            to,
            attribution: self.required(
                "attribution_type",
                &one_of(&Attribution::ALL.map(Attribution::word)),
                |word| Attribution::ALL.into_iter().find(|known| word.as_str() == Some(known.word())),
            )?,
            metric: self.required("metric_type", "one of TOTAL, UNIQUE", |word| match word.as_str()? {
                "TOTAL" => Some(Metric::Total),
                "UNIQUE" => Some(Metric::Unique),
                _ => None,
            })?,
            campaign_ids: self
                .optional("campaign_ids", "a list of at most 10 strings", |ids| {
                    strings(ids).filter(|ids| ids.len() <= MOST_IDS)
                })?
                .unwrap_or_default(),
        })
    }

    /// The filters of a search or of metadata. Version 5 renames filters, and a filter by the old name
    /// `delivery_type` finds nothing there.
    pub(super) fn search(&self, endpoint: Endpoint) -> Result<Search, InvalidField> {
        let flag = |key| self.optional(key, "true or false", Value::as_bool).map(Option::unwrap_or_default);
        let fields = self.object("campaign_fields")?.unwrap_or_default();
        let list = |key| fields.optional(key, "a list of strings", strings).map(Option::unwrap_or_default);
        let text = |key| fields.optional(key, "a string", |text| text.as_str().map(str::to_owned));
        let is_v5 = endpoint.version == Version::V5;
        let (ids, delivery_type) = match is_v5 {
            false => (text("id")?.into_iter().collect(), "delivery_type"),
            true => (list("ids")?, "campaign_delivery_type"),
        };
        let created = fields.object("created_date")?.map(|range| range.created_date(endpoint)).transpose()?;
        let delivery_types = known(delivery_type, list(delivery_type)?, &DeliveryType::ALL.map(DeliveryType::word))?;
        Ok(Search {
            channels: known("channels", list("channels")?, &CHANNELS)?,
            created_by: list("created_by")?,
            created,
            delivery_types,
            ids,
            name: text("name")?,
            statuses: known("status", list("status")?, &STATUSES)?,
            tags: list("tags")?,
            children: flag("include_child_campaigns")?,
            archived: flag("include_archive_campaigns")?,
            every_channel: endpoint.api == Api::Meta,
            versions: is_v5,
            nothing: is_v5 && fields.0.contains_key("delivery_type"),
        })
    }

    /// The first and the last instant's day of a range.
    fn created_date(&self, endpoint: Endpoint) -> Result<(Date, Date), InvalidField> {
        let expected = match endpoint.version {
            Version::V1 => "a date as YYYY-MM-DD or DD-MM-YYYY",
            Version::V5 => "a date-time as YYYY-MM-DDTHH:MM:SS",
        };
        let date = |key| {
            self.required(key, expected, |text| match endpoint.version {
                Version::V1 => date("%Y-%m-%d", text).or_else(|| date("%d-%m-%Y", text)),
                Version::V5 => date_time(text),
            })
        };
        let (from, to) = (date("from_date")?, date("to_date")?);
        match from > to {
            true => Err(InvalidField::new("to_date", "to_date must not be before from_date")),
            false => Ok((from, to)),
        }
    }

    /// Fields that no document of the API names, and forms of older documents. MoEngage ignores them without an error:
    /// only this list shows that a client sends them.
    pub(super) fn oddities(&self, endpoint: Endpoint) -> Vec<String> {
        const PAGED: [&str; 3] = ["request_id", "limit", "page"];
        let mut odd = Vec::new();
        let mut unknown = |prefix: &str, object: &JsonBody, known: &[&str]| {
            let names = object.0.keys().filter(|name| !known.contains(&name.as_str()));
            odd.extend(names.map(|name| format!("unknown field `{prefix}{name}`")));
        };
        match endpoint.api {
            Api::Stats => unknown(
                "",
                self,
                &[
                    "request_id",
                    "start_date",
                    "end_date",
                    "attribution_type",
                    "metric_type",
                    "campaign_ids",
                    "offset",
                    "limit",
                ],
            ),
            Api::Executions => unknown("", self, &PAGED),
            Api::Search | Api::Meta => {
                let flags = ["campaign_fields", "include_child_campaigns", "include_archive_campaigns"];
                unknown("", self, &[&PAGED[..], &flags].concat());
                let fields = self.object("campaign_fields").ok().flatten().unwrap_or_default();
                let both = ["channels", "created_by", "created_date", "name", "status", "tags"];
                let own = match endpoint.version {
                    Version::V1 => ["id", "delivery_type"],
                    Version::V5 => ["ids", "campaign_delivery_type"],
                };
                unknown("campaign_fields.", &fields, &[&both[..], &own].concat());
                let created = fields.object("created_date").ok().flatten().unwrap_or_default();
                unknown("created_date.", &created, &["from_date", "to_date"]);
                let old = created.0.values().any(|text| date("%d-%m-%Y", text).is_some());
                odd.extend(old.then(|| "`created_date` as DD-MM-YYYY is of older documents".to_owned()));
            }
        }
        odd
    }

    fn object(&self, key: &str) -> Result<Option<JsonBody>, InvalidField> {
        self.optional(key, "an object", |value| value.as_object().cloned().map(JsonBody))
    }

    fn optional<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, InvalidField> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.required(key, expected, read).map(Some),
        }
    }

    fn required<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, InvalidField> {
        // Document 003, "400", verbatim.
        let value = self.0.get(key).filter(|value| !value.is_null());
        let value = value.ok_or_else(|| InvalidField::new(key, format!("{key} key is mandatory field")))?;
        read(value).ok_or_else(|| InvalidField::new(key, format!("{key} must be {expected}")))
    }
}

fn within(number: &Value, least: u64, most: u64) -> Option<u64> {
    number.as_u64().filter(|number| (least..=most).contains(number))
}

fn date(format: &str, text: &Value) -> Option<Date> {
    // The parser alone accepts fewer digits.
    let text = text.as_str().filter(|text| text.len() == "2021-02-17".len())?;
    Date::strptime(format, text).ok()
}

/// The day of an ISO date-time, in UTC if it names a zone.
fn date_time(text: &Value) -> Option<Date> {
    let text = text.as_str()?;
    let civil = || text.contains('T').then(|| text.parse::<DateTime>().ok()).flatten();
    let instant = || text.parse::<Timestamp>().ok().map(|at| at.to_zoned(TimeZone::UTC).datetime());
    instant().or_else(civil).map(DateTime::date)
}

fn strings(list: &Value) -> Option<Vec<String>> {
    list.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

/// `given` in the spelling of `words`: the vendor's client and its documents differ in capitals.
fn known(key: &str, given: Vec<String>, words: &[&'static str]) -> Result<Vec<&'static str>, InvalidField> {
    let known = |word: &String| words.iter().find(|known| known.eq_ignore_ascii_case(word)).copied();
    given
        .iter()
        .map(|word| known(word).ok_or_else(|| InvalidField::new(key, format!("{key} must be {}", one_of(words)))))
        .collect()
}

fn one_of(words: &[&str]) -> String {
    format!("one of {}", words.join(", "))
}
