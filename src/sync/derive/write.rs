//! The objects of a partition's tables: the second pass over its entries, and the manifest beside each object.
//!
//! This file owns the way of the bytes from the writing threads to the destination. It must not know formats.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, future, stream};

use super::{
    AHEAD, Derive, DeriveError,
    schema::PartSchema,
    survey::{Surveyed, SurveyedPart},
    threads::Stop,
};
use crate::{
    derivation::{TableManifest, TableObject},
    outcome::StoredObject,
    partition::Entry,
    report::manifest_key,
    store::{Batch, BatchObject, Named},
    tables::{Input, Origin},
};

/// Objects of a partition that are complete. Unless the batch has named them at once, they wait for their names.
pub(super) struct WrittenObjects {
    pub(super) objects: Vec<TableObject>,
    pub(super) unnamed: Vec<Named>,
}

/// A part and the schema to write it with.
type Task = (SurveyedPart, Arc<PartSchema>);

/// Writes all objects and their manifests, which replace those of an earlier attempt once they get their names.
pub(super) async fn write(
    derive: &Derive<'_>,
    batch: &Batch,
    (entry, source): (&Entry, &StoredObject),
    surveyed: &Surveyed,
    schemas: Vec<PartSchema>,
    stop: &Stop,
) -> Result<WrittenObjects, DeriveError> {
    let with_schema = |(parts, schema): (&Vec<SurveyedPart>, PartSchema)| {
        let schema = Arc::new(schema);
        parts.iter().map(move |part| (part.clone(), Arc::clone(&schema))).collect::<Vec<_>>()
    };
    let tasks: Vec<Task> = surveyed.tables.values().zip(schemas).flat_map(with_schema).collect();
    let count = tasks.len();
    // An object that gets its name at once is complete before the next begins.
    let (at_a_time, ahead) = match (batch.names_at_once(), surveyed.is_small) {
        (true, _) => (1, 1),
        (false, true) => (count.max(1), 1),
        (false, false) => (1, AHEAD),
    };
    let mut lots = Vec::new();
    let mut tasks = tasks.into_iter().peekable();
    while tasks.peek().is_some() {
        lots.push(tasks.by_ref().take(at_a_time).collect::<Vec<_>>());
    }
    let writing = lots.into_iter().map(|lot| write_lot(derive, batch, (entry, source), surveyed, lot, count, stop));
    let lots: Vec<_> = stream::iter(writing).buffered(ahead).try_collect().await?;
    let mut written = WrittenObjects { objects: Vec::new(), unnamed: Vec::new() };
    for lot in lots {
        written.objects.extend(lot.objects);
        written.unnamed.extend(lot.unnamed);
    }
    Ok(written)
}

/// Writes some parts, one after another, on one thread. `count` is the number of objects that all tables of the partition
/// have together.
async fn write_lot(
    derive: &Derive<'_>,
    batch: &Batch,
    (entry, source): (&Entry, &StoredObject),
    surveyed: &Surveyed,
    lot: Vec<Task>,
    count: usize,
    stop: &Stop,
) -> Result<WrittenObjects, DeriveError> {
    let id = &entry.partition.id;
    let (mut begun, mut incoming) = (Vec::new(), Vec::new());
    for (part, schema) in lot {
        let folder = derive.report.table_folder(&part.part.table, id.date);
        let key = format!("{folder}/part-{}.{}", part.part.number, derive.format.extension());
        let (object, receiver) = batch.object(&key)?;
        incoming.push(receiver.receive());
        begun.push((part, schema, key, object));
    }
    let (entries, flag, format) = (Arc::clone(&surveyed.entries), stop.flag(), derive.format);
    let origin = Origin {
        report: id.report.name().to_owned(),
        date: id.date,
        sha256: source.sha256.clone(),
        entry: String::new(),
    };
    let writing = derive.blocking(move || {
        let write = |(part, schema, key, mut object): (SurveyedPart, Arc<PartSchema>, _, BatchObject)| {
            let input = Input { part: &part.part, open: &|| part.open(&entries, &flag) };
            let origin = Origin { entry: part.entry.clone(), ..origin.clone() };
            let rows = input.write(&part.survey, &schema.extended, &origin, format, &mut object);
            let rows = rows.map_err(|error| DeriveError::of_table(&part.part.table, &part.entry, &error));
            (part, schema, key, rows, object.end())
        };
        Ok(begun.into_iter().map(write).collect::<Vec<_>>())
    });
    let (received, written) = tokio::join!(future::try_join_all(incoming), writing);
    // The destination's failure comes first: the writer then fails because nothing takes its bytes.
    let received = received?;
    let (mut objects, mut unnamed) = (Vec::new(), Vec::new());
    for (incoming, (part, schema, key, rows, ended)) in received.into_iter().zip(written?) {
        let (object, sealed) = incoming.complete(ended).await?;
        let rows = rows?;
        let table = TableObject {
            table: part.part.table.clone(),
            key: key.clone(),
            rows: rows.rows,
            rescued_rows: rows.rescued_rows,
            size: sealed.size,
            sha256: sealed.sha256,
            schema_version: schema.version.clone(),
        };
        let manifest = TableManifest {
            format_version: TableManifest::FORMAT_VERSION,
            workspace: id.workspace().to_owned(),
            report: id.report.name().to_owned(),
            date: id.date,
            objects: count,
            object: table.clone(),
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
        unnamed.extend([Named::Object(Box::new(object)), Named::Small(manifest_key(&key), json)]);
        objects.push(table);
    }
    if batch.names_at_once() {
        derive.check_claim().await?;
        batch.name_all(std::mem::take(&mut unnamed)).await?;
    }
    Ok(WrittenObjects { objects, unnamed })
}
