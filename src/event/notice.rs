//! An event as its parts for people: what, since when, what to do. Each target has its own layout for them.

use jiff::Timestamp;

use super::{AlarmData, Content, Event, NearestData, ReportData, wording};
use crate::{alarm_kind::AlarmKind, shell_word::word};

/// Number of reports that a notice names, and of changed columns.
const NAMED: usize = 10;

/// How urgent an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Something is wrong.
    Bad,
    /// Something is in order again, or ready.
    Good,
    /// Neither.
    Neutral,
}

/// The parts of an event for people. Parts of them come from MoEngage: escape them for the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How urgent it is.
    pub mood: Mood,
    /// What happened, in a few words.
    pub title: String,
    /// The reason, if the facts do not give it.
    pub text: Option<String>,
    /// Names and values.
    pub facts: Vec<(&'static str, String)>,
    /// What to do.
    pub advice: Option<String>,
}

impl Event {
    /// The event for people.
    pub fn notice(&self) -> Notice {
        let plain =
            |mood, title: &str, facts| Notice { mood, title: title.to_owned(), text: None, facts, advice: None };
        match &self.content {
            Content::AlarmBegan(data) => alarm(data, ""),
            Content::AlarmWorsened(data) => alarm(data, "worse: "),
            Content::AlarmEnded(data) => {
                let facts = vec![("Began", time(data.since)), ("Ended", time(self.timestamp))];
                plain(Mood::Good, &format!("resolved: {}", title(data)), facts)
            }
            Content::Stored(data) => {
                let mut facts = vec![("Object", data.key.clone()), ("Size", bytesize::ByteSize(data.size).to_string())];
                facts.extend(data.destination.clone().map(|name| ("Destination", name)));
                plain(Mood::Good, &format!("{}/{} {} is stored", data.workspace, data.report, data.date), facts)
            }
            Content::Tables(data) => {
                let title = format!("the tables of {}/{} {} are ready", data.workspace, data.report, data.date);
                let facts = vec![("Rows", data.rows.to_string()), ("Objects", data.tables.len().to_string())];
                plain(Mood::Good, &title, facts)
            }
            Content::SchemaChanged(data) => {
                let title = format!("{}/{}: the columns of table {} changed", data.workspace, data.report, data.table);
                let mut facts = vec![("From", data.date.to_string())];
                facts.extend(data.changes.iter().take(NAMED).map(|change| ("Change", wording::difference(change))));
                let others = data.changes.len().saturating_sub(NAMED);
                facts.extend((others > 0).then(|| ("Change", format!("{others} more"))));
                plain(Mood::Neutral, &title, facts)
            }
            Content::Summary(data) => {
                let facts = vec![
                    ("Since", time(data.since)),
                    ("Stored", format!("{} ({})", data.stored, bytesize::ByteSize(data.bytes))),
                    ("Due and not stored", data.pending.to_string()),
                    ("Alarms", data.alarms.to_string()),
                ];
                plain(Mood::Neutral, "summary of the day", facts)
            }
            Content::Test(data) => plain(Mood::Neutral, &data.message, Vec::new()),
        }
    }
}

/// An alarm that began or worsened.
fn alarm(data: &AlarmData, prefix: &str) -> Notice {
    let mut facts = vec![("Since", time(data.since))];
    let dates = |report: &ReportData| format!("{} ({})", report.report, wording::counted(report.partitions, "date"));
    let mut named: Vec<_> = data.reports.iter().take(NAMED).map(dates).collect();
    let others = data.reports.len() - named.len();
    named.extend((others > 0).then(|| wording::counted(others, "other report")));
    if !named.is_empty() {
        facts.push((if data.reports.len() == 1 { "Report" } else { "Reports" }, named.join(", ")));
    }
    if let Some(nearest) = &data.nearest {
        let of = if data.partitions > 1 { "First to expire" } else { "Date" };
        facts.push((of, format!("{} {}{}", nearest.report, nearest.date, expiry(data, nearest))));
        let attempt = match (&nearest.outcome, &nearest.message) {
            (Some(outcome), Some(message)) => Some(format!("{outcome}: {message}")),
            (Some(outcome), None) => Some(outcome.to_string()),
            (None, _) => None,
        };
        facts.extend(attempt.map(|attempt| ("Last attempt", attempt)));
    }
    let text = data.cause.clone();
    Notice { mood: Mood::Bad, title: format!("{prefix}{}", title(data)), text, facts, advice: Some(data.advice()) }
}

/// Events of earlier versions have no title.
fn title(data: &AlarmData) -> &str {
    if data.title.is_empty() { &data.message } else { &data.title }
}

fn expiry(data: &AlarmData, nearest: &NearestData) -> String {
    let Some(at) = nearest.expires_at else { return String::new() };
    match data.within_seconds {
        Some(0) => format!(", expired {}", time(at)),
        Some(seconds) => {
            let within = jiff::SignedDuration::from_secs(seconds);
            format!(", expires {}, in less than {within:#}", time(at))
        }
        None => format!(", expires {}", time(at)),
    }
}

fn time(at: Timestamp) -> String {
    format!("{} UTC", at.strftime("%Y-%m-%d %H:%M"))
}

impl AlarmData {
    /// What to do; docs/operations.md has more.
    pub fn advice(&self) -> String {
        let explain = self.nearest.as_ref().map_or(String::new(), |nearest| {
            format!(
                " `moesync explain --workspace {} --report {} --date {}` shows the attempts.",
                word(&nearest.workspace),
                word(&nearest.report),
                nearest.date
            )
        });
        let workspace = self.workspace.as_ref().map_or(String::new(), |name| format!(" --workspace {}", word(name)));
        let report = match self.reports.as_slice() {
            [report] => format!(" --report {}", word(&report.report)),
            _ => String::new(),
        };
        match self.alarm {
        AlarmKind::Lost => "Ask MoEngage's support to generate the report again, then fetch it with \
                            `moesync backfill --ask-anyway`. A listing of the past cannot be generated again: \
                            `moesync acknowledge` ends the alarm."
            .to_owned(),
        AlarmKind::Expiring => format!("Correct what the last attempt names, then run `moesync sync{workspace}{report}`.{explain}"),
        AlarmKind::Late => {
            format!("Compare the report's name and schedule with MoEngage's dashboard; if it is always later, raise its `buffer`.{explain}")
        }
        AlarmKind::Unauthorized => format!(
            "Check `app_id`, the data centre, the key and its scopes (Settings > Account > APIs). Nothing of it is fetched except \
             one probe an hour; `moesync sync{workspace}` tries immediately."
        ),
        AlarmKind::Rejected => format!("Correct the report's settings as MoEngage's reason says, then reload.{explain}"),
        AlarmKind::Corrupt => {
            format!("It is tried again. If the same bytes arrive each time, give MoEngage's support the request id.{explain}")
        }
        AlarmKind::Unsupported => {
            "Choose zip or tar, without a password, in the report's settings at MoEngage. What arrived is kept under `_quarantine/`."
                .to_owned()
        }
        AlarmKind::StoreFailed => "Check space, permission, credentials and network of the destination; \
                                   `moesync check --online` tests it. Everything for it waits."
            .to_owned(),
        AlarmKind::TablesFailed => {
            "The object is stored. Correct what the reason names, or set `tables = \"none\"`.".to_owned()
        }
        AlarmKind::OtherContent => {
            format!("Nothing was overwritten. Find out who wrote the other content.{explain}")
        }
        AlarmKind::Ledger => {
            "Look for a full or failing disk, and for other programs that write there. The alarm ends with the next start."
                .to_owned()
        }
        AlarmKind::Configuration => {
            "The previous configuration stays in use. Correct the mistake, test it with `moesync check`, then reload.".to_owned()
        }
        AlarmKind::Clock => "Correct the time synchronisation of the machine.".to_owned(),
        AlarmKind::Panic => "It is tried again. Please report the bug, with the log.".to_owned(),
    }
    }
}
