//! Objects in Parquet.
//!
//! This file owns the layout of a Parquet file: types, row groups, pages, metadata. The bytes follow from the rows alone:
//! no clock, no version of a library. Rows are encoded on a second thread, because that takes about as long as reading
//! them; not those of a small file, because a thread takes longer. It must not know where values come from.

use std::{
    collections::HashMap,
    io::{self, Write},
    mem, panic,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, Scope, ScopedJoinHandle},
};

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{
        BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
    },
};
use arrow_schema::{DataType, Field as ArrowField, Schema as ArrowSchema, TimeUnit};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
    schema::types::ColumnPath,
};

use super::{
    Error, Field, Origin, Writer,
    names::{ENTRY_COLUMN, RESCUED_COLUMN},
    types::Value,
};
use crate::table_words::ColumnType;

/// The writer's name in the file. Readers take a version from it, and ignore statistics if they find none; it is the
/// version of this layout.
const CREATED_BY: &str = "moesync version 1";

/// The key of a field's metadata with the heading of its column.
const HEADING_KEY: &str = "heading";

/// Memory of a row group from which it is written. All its columns are in memory until then.
const ROW_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// Values collected before they are encoded.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
const BATCH_ROWS: usize = 8192;

/// Memory for pages and dictionaries, divided among the columns.
const PAGES_BYTES: usize = 8 * 1024 * 1024;

/// Bounds of one page or dictionary.
const PAGE_BYTES: [usize; 2] = [16 * 1024, 1024 * 1024];

/// Bytes of a value kept as minimum or maximum of a page.
const STATISTICS_BYTES: usize = 64;

/// zstd's own default: higher levels cost time and gain little.
const ZSTD_LEVEL: i32 = 3;

/// Writes one Parquet file.
pub(super) struct ParquetWriter<'scope, 'env, W: Write + Send> {
    encoder: Encoder<'scope, W>,
    scope: &'scope Scope<'scope, 'env>,
    schema: Arc<ArrowSchema>,
    columns: Vec<Builder>,
    entries: StringBuilder,
    rescued: StringBuilder,
    rows: usize,
    bytes: usize,
}

/// What encodes the rows.
enum Encoder<'scope, W: Write + Send> {
    /// This thread, unless there are more rows than one batch has.
    Here(Box<ArrowWriter<W>>),
    /// Another thread. `None` in place of a batch completes the file; without it, the file gets no end.
    Thread(SyncSender<Option<RecordBatch>>, ScopedJoinHandle<'scope, Result<u64, Error>>),
    Ended,
}

enum Builder {
    String(StringBuilder),
    Int64(Int64Builder),
    Double(Float64Builder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Boolean(BooleanBuilder),
}

impl<'scope, 'env, W: Write + Send + 'scope> ParquetWriter<'scope, 'env, W> {
    pub(super) fn new(
        fields: &[Field],
        origin: &Origin,
        to: W,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Result<Self, Error> {
        let field = |it: &Field| {
            let heading = HashMap::from([(HEADING_KEY.to_owned(), it.heading.clone())]);
            ArrowField::new(&it.name, data_type(it.column_type), true).with_metadata(heading)
        };
        let own = [
            ArrowField::new(ENTRY_COLUMN, DataType::Utf8, false),
            ArrowField::new(RESCUED_COLUMN, DataType::Utf8, true),
        ];
        let schema = Arc::new(ArrowSchema::new(fields.iter().map(field).chain(own).collect::<Vec<_>>()));
        let [least, most] = PAGE_BYTES;
        let page_bytes = (PAGES_BYTES / schema.fields().len()).clamp(least, most);
        let metadata = [
            ("moesync.report", origin.report.clone()),
            ("moesync.date", origin.date.to_string()),
            ("moesync.source_sha256", origin.sha256.clone()),
        ];
        let metadata = metadata.map(|(key, value)| KeyValue::new(key.to_owned(), value)).to_vec();
        let mut properties = WriterProperties::builder()
            .set_created_by(CREATED_BY.to_owned())
            .set_key_value_metadata(Some(metadata))
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).map_err(failed)?))
            .set_data_page_size_limit(page_bytes)
            .set_dictionary_page_size_limit(page_bytes)
            .set_statistics_truncate_length(Some(STATISTICS_BYTES))
            .set_column_index_truncate_length(Some(STATISTICS_BYTES));
        // Numbers rarely repeat so often that a dictionary is smaller than what zstd makes of them.
        for field in fields.iter().filter(|field| field.column_type != ColumnType::String) {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(field.name.as_str()), false);
        }
        let writer = ArrowWriter::try_new(to, schema.clone(), Some(properties.build())).map_err(failed)?;
        let columns = fields.iter().map(|field| Builder::new(field.column_type)).collect();
        let (entries, rescued) = (StringBuilder::new(), StringBuilder::new());
        let encoder = Encoder::Here(Box::new(writer));
        Ok(Self { encoder, scope, schema, columns, entries, rescued, rows: 0, bytes: 0 })
    }

    fn batch(&mut self) -> Result<RecordBatch, Error> {
        let columns = self.columns.iter_mut().map(Builder::finish);
        let own = [&mut self.entries, &mut self.rescued].map(|builder| Arc::new(builder.finish()) as ArrayRef);
        (self.rows, self.bytes) = (0, 0);
        RecordBatch::try_new(self.schema.clone(), columns.chain(own).collect()).map_err(|error| failed(error.into()))
    }

    fn write_batch(&mut self) -> Result<(), Error> {
        let batch = self.batch()?;
        if let Encoder::Here(_) = &self.encoder
            && let Encoder::Here(writer) = mem::replace(&mut self.encoder, Encoder::Ended)
        {
            let (batches, received) = mpsc::sync_channel(1);
            let thread = thread::Builder::new().name("parquet".to_owned());
            let thread = thread.spawn_scoped(self.scope, || encode(*writer, received)).map_err(Error::Write)?;
            self.encoder = Encoder::Thread(batches, thread);
        }
        match &self.encoder {
            Encoder::Thread(batches, _) if batches.send(Some(batch)).is_ok() => Ok(()),
            // The thread ends before the file is complete only with an error.
            _ => self.end().map(|_| ()),
        }
    }

    /// Waits for the thread. The number of rows in the file.
    fn end(&mut self) -> Result<u64, Error> {
        match mem::replace(&mut self.encoder, Encoder::Ended) {
            Encoder::Thread(_, thread) => thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)),
            _ => Err(Error::Write(io::Error::other("the file has failed before"))),
        }
    }
}

/// Encodes and writes batches until the file is complete. The number of rows in it, or 0 if it was given up.
fn encode<W: Write + Send>(mut writer: ArrowWriter<W>, batches: Receiver<Option<RecordBatch>>) -> Result<u64, Error> {
    for batch in batches {
        let Some(batch) = batch else { return complete(&mut writer) };
        writer.write(&batch).map_err(failed)?;
        if writer.memory_size() >= ROW_GROUP_BYTES {
            writer.flush().map_err(failed)?;
        }
    }
    Ok(0)
}

/// Ends the file. The number of rows in it.
fn complete<W: Write + Send>(writer: &mut ArrowWriter<W>) -> Result<u64, Error> {
    let metadata = writer.finish().map_err(failed)?;
    Ok(u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0))
}

impl<'scope, W: Write + Send + 'scope> Writer for ParquetWriter<'scope, '_, W> {
    fn value(&mut self, column: usize, value: Value<'_>) -> Result<(), Error> {
        self.bytes += size_of::<i64>();
        match (&mut self.columns[column], value) {
            (Builder::String(column), Value::String(text)) => {
                self.bytes += text.len();
                column.append_value(text);
            }
            (Builder::String(column), _) => column.append_null(),
            (Builder::Int64(column), Value::Int64(number)) => column.append_value(number),
            (Builder::Int64(column), _) => column.append_null(),
            (Builder::Double(column), Value::Double(number)) => column.append_value(number),
            (Builder::Double(column), _) => column.append_null(),
            (Builder::Date(column), Value::Date(days)) => column.append_value(days),
            (Builder::Date(column), _) => column.append_null(),
            (Builder::Timestamp(column), Value::Timestamp(micros)) => column.append_value(micros),
            (Builder::Timestamp(column), _) => column.append_null(),
            (Builder::Boolean(column), Value::Boolean(is_true)) => column.append_value(is_true),
            (Builder::Boolean(column), _) => column.append_null(),
        }
        Ok(())
    }

    fn end_row(&mut self, entry: &str, rescued: Option<&str>) -> Result<(), Error> {
        self.entries.append_value(entry);
        self.rescued.append_option(rescued);
        self.rows += 1;
        self.bytes += entry.len() + rescued.map_or(0, str::len);
        match self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
            true => self.write_batch(),
            false => Ok(()),
        }
    }

    fn finish(mut self) -> Result<u64, Error> {
        let batch = self.batch()?;
        match &mut self.encoder {
            Encoder::Here(writer) => {
                writer.write(&batch).map_err(failed)?;
                complete(writer)
            }
            Encoder::Thread(batches, _) => {
                // If the thread has ended with an error, nothing receives them.
                let _ = batches.send(Some(batch)).and_then(|()| batches.send(None));
                self.end()
            }
            Encoder::Ended => self.end(),
        }
    }
}

impl Builder {
    fn new(column: ColumnType) -> Self {
        match column {
            ColumnType::String => Builder::String(StringBuilder::new()),
            ColumnType::Int64 => Builder::Int64(Int64Builder::new()),
            ColumnType::Double => Builder::Double(Float64Builder::new()),
            ColumnType::Date => Builder::Date(Date32Builder::new()),
            ColumnType::Timestamp => Builder::Timestamp(TimestampMicrosecondBuilder::new()),
            ColumnType::Boolean => Builder::Boolean(BooleanBuilder::new()),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::String(column) => Arc::new(column.finish()),
            Builder::Int64(column) => Arc::new(column.finish()),
            Builder::Double(column) => Arc::new(column.finish()),
            Builder::Date(column) => Arc::new(column.finish()),
            Builder::Timestamp(column) => Arc::new(column.finish()),
            Builder::Boolean(column) => Arc::new(column.finish()),
        }
    }
}

fn data_type(column: ColumnType) -> DataType {
    match column {
        ColumnType::String => DataType::Utf8,
        ColumnType::Int64 => DataType::Int64,
        ColumnType::Double => DataType::Float64,
        ColumnType::Date => DataType::Date32,
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        ColumnType::Boolean => DataType::Boolean,
    }
}

/// An error of the writer, without the layers of the library around an error of what is written to.
fn failed(error: ParquetError) -> Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) => Error::Write(*source),
            Err(source) => Error::Write(io::Error::other(source)),
        },
        error => Error::Write(io::Error::other(error)),
    }
}
