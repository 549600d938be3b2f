//! The counts of an archive beside those of statistics.
//!
//! This file owns which counts of the two mean the same, and how rows of an archive add up. MoEngage does not document this: the
//! pairs are those that real exports show. Rates are left out, because their formulas differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek},
};

use flate2::read::MultiGzDecoder;
use jiff::civil::Date;
use serde_json::value::RawValue;

use super::{
    Dates, Lookup,
    copy::{CopyError, Part as CopyPart, copy, unpack},
    stored::{Stored, describe, find, keys},
};
use crate::{
    config::{Report, SnapshotSource, Source},
    ndjson,
    report::is_version,
    store::{ObjectFormat, StoreError},
    sync::OpenReport,
    tables::{self, Cell, CellKind, Content, Depth, Input, Part, Row},
    temporary::temporary_file,
    words::{ReconciledCampaign, ReconciledCount, Reconciliation, ReconciliationResult},
};

/// Headings of counts in an archive, and the name of the same count in the statistics' `performance_stats`.
const PAIRS: [(&str, &str); 7] = [
    ("All Platform Sent", "sent"),
    ("All Platform Impressions", "impression"),
    ("All Platform Clicks", "click"),
    ("Sent", "sent"),
    ("Impressions", "impression"),
    ("Clicks", "click"),
    ("Total Delivered", "delivered"),
];

/// The counts that are compared.
const COUNTS: [&str; 4] = ["sent", "delivered", "impression", "click"];

/// Names of the whole. MoEngage writes that of locales in two ways.
const PLATFORM: &str = "ALL_PLATFORMS";
const LOCALES: [&str; 2] = ["all_locale", "all_locales"];
const VARIATIONS: [&str; 1] = ["all_variations"];

/// Headings of the parts that a row may be of, and the names of the whole. An archive may write them as words, in any case.
const SPLITS: [(&str, &[&str]); 3] =
    [("Variation", &VARIATIONS), ("Campaign Version Name", &VARIATIONS), ("Locale", &LOCALES)];

/// The two reports that are compared.
pub struct ReconcileParties<'a> {
    /// The report of archives.
    pub archive: &'a OpenReport,
    /// The report of statistics.
    pub stats: &'a OpenReport,
}

/// Why two reports cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// They do not fit together.
    #[error("{0}")]
    Unfit(String),
    /// Nothing is stored.
    #[error("{0}")]
    Nothing(String),
    /// A destination cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored object is damaged.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// An entry is no table.
    #[error("could not read `{entry}` in `{key}`: {source}")]
    Entry {
        /// Key of the archive.
        key: String,
        /// Name of the entry.
        entry: String,
        /// The cause.
        source: tables::Error,
    },
    /// Statistics are not lines of JSON.
    #[error("could not read `{key}`: {source}")]
    Stats {
        /// Key of the snapshot.
        key: String,
        /// The cause.
        source: io::Error,
    },
}

/// The counts of one campaign on one day, by name.
type Counts = BTreeMap<&'static str, i64>;

/// The counts of all campaigns on all days.
type ByCampaign = BTreeMap<(Date, String), Counts>;

/// Compares the archives of these dates (without any: the newest one) with the statistics of the days in them.
///
/// # Errors
///
/// The reports do not fit together, nothing is stored, or it cannot be read.
pub async fn reconcile(parties: &ReconcileParties<'_>, dates: &Dates) -> Result<Reconciliation, ReconcileError> {
    let (archive, stats) = (parties.archive, parties.stats);
    check(&archive.report, &stats.report)?;
    let mut in_report = ByCampaign::new();
    for stored in archives(archive, dates).await? {
        // A newer archive restates the days that it has.
        in_report.extend(of_archive(archive, &stored).await?);
    }
    if in_report.is_empty() {
        return Err(ReconcileError::Unfit(format!(
            "no file in the archives of report `{}` has rows with the columns Campaign ID, Date and a count ({}); have the report made by \
             day, with these columns",
            archive.report.id.name(),
            PAIRS.map(|(heading, _)| heading).join(", ")
        )));
    }
    let days: BTreeSet<Date> = in_report.keys().map(|(day, _)| *day).collect();
    let (mut in_stats, mut days_without_stats) = (ByCampaign::new(), Vec::new());
    for day in days {
        match of_day(stats, day).await? {
            Some(counts) => in_stats.extend(counts),
            None => {
                days_without_stats.push(day);
                in_report.retain(|(other, _), _| *other != day);
            }
        }
    }
    Ok(compare(&archive.report, &stats.report, &in_report, &in_stats, days_without_stats))
}

/// Refuses reports whose counts have different meanings.
fn check(archive: &Report, stats: &Report) -> Result<(), ReconcileError> {
    let unfit = |message: String| Err(ReconcileError::Unfit(message));
    let (name, with) = (archive.id.name(), stats.id.name());
    if !archive.source.kind().is_archive() {
        return unfit(format!("report `{name}` is {}, not an archive; name it with --with", archive.source.kind()));
    }
    let Source::Snapshot(SnapshotSource::CampaignStats(query)) = &stats.source else {
        return unfit(format!("report `{with}` is {}, not campaign_stats", stats.source.kind()));
    };
    if archive.id.workspace() != stats.id.workspace() {
        return unfit(format!("report `{name}` and report `{with}` are in different workspaces"));
    }
    if query.window_days != 1 {
        return unfit(format!(
            "each snapshot of report `{with}` covers {} days together; a comparison by day needs window_days = 1",
            query.window_days
        ));
    }
    if query.metric_type != "TOTAL" {
        return unfit(format!(
            "report `{with}` counts users (metric_type = {:?}), archives count messages; a comparison needs metric_type = \"TOTAL\"",
            query.metric_type
        ));
    }
    Ok(())
}

/// The archives to compare, oldest first.
async fn archives(archive: &OpenReport, dates: &Dates) -> Result<Vec<Stored>, ReconcileError> {
    let mut listed = keys(archive, dates).await?;
    listed.retain(|listed| !is_version(&listed.key));
    if dates.from.is_none() && dates.to.is_none() {
        listed = listed.pop().into_iter().collect();
    }
    let mut stored = Vec::new();
    for listed in &listed {
        stored.extend(describe(archive, listed).await?);
    }
    match stored.is_empty() {
        true => Err(ReconcileError::Nothing(format!(
            "no archive of report `{}` is stored for these dates; `moesync ls` lists what is stored",
            archive.report.id.name()
        ))),
        false => Ok(stored),
    }
}

/// The counts in one archive.
async fn of_archive(archive: &OpenReport, stored: &Stored) -> Result<ByCampaign, ReconcileError> {
    let entries = stored.manifest.entries.as_deref().unwrap_or_default();
    let is_only = stored.manifest.format == ObjectFormat::Gzip && entries.len() == 1;
    let readable = entries.iter().map(|entry| entry.name.as_str()).enumerate();
    let readable: Vec<_> = readable.filter(|(_, name)| is_only || has_counts(Content::of(name))).collect();
    let positions = readable.iter().map(|(position, ..)| *position).collect();
    let files = unpack(&archive.destination, stored, positions).await?;
    let mut sums: BTreeMap<(Date, String), Sum> = BTreeMap::new();
    for (file, (position, name)) in files.iter().zip(readable) {
        let failed = |source: tables::Error| ReconcileError::Entry {
            key: stored.manifest.key.clone(),
            entry: name.to_owned(),
            source,
        };
        let content = match is_only {
            true => again(file)
                .and_then(|file| Content::of_only_file(name, file))
                .map_err(tables::Error::Read)
                .map_err(failed)?,
            false => Content::of(name),
        };
        let Some(content) = content.filter(|content| has_counts(Some(*content))) else { continue };
        let sheets = match content {
            Content::Xlsx => {
                let sheets = again(file).map_err(tables::Error::Read).and_then(tables::sheets);
                sheets.map_err(failed)?.into_iter().map(Some).collect()
            }
            Content::Csv | Content::Ndjson => vec![None],
        };
        for sheet in sheets {
            let part = Part { table: String::new(), number: 0, entry: position, content, sheet };
            let open = || Ok(Box::new(again(file)?) as Box<dyn Read>);
            add_rows(&Input { part: &part, open: &open }, &mut sums).map_err(failed)?;
        }
    }
    Ok(sums.into_iter().map(|(key, sum)| (key, sum.whole.unwrap_or(sum.parts))).collect())
}

fn has_counts(content: Option<Content>) -> bool {
    matches!(content, Some(Content::Csv | Content::Xlsx))
}

/// A reader from the beginning of the file. One at a time: they share a position.
fn again(mut file: &File) -> io::Result<BufReader<File>> {
    file.rewind()?;
    file.try_clone().map(BufReader::new)
}

/// The rows of one campaign on one day.
#[derive(Default)]
struct Sum {
    /// Of rows that are about all variations and locales.
    whole: Option<Counts>,
    /// Of the other rows.
    parts: Counts,
}

/// Where the columns are in a file.
struct Layout {
    campaign: usize,
    day: usize,
    counts: Vec<(usize, &'static str)>,
    splits: Vec<(usize, &'static [&'static str])>,
}

impl Layout {
    /// `None` if the file lacks a column.
    fn of(headings: &[String]) -> Option<Self> {
        let at = |wanted: &str| headings.iter().position(|heading| heading.trim().eq_ignore_ascii_case(wanted));
        let mut counts: Vec<(usize, &'static str)> = Vec::new();
        for (heading, count) in PAIRS {
            // The whole over platforms comes first.
            if let Some(position) = at(heading)
                && counts.iter().all(|(_, known)| *known != count)
            {
                counts.push((position, count));
            }
        }
        let splits = SPLITS.into_iter().filter_map(|(heading, wholes)| Some((at(heading)?, wholes))).collect();
        let layout = Layout { campaign: at("Campaign ID")?, day: at("Date")?, counts, splits };
        (!layout.counts.is_empty()).then_some(layout)
    }

    fn is_whole(&self, row: &Row<'_>) -> bool {
        self.splits.iter().all(|(position, wholes)| {
            let text = row.cell(*position).text.trim().replace(' ', "_");
            text.is_empty() || wholes.iter().any(|whole| text.eq_ignore_ascii_case(whole))
        })
    }
}

/// Adds the rows of a file. One without the needed columns has none.
fn add_rows(input: &Input<'_>, sums: &mut BTreeMap<(Date, String), Sum>) -> Result<(), tables::Error> {
    let Some(layout) = Layout::of(&input.survey(Depth::First(1))?.headings) else { return Ok(()) };
    input.read(&mut |row| {
        let campaign = row.cell(layout.campaign).text.trim();
        let Some(day) = row.cell(layout.day).date().filter(|_| !campaign.is_empty()) else { return Ok(()) };
        let is_whole = layout.is_whole(&row);
        for (position, count) in &layout.counts {
            let Some(number) = row.cell(*position).whole() else { continue };
            let sum = sums.entry((day, campaign.to_owned())).or_default();
            let counts = if is_whole { sum.whole.get_or_insert_default() } else { &mut sum.parts };
            let total = counts.entry(*count).or_default();
            *total = total.saturating_add(number);
        }
        Ok(())
    })?;
    Ok(())
}

/// The counts of a day in the statistics; `None` if that day is not stored. Statistics of one day are generated on the next.
async fn of_day(stats: &OpenReport, day: Date) -> Result<Option<ByCampaign>, ReconcileError> {
    let Ok(date) = day.tomorrow() else { return Ok(None) };
    let stored = match find(stats, date).await? {
        Lookup::One(stored) => stored,
        Lookup::Nothing => return Ok(None),
        Lookup::Several(keys) => {
            return Err(ReconcileError::Nothing(format!(
                "several snapshots are stored for {date}, none of them with the report's own key: {}",
                keys.join(", ")
            )));
        }
    };
    let failed = |source: io::Error| ReconcileError::Stats { key: stored.manifest.key.clone(), source };
    let mut file = temporary_file(None).map_err(failed)?;
    copy(&stats.destination, &stored, CopyPart::Whole, &mut file).await?;
    file.rewind().map_err(failed)?;
    let mut counts = ByCampaign::new();
    for line in BufReader::new(MultiGzDecoder::new(BufReader::new(file))).lines() {
        let line = line.map_err(failed)?;
        let line: &RawValue = serde_json::from_str(&line).map_err(|error| failed(error.into()))?;
        if let Some((campaign, of_line)) = whole_of(line).filter(|(_, counts)| !counts.is_empty()) {
            counts.insert((day, campaign), of_line);
        }
    }
    Ok(Some(counts))
}

/// The fields of a JSON object. Their values stay text, because one that is not needed may be a number that no type holds.
type Fields<'a> = Vec<(String, &'a RawValue)>;

/// The fields of the object in the first of these fields that there is.
fn within<'a>(fields: &Fields<'a>, names: &[&str]) -> Option<Fields<'a>> {
    let object = |name: &&str| fields.iter().find(|(key, _)| key == name).and_then(|(_, json)| ndjson::fields(json));
    names.iter().find_map(object)
}

/// The counts of a campaign over all platforms, locales and variations, if the line has them: it may have one row or all.
fn whole_of(line: &RawValue) -> Option<(String, Counts)> {
    let line = ndjson::fields(line)?;
    let campaign = ndjson::text(&line, "campaign_id")?;
    let (metrics, prefix) = match within(&line, &["platforms"]) {
        // shape = "raw"
        Some(platforms) => {
            let locales = within(&within(&platforms, &[PLATFORM])?, &["locales"])?;
            let variations = within(&within(&locales, &LOCALES)?, &["variations"])?;
            (within(&within(&variations, &VARIATIONS)?, &["performance_stats"])?, "")
        }
        // shape = "rows"
        None => {
            let is = |name: &str, words: &[&str]| {
                ndjson::text(&line, name).is_some_and(|word| words.contains(&word.as_str()))
            };
            let is_whole = is("platform", &[PLATFORM]) && is("locale", &LOCALES) && is("variation", &VARIATIONS);
            is_whole.then_some((line, "performance_stats_"))?
        }
    };
    let count = |name: &str| {
        let text = ndjson::text(&metrics, &format!("{prefix}{name}"))?;
        Cell { kind: CellKind::Text, text: &text }.whole()
    };
    let counts = COUNTS.into_iter().filter_map(|name| Some((name, count(name)?))).collect();
    Some((campaign, counts))
}

fn compare(
    archive: &Report,
    stats: &Report,
    in_report: &ByCampaign,
    in_stats: &ByCampaign,
    days_without_stats: Vec<Date>,
) -> Reconciliation {
    let keys: BTreeSet<&(Date, String)> = in_report.keys().chain(in_stats.keys()).collect();
    let none = Counts::new();
    let campaigns = keys.into_iter().map(|key| {
        let (report, stats) = (in_report.get(key), in_stats.get(key));
        let (ours, theirs) = (report.unwrap_or(&none), stats.unwrap_or(&none));
        let is_common = |name: &&str| ours.contains_key(name) && theirs.contains_key(name);
        // Only counts that both have can be compared. Without any, those of either show why.
        let has_common = COUNTS.iter().any(is_common);
        let names = COUNTS.into_iter().filter(|name| match has_common {
            true => is_common(name),
            false => ours.contains_key(name) || theirs.contains_key(name),
        });
        let counts: Vec<_> = names
            .map(|name| {
                let (ours, theirs) = (ours.get(name).copied(), theirs.get(name).copied());
                let difference = ours.zip(theirs).map(|(ours, theirs)| theirs.saturating_sub(ours));
                ReconciledCount { name: name.to_owned(), in_report: ours, in_stats: theirs, difference }
            })
            .collect();
        let is_equal = counts.iter().all(|count| count.difference == Some(0));
        let result = match (report.is_some(), stats.is_some()) {
            (true, true) if is_equal => ReconciliationResult::Equal,
            (true, true) => ReconciliationResult::Different,
            (true, false) => ReconciliationResult::OnlyInReport,
            (false, _) => ReconciliationResult::OnlyInStats,
        };
        ReconciledCampaign { date: key.0, campaign_id: key.1.clone(), result, counts }
    });
    let campaigns: Vec<_> = campaigns.collect();
    let number = |result| campaigns.iter().filter(|campaign| campaign.result == result).count() as u64;
    Reconciliation {
        workspace: archive.id.workspace().to_owned(),
        report: archive.id.name().to_owned(),
        with: stats.id.name().to_owned(),
        equal: number(ReconciliationResult::Equal),
        different: number(ReconciliationResult::Different),
        only_in_report: number(ReconciliationResult::OnlyInReport),
        only_in_stats: number(ReconciliationResult::OnlyInStats),
        days_without_stats,
        campaigns,
    }
}
