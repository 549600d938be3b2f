//! One object of a table: the second pass over an entry, into a staged upload, and the manifest beside the object.
//!
//! This file owns the way of the bytes from the writing thread to the destination. It must not know formats.

use std::{
    io::{self, Write},
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    Derive, DeriveError,
    schema::StoredSchema,
    survey::{SurveyedPart, open},
    threads::blocking,
};
use crate::{
    archive::Entries,
    derivation::{TableManifest, TableObject},
    outcome::StoredObject,
    partition::Entry,
    report::manifest_key,
    store::{Replaces, Route},
    tables::{Error, Input, Origin},
};

/// Bytes that are passed on at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Chunks that may wait for the destination.
const CHUNKS_WAITING: usize = 4;

/// Writes one object and its manifest, replacing those of an earlier attempt. `objects` is the number that all tables of
/// the partition have together.
pub(super) async fn write(
    derive: &Derive<'_>,
    (entry, source): (&Entry, &StoredObject),
    entries: &Arc<Entries>,
    part: &SurveyedPart,
    schema: &StoredSchema,
    objects: usize,
) -> Result<TableObject, DeriveError> {
    let id = &entry.partition.id;
    let (number, table) = (part.part.number, part.part.table.as_str());
    let folder = derive.report.table_folder(table, id.date);
    let key = format!("{folder}/part-{number}.{}", derive.format.extension());
    let mut upload = derive.destination.stage(Route::Direct(&key), None)?;
    let (chunks, mut received) = mpsc::channel(CHUNKS_WAITING);
    let writing = {
        let (entries, part, stop, format) = (Arc::clone(entries), part.clone(), derive.stop.flag(), derive.format);
        let columns = schema.extended.columns[number].clone();
        let schema = schema.extended.schema.clone();
        let origin = Origin {
            report: id.report.name().to_owned(),
            date: id.date,
            sha256: source.sha256.clone(),
            entry: part.entry.clone(),
        };
        blocking(move || {
            let mut to = Chunks { chunks, gathered: Vec::with_capacity(CHUNK_BYTES) };
            let input = Input { part: &part.part, open: &|| open(&entries, part.part.entry, &stop) };
            let written = input.write(&part.survey, &schema, &columns, &origin, format, &mut to);
            written
                .and_then(|written| to.flush().map(|()| written).map_err(Error::Write))
                .map_err(|error| DeriveError::of_table(&part.part.table, &part.entry, &error))
        })
    };
    // The destination's failure comes first: the writer then fails because nothing takes its bytes.
    let sending = async {
        while let Some(chunk) = received.recv().await {
            if let Err(error) = upload.write(chunk).await {
                received.close();
                return Err(DeriveError::from(error));
            }
        }
        Ok(())
    };
    let (sent, written) = tokio::join!(sending, writing);
    sent?;
    let written = written?;
    derive.check_claim().await?;
    let placed = upload.place_derived(&key).await?;
    let object = TableObject {
        table: table.to_owned(),
        key: key.clone(),
        rows: written.rows,
        rescued_rows: written.rescued_rows,
        size: placed.size,
        sha256: placed.sha256,
        schema_version: schema.version.clone(),
    };
    let manifest = TableManifest {
        format_version: TableManifest::FORMAT_VERSION,
        workspace: id.workspace().to_owned(),
        report: id.report.name().to_owned(),
        date: id.date,
        objects,
        object: object.clone(),
        format: derive.format,
        entry: part.entry.clone(),
        sheet: part.part.sheet.clone(),
        source_key: source.key.clone(),
        source_sha256: source.sha256.clone(),
        moesync_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    // Texts, numbers and dates: they can always be written.
    let mut json = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    json.push(b'\n');
    derive.destination.put_derived(&manifest_key(&key), json, Replaces::Any).await?;
    Ok(object)
}

/// Passes bytes on in chunks.
struct Chunks {
    chunks: mpsc::Sender<Bytes>,
    gathered: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.gathered, Vec::with_capacity(CHUNK_BYTES));
        self.chunks.blocking_send(chunk.into()).map_err(|_| io::Error::other("the destination takes no more bytes"))
    }
}
