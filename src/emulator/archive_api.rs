//! The two APIs that serve archives: `campaign_report` and `daily_dump`.
//!
//! This file owns their paths, names, signatures and refusals, strictly after the vendor's documents 000 and 001. It
//! must not know the content of archives or how they are sent.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use jiff::{SignedDuration, civil::Date};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::{
    Account, EmulatedReport,
    recipe::{ExportContents, Recipe},
    responses::{archive, bad_request, get_only, json_error, query_value, unauthorized},
    vendor::Vendor,
};
use crate::{
    config::{Schedule, SourceKind},
    lock::lock,
    schedule::{self, Occurrence},
};

/// Document 001: "Generated report expires within seven days of generation".
const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The message for a file that is not generated yet.
pub(super) const NOT_GENERATED: &str = "The requested report is not generated yet";
const NO_SUCH_FILE: &str = "Invalid report file name";
const NO_SUCH_ACCOUNT: &str = "Incorrect App Id";

type Names = Result<Path<(String, String)>, PathRejection>;

pub(super) fn routes() -> Router<Arc<Vendor>> {
    Router::new()
        .route("/campaign_reports/rest_api/{app_id}/{file_name}", get_only(campaign_report))
        .route("/dailyCampaignReportDump/{app_id}/{file_name}", get_only(daily_dump))
        .route("/v1/dailyCampaignReportDump/{app_id}/{file_name}", get_only(daily_dump))
}

/// The API of a decoded path, if it is one of these.
pub(super) fn serves(path: &str) -> Option<SourceKind> {
    let dump = path.strip_prefix("/v1").unwrap_or(path);
    if path.starts_with("/campaign_reports/") {
        Some(SourceKind::CampaignReport)
    } else {
        dump.starts_with("/dailyCampaignReportDump/").then_some(SourceKind::DailyDump)
    }
}

async fn campaign_report(State(vendor): State<Arc<Vendor>>, names: Names, headers: HeaderMap) -> Response {
    let (account, file_name) = match addressed(&vendor, names) {
        Ok(found) => found,
        Err(message) => return bad_request(message),
    };
    let given = headers.get("Signature").map(|value| value.as_bytes());
    if given != Some(signature(account, &file_name).as_bytes()) {
        return unauthorized();
    }
    serve(&vendor, account, SourceKind::CampaignReport, file_name)
}

async fn daily_dump(State(vendor): State<Arc<Vendor>>, names: Names, RawQuery(query): RawQuery) -> Response {
    let (account, file_name) = match addressed(&vendor, names) {
        Ok(found) => found,
        Err(message) => return bad_request(message),
    };
    if query_value(query, "Signature") != Some(signature(account, &file_name)) {
        // Document 000 promises JSON for every failure.
        return json_error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "Invalid signature");
    }
    serve(&vendor, account, SourceKind::DailyDump, file_name)
}

/// The account and the decoded file name that a path names, or the refusal.
fn addressed(vendor: &Vendor, names: Names) -> Result<(&Account, String), &'static str> {
    // Refused only where the percent-encoding isn't UTF-8.
    let Path((app_id, file_name)) = names.map_err(|_| NO_SUCH_FILE)?;
    let account = vendor.accounts.iter().find(|account| account.app_id == app_id);
    Ok((account.ok_or(NO_SUCH_ACCOUNT)?, file_name))
}

/// Documents 000 and 001, "Generating Signature"; of the decoded name.
fn signature(account: &Account, file_name: &str) -> String {
    let text = [&account.app_id, file_name, account.secret_key.expose_secret()].join("|");
    hex::encode(Sha256::digest(text))
}

fn serve(vendor: &Vendor, account: &Account, source: SourceKind, file_name: String) -> Response {
    let mut reports = account.reports.iter().filter(|report| report.source == source);
    let Some((report, Occurrence { date, generated_at })) =
        reports.find_map(|report| generation(report, &file_name).map(|generation| (report, generation)))
    else {
        return bad_request(NO_SUCH_FILE);
    };
    let age = vendor.now().duration_since(generated_at);
    if report.first_date.is_some_and(|first| date < first) {
        return bad_request("No campaign report for this date");
    }
    if source == SourceKind::CampaignReport && age >= KEPT {
        return bad_request("The requested report is older than 7 days");
    }
    if age < report.publish_delay.max(SignedDuration::ZERO) {
        return bad_request(NOT_GENERATED);
    }
    let asked = {
        let mut asked = lock(&vendor.asked);
        let asked = asked.entry((account.app_id.clone(), file_name.clone())).or_default();
        *asked += 1;
        *asked
    };
    if asked < report.appears_at_request {
        return bad_request(NOT_GENERATED);
    }
    let EmulatedReport { bytes, container, csv, .. } = *report;
    let contents = ExportContents {
        name: (source == SourceKind::CampaignReport).then(|| report.name.replace(' ', "_")),
        days: match report.schedule {
            Schedule::Weekly { .. } => 7,
            Schedule::Monthly { .. } => 30,
            _ => 1,
        },
        timezone: report.timezone.clone(),
        csv,
        campaigns: account.campaigns.clone(),
    };
    archive(Recipe { app_id: account.app_id.clone(), file_name, date, bytes, container, contents })
}

/// The generation of `report` that `file_name` names, if any.
fn generation(report: &EmulatedReport, file_name: &str) -> Option<Occurrence> {
    let date = match report.source {
        // Document 001: the name "with space replaced by underscores", the date, "compression format such as .zip".
        SourceKind::CampaignReport => {
            file_name.strip_prefix(&report.name.replace(' ', "_"))?.strip_prefix('_')?.strip_suffix(&report.suffix)?
        }
        // Document 000: "The file name is in the format YYYYMMDD.zip".
        _ => file_name.strip_suffix(".zip")?,
    };
    // The parser alone accepts fewer digits, and signs.
    let written = date.len() == 8 && date.bytes().all(|digit| digit.is_ascii_digit());
    let date = written.then(|| Date::strptime("%Y%m%d", date).ok())??;
    schedule::on(&report.schedule, &report.timezone, date)
}
