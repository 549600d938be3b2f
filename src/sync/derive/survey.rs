//! Which tables an object becomes, and what is in their columns: the first pass over each entry, or over its first rows.
//!
//! This file owns which entries of the object are read. It must not know where tables go.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::{Arc, atomic::AtomicBool},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    AHEAD, Derive, DeriveError,
    source::Unproven,
    threads::{Stop, Stoppable},
};
use crate::{
    archive::Entries,
    config::{SnapshotSource, Source},
    partition::Entry,
    store::Manifest,
    tables::{self, Content, Depth, Input, Listed, MOST_PARTS, Part, Survey},
    telemetry::Chain,
};

/// Size of an object, in bytes, up to which all of its parts together take less time than handing them to other threads.
const SMALL_BYTES: u64 = 1024 * 1024;

/// Bytes of the entries of an object that are kept in memory for the second pass: to inflate a small one again takes about as
/// long as to write it. Several objects are ahead at a time.
const KEPT_BYTES: usize = 512 * 1024;

/// What an object becomes.
pub(super) struct Surveyed {
    pub(super) entries: Arc<Entries>,
    /// By table; in each, by number.
    pub(super) tables: BTreeMap<String, Vec<SurveyedPart>>,
    pub(super) left_alone: Vec<String>,
    /// Whether one thread reads and writes all parts, one after another.
    pub(super) is_small: bool,
}

/// One part of a table before it is written.
#[derive(Debug, Clone)]
pub(super) struct SurveyedPart {
    pub(super) part: Part,
    /// The name of its entry; of a snapshot, that of its file.
    pub(super) entry: String,
    pub(super) survey: Survey,
    /// All bytes of the entry, if they are few.
    kept: Option<Arc<Vec<u8>>>,
}

impl SurveyedPart {
    /// Opens its entry for reading, which fails once `stop` is set.
    pub(super) fn open<'a>(&'a self, entries: &'a Entries, stop: &Arc<AtomicBool>) -> io::Result<Box<dyn Read + 'a>> {
        open_kept(self.kept.as_deref(), entries, self.part.entry, stop)
    }
}

fn open_kept<'a>(
    kept: Option<&'a Vec<u8>>,
    entries: &'a Entries,
    number: usize,
    stop: &Arc<AtomicBool>,
) -> io::Result<Box<dyn Read + 'a>> {
    match kept {
        Some(bytes) => Ok(Box::new(bytes.as_slice())),
        None => open(entries, number, stop),
    }
}

fn open<'a>(entries: &'a Entries, number: usize, stop: &Arc<AtomicBool>) -> io::Result<Box<dyn Read + 'a>> {
    Ok(Box::new(Stoppable { reader: entries.open(number)?, stop: Arc::clone(stop) }))
}

/// Finds the parts of all tables, and reads each to this depth.
pub(super) async fn survey(
    derive: &Derive<'_>,
    entry: &Entry,
    object: Unproven,
    depth: Depth,
    stop: &Stop,
) -> Result<Surveyed, DeriveError> {
    let (name, date, flag) = (derive.report.name.clone(), entry.partition.id.date, stop.flag());
    let snapshot = match &derive.report.source {
        Source::Archive(_) => None,
        Source::Snapshot(source) => Some((table_of(source, derive), derive.report.file_name(date))),
    };
    let is_small = entry.object.as_ref().is_some_and(|object| object.size <= SMALL_BYTES);
    let listing = move || {
        let object = object.prove(&flag)?;
        let entries = Arc::new(Entries::find(object.file).map_err(unlisted)?);
        check_entries(&entries, object.manifest.as_ref().filter(|_| snapshot.is_none()))?;
        let names: Vec<String> = match &snapshot {
            Some((_, file)) => vec![file.clone()],
            None => entries.names().map(str::to_owned).collect(),
        };
        let (parts, left_alone) = match snapshot {
            Some((table, _)) => {
                (vec![Part { table, number: 0, entry: 0, content: Content::Ndjson, sheet: None }], Vec::new())
            }
            None => {
                let listed = list(&entries, &flag)?;
                let file_name = object.manifest.as_ref().map_or("", |manifest| &manifest.file_name);
                let layout = tables::layout(&listed, &tables::name_at(file_name, &name, date), date);
                let parts = layout.parts.len();
                if parts > MOST_PARTS {
                    let message = format!(
                        "the archive has {parts} files that would be parts of tables; it can have {MOST_PARTS}"
                    );
                    return Err(DeriveError::of_content(message));
                }
                (layout.parts, layout.left_alone)
            }
        };
        let mut parts: Vec<_> = parts.into_iter().map(|part| (names[part.entry].clone(), part)).collect();
        // A thread of its own for each part takes longer than reading a small one.
        let read = match is_small {
            true => {
                let mut left = KEPT_BYTES;
                let read = |(name, part)| read(&entries, name, part, depth, &mut left, &flag);
                parts.drain(..).map(read).collect::<Result<_, _>>()?
            }
            false => Vec::new(),
        };
        Ok((entries, parts, read, left_alone))
    };
    let (entries, parts, mut read_parts, left_alone) = derive.blocking(listing).await?;
    let reading = parts.into_iter().map(|(name, part)| {
        let (entries, flag) = (Arc::clone(&entries), stop.flag());
        derive.blocking(move || read(&entries, name, part, depth, &mut 0, &flag))
    });
    read_parts.extend(stream::iter(reading).buffered(AHEAD).try_collect::<Vec<_>>().await?);
    let mut tables: BTreeMap<String, Vec<SurveyedPart>> = BTreeMap::new();
    for part in read_parts {
        tables.entry(part.part.table.clone()).or_default().push(part);
    }
    Ok(Surveyed { entries, tables, left_alone, is_small })
}

/// Reads one part, and keeps its entry if that has at most `left` bytes. Blocks.
fn read(
    entries: &Entries,
    entry: String,
    part: Part,
    depth: Depth,
    left: &mut usize,
    stop: &Arc<AtomicBool>,
) -> Result<SurveyedPart, DeriveError> {
    let failed = |error: tables::Error| DeriveError::of_table(&part.table, &entry, &error);
    let kept = keep(entries, part.entry, left, stop).map_err(|error| failed(tables::Error::Read(error)))?;
    let open = || open_kept(kept.as_deref(), entries, part.entry, stop);
    let survey = Input { part: &part, open: &open }.survey(depth).map_err(failed)?;
    Ok(SurveyedPart { part, entry, survey, kept })
}

/// The bytes of an entry that has at most `left`, which becomes less.
fn keep(
    entries: &Entries,
    number: usize,
    left: &mut usize,
    stop: &Arc<AtomicBool>,
) -> io::Result<Option<Arc<Vec<u8>>>> {
    if *left == 0 {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    open(entries, number, stop)?.take(*left as u64 + 1).read_to_end(&mut bytes)?;
    match left.checked_sub(bytes.len()) {
        Some(rest) => {
            *left = rest;
            Ok(Some(Arc::new(bytes)))
        }
        // The next one may be as large.
        None => {
            *left = 0;
            Ok(None)
        }
    }
}

/// The table of a snapshot.
fn table_of(source: &SnapshotSource, derive: &Derive<'_>) -> String {
    match source {
        SnapshotSource::CampaignStats(_) => "stats".to_owned(),
        SnapshotSource::Campaigns(_) | SnapshotSource::Executions { .. } => {
            derive.report.source.kind().as_str().to_owned()
        }
    }
}

/// The entries with what they hold, and the sheets of workbooks.
fn list(entries: &Entries, stop: &Arc<AtomicBool>) -> Result<Vec<Listed>, DeriveError> {
    let listed = entries.names().enumerate().map(|(number, name)| {
        let content = match entries.is_one_gzip_file() {
            true => open(entries, number, stop).and_then(|file| Content::of_only_file(name, file)).map_err(unlisted)?,
            false => Content::of(name),
        };
        let sheets = match content {
            Some(Content::Xlsx) => {
                let file = open(entries, number, stop).map_err(unlisted)?;
                tables::sheets(file).map_err(|error| {
                    DeriveError::of_content(format!("the sheets of entry `{name}` cannot be read: {}", Chain(&error)))
                })?
            }
            _ => Vec::new(),
        };
        Ok(Listed { name: name.to_owned(), content, sheets })
    });
    listed.collect()
}

/// Checks that every entry that was verified is found again: none may be left out.
fn check_entries(entries: &Entries, manifest: Option<&Manifest>) -> Result<(), DeriveError> {
    let Some(verified) = manifest.and_then(|manifest| manifest.entries.as_ref()) else { return Ok(()) };
    let is_found = verified.iter().all(|entry| entries.names().any(|name| name == entry.name || entry.name.is_empty()));
    // The members of a gzip can be parts of one file.
    let counts = (entries.names().len(), verified.len());
    let is_whole = counts.0 == counts.1 || manifest.is_some_and(|it| it.format == crate::store::ObjectFormat::Gzip);
    match is_found && is_whole {
        true => Ok(()),
        false => Err(DeriveError::of_content(format!(
            "the archive has {} entries where its manifest has {}",
            counts.0, counts.1
        ))),
    }
}

fn unlisted(error: io::Error) -> DeriveError {
    DeriveError::of_content(format!("the entries of the object cannot be read: {error}"))
}
