//! The example account of `moesync demo`.

use jiff::{
    SignedDuration,
    civil::{Time, Weekday, time},
    tz::TimeZone,
};

use super::{Account, Campaigns, Container, Csv, EmulatedReport};
use crate::config::{Schedule, SourceKind};

/// An account with three campaign reports, the second of which is always late, and the daily dump, all in `timezone`.
pub fn demo_account(timezone: TimeZone) -> Account {
    let report = |source, name: &str, schedule, appears_at_request| EmulatedReport {
        source,
        name: name.to_owned(),
        schedule,
        timezone: timezone.clone(),
        suffix: ".zip".to_owned(),
        first_date: None,
        publish_delay: SignedDuration::ZERO,
        appears_at_request,
        bytes: 64 << 10,
        container: Container::Zip,
        csv: Csv::default(),
    };
    let daily = |at: Time| Schedule::Daily { at };
    let monday = Schedule::Weekly { on: vec![Weekday::Monday], at: time(7, 0, 0, 0) };
    Account {
        app_id: "DEMO-APP-ID".to_owned(),
        secret_key: "demo-secret-key-of-no-account".into(),
        api_key: "demo-api-key-of-no-account".into(),
        reports: vec![
            report(SourceKind::CampaignReport, "Daily campaigns", daily(time(9, 30, 0, 0)), 1),
            report(SourceKind::CampaignReport, "Daily - conversions", daily(time(6, 15, 0, 0)), 3),
            report(SourceKind::CampaignReport, "Weekly summary", monday, 1),
            report(SourceKind::DailyDump, "Daily dump", daily(time(8, 0, 0, 0)), 1),
        ],
        campaigns: Campaigns::default(),
    }
}
