//! Statements that make query engines read tables.
//!
//! This file owns what each engine is told, and what it cannot read. It must not know how tables are found.

use std::fmt::Write;

use super::{dialect::Engine, tables::Table};
use crate::{
    config::{BucketLocation, DestinationSettings, Location, Provider, Report},
    table_words::{ColumnType, TableFormat},
    tables::{ENTRY_COLUMN, MOST_ROW_BYTES, RESCUED_COLUMN, words},
};

/// The column in which DuckDB names a file; no table has it, because names of columns begin with a letter.
const FILE_COLUMN: &str = "_file";

/// How names of options of object stores may begin.
const STORES: [&str; 4] = ["aws_", "azure_storage_", "azure_", "google_"];

/// Most bytes of a line of CSV: those of the longest row, all quotes of which are doubled. DuckDB's own limit is 2 MB.
const MOST_LINE_BYTES: usize = 4 * MOST_ROW_BYTES;

/// Why an engine cannot read a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{engine} cannot read table `{table}` of {report}: {reason}", engine = engine.name())]
pub struct Unreadable {
    engine: Engine,
    report: String,
    table: String,
    reason: String,
}

/// A statement with what it is about.
struct Statement<'a> {
    engine: Engine,
    settings: &'a DestinationSettings,
    table: &'a Table,
    /// The table's name in the engine, in quotes.
    name: String,
}

/// The name that a table has in query engines: lower-case ASCII words, which none of them needs to have in quotes.
pub fn engine_name(report: &Report, table: &Table) -> String {
    let parts = [report.id.workspace(), report.id.name(), &table.name];
    parts.iter().flat_map(|part| words(part)).collect::<Vec<_>>().join("_")
}

/// The statements that make `engine` read a table, with the date as a partition. They can be run again.
///
/// # Errors
///
/// The engine cannot read it.
pub fn statements(engine: Engine, report: &Report, table: &Table) -> Result<String, Unreadable> {
    let settings = &*report.destination;
    let name = engine.identifier(&engine_name(report, table));
    let statement = Statement { engine, settings, table, name };
    statement.text().map_err(|reason| Unreadable {
        engine,
        report: report.id.to_string(),
        table: table.name.clone(),
        reason,
    })
}

impl Statement<'_> {
    fn text(&self) -> Result<String, String> {
        let format = self.format()?;
        match self.engine {
            Engine::Duckdb => self.duckdb(format),
            Engine::Athena => self.athena(),
            Engine::Bigquery => self.bigquery(),
            Engine::Snowflake => self.snowflake(),
            Engine::Spark => self.spark(),
            Engine::Clickhouse => self.clickhouse(format),
        }
    }

    /// The format of all parts, if the engine reads it.
    fn format(&self) -> Result<TableFormat, String> {
        let format = match self.table.formats().as_slice() {
            [format] => *format,
            [] => return Err("it has no objects yet".to_owned()),
            _ => return Err("some of its objects are in Parquet, others in CSV; `moesync tables rebuild` gives all the report's format".to_owned()),
        };
        let reads_by_name = matches!(self.engine, Engine::Duckdb | Engine::Clickhouse);
        match format == TableFormat::CsvGz && !reads_by_name {
            true => Err("it reads columns of CSV by their position, which changes when a column is added; set `tables = \"parquet\"` on \
                         the report and run `moesync tables rebuild`"
                .to_owned()),
            false => Ok(format),
        }
    }

    /// The columns of objects, with their types.
    fn columns(&self) -> impl Iterator<Item = (&str, ColumnType)> {
        let typed = self.table.schema.columns.iter().filter_map(|it| Some((it.name.as_str(), it.column_type?)));
        typed.chain([(ENTRY_COLUMN, ColumnType::String), (RESCUED_COLUMN, ColumnType::String)])
    }

    /// Each column by `write`, separated by commas and line breaks.
    fn column_list(&self, write: impl Fn(&str, ColumnType) -> String) -> String {
        self.columns().map(|(name, of)| format!("  {}", write(name, of))).collect::<Vec<_>>().join(",\n")
    }

    /// `name TYPE` for each column.
    fn definitions(&self) -> String {
        self.column_list(|name, of| format!("{} {}", self.engine.identifier(name), self.engine.column_type(of)))
    }

    /// The URL of the table's folder, as the engine names it, without a final slash.
    fn url(&self) -> Result<String, String> {
        let BucketLocation { provider, bucket, prefix } = match &self.settings.location {
            Location::Directory(root) => return self.directory(root.to_str().ok_or("its path is not UTF-8")?),
            Location::Bucket(bucket) => bucket,
        };
        let path = [prefix.as_str(), &self.table.folder].into_iter().filter(|part| !part.is_empty());
        let path = path.collect::<Vec<_>>().join("/");
        let has_endpoint = self.option("endpoint").is_some();
        let of_a_cloud = matches!(self.engine, Engine::Athena | Engine::Bigquery | Engine::Snowflake);
        if has_endpoint && of_a_cloud {
            return Err(
                "its destination has an endpoint of its own, and is in none of the clouds' object stores".to_owned()
            );
        }
        match (provider, self.engine) {
            (Provider::S3, Engine::Spark) => Ok(format!("s3a://{bucket}/{path}")),
            (Provider::S3, Engine::Clickhouse) => {
                let endpoint = match self.option("endpoint") {
                    Some(endpoint) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
                    None => format!("https://{bucket}.s3.amazonaws.com"),
                };
                Ok(format!("{endpoint}/{path}"))
            }
            (Provider::S3, _) => Ok(format!("s3://{bucket}/{path}")),
            (Provider::GoogleCloud, Engine::Athena) => Err("it reads Amazon S3 alone".to_owned()),
            (Provider::GoogleCloud, Engine::Snowflake) => Ok(format!("gcs://{bucket}/{path}")),
            (Provider::GoogleCloud, Engine::Clickhouse) => {
                Ok(format!("https://storage.googleapis.com/{bucket}/{path}"))
            }
            (Provider::GoogleCloud, _) => Ok(format!("gs://{bucket}/{path}")),
            (Provider::Azure, Engine::Duckdb) => Ok(format!("az://{bucket}/{path}")),
            (Provider::Azure, Engine::Snowflake | Engine::Spark) => {
                let account = self
                    .option("account_name")
                    .ok_or("name its storage account in the destination's `options`: azure_storage_account_name")?;
                Ok(match self.engine {
                    Engine::Snowflake => format!("azure://{account}.blob.core.windows.net/{bucket}/{path}"),
                    _ => format!("abfss://{bucket}@{account}.dfs.core.windows.net/{path}"),
                })
            }
            (Provider::Azure, _) => Err("moesync knows no statement that makes it read Azure Blob Storage".to_owned()),
        }
    }

    fn directory(&self, root: &str) -> Result<String, String> {
        let path = format!("{}/{}", root.trim_end_matches('/'), self.table.folder);
        match self.engine {
            Engine::Duckdb | Engine::Clickhouse => Ok(path),
            Engine::Spark => Ok(format!("file://{path}")),
            Engine::Athena | Engine::Bigquery | Engine::Snowflake => {
                Err(format!("it is in a folder of this machine ({root}), and the engine reads object stores alone"))
            }
        }
    }

    /// An option of the destination that is not a secret, by its name without the store's.
    fn option(&self, name: &str) -> Option<&str> {
        use secrecy::ExposeSecret;
        let is_it = |key: &str| {
            let key = key.to_ascii_lowercase();
            let key = STORES.iter().find_map(|store| key.strip_prefix(store)).unwrap_or(&key);
            key.strip_suffix("_url").unwrap_or(key) == name
        };
        let (_, value) = self.settings.options.iter().find(|(key, _)| is_it(key))?;
        // A URL may have a password.
        Some(value.expose_secret()).filter(|value| !value.contains('@'))
    }

    /// The glob of all parts. In a folder's own name, the characters of globs are in brackets, or refused.
    fn glob(&self, format: TableFormat) -> Result<String, String> {
        let url = self.url()?;
        let escaped = match self.engine {
            Engine::Duckdb => url.replace('[', "[[]").replace('*', "[*]").replace('?', "[?]"),
            _ if url.contains(['*', '?', '{', '}']) => {
                return Err("its path has one of the characters * ? { }, which are patterns to the engine".to_owned());
            }
            _ => url,
        };
        Ok(format!("{escaped}/date=*/*.{}", format.extension()))
    }

    fn duckdb(&self, format: TableFormat) -> Result<String, String> {
        let Self { engine, name, .. } = self;
        let glob = engine.text(&self.glob(format)?);
        let (function, options) = match format {
            TableFormat::Parquet => ("read_parquet", String::new()),
            TableFormat::CsvGz => {
                // DuckDB refuses types of columns that no object has.
                let present = self.columns().filter(|(name, _)| self.is_in_some_date(name));
                let typed = present
                    .map(|(name, of)| format!("    {}: {}", engine.text(name), engine.text(engine.column_type(of))));
                let typed = typed.collect::<Vec<_>>().join(",\n");
                let options = "header = true, delim = ',', quote = '\"', escape = '\"', compression = 'gzip'";
                let lines = format!("max_line_size = {MOST_LINE_BYTES}");
                ("read_csv", format!(",\n  {options}, {lines},\n  types = {{\n{typed}\n  }}"))
            }
        };
        let mut text = String::new();
        if let Location::Bucket(_) = self.settings.location {
            text += "-- Credentials: CREATE SECRET, see DuckDB's documentation of the object store.\n";
        }
        // DuckDB makes a column of each `key=value` in the path, which hides the file's column of that name.
        let (columns, partitions) = match self.url()?.contains('=') {
            false => ("*".to_owned(), "hive_partitioning = true, hive_types = {'date': DATE}".to_owned()),
            true => {
                let file = engine.identifier(FILE_COLUMN);
                let date = format!(
                    "CAST(regexp_extract({file}, '.*/date=([^/]*)/', 1) AS DATE) AS {}",
                    engine.identifier("date")
                );
                let partitions = format!("hive_partitioning = false, filename = {}", engine.text(FILE_COLUMN));
                (format!("* EXCLUDE ({file}), {date}"), partitions)
            }
        };
        let _ = write!(
            text,
            "CREATE OR REPLACE VIEW {name} AS\nSELECT {columns} FROM {function}(\n  {glob},\n  union_by_name = true, \
             {partitions}{options}\n);\n"
        );
        Ok(text)
    }

    /// Whether a date that is there had the column, or every object has it.
    fn is_in_some_date(&self, name: &str) -> bool {
        let column = self.table.schema.columns.iter().find(|column| column.name == name);
        column.is_none_or(|it| self.table.dates.keys().any(|date| it.first_date <= *date && *date <= it.last_date))
    }

    fn athena(&self) -> Result<String, String> {
        let Self { engine, name, .. } = self;
        let (columns, url) = (self.definitions(), self.url()?);
        let first = self.table.dates.keys().next().map(ToString::to_string).unwrap_or_default();
        let properties = [
            ("projection.enabled", "true".to_owned()),
            ("projection.date.type", "date".to_owned()),
            ("projection.date.format", "yyyy-MM-dd".to_owned()),
            ("projection.date.range", format!("{first},NOW+1DAY")),
            ("storage.location.template", format!("{url}/date=${{date}}/")),
        ];
        let properties: Vec<_> =
            properties.iter().map(|(key, value)| format!("  {} = {}", engine.text(key), engine.text(value))).collect();
        Ok(format!(
            "-- Run one statement at a time. The table has no data of its own: dropping it deletes no object.\n\
             DROP TABLE IF EXISTS {name};\n\
             CREATE EXTERNAL TABLE {name} (\n{columns}\n)\nPARTITIONED BY ({} DATE)\nSTORED AS PARQUET\nLOCATION {}\n\
             TBLPROPERTIES (\n{}\n);\n",
            engine.identifier("date"),
            engine.text(&format!("{url}/")),
            properties.join(",\n"),
        ))
    }

    fn bigquery(&self) -> Result<String, String> {
        let Self { engine, name, .. } = self;
        let (columns, url) = (self.definitions(), self.url()?);
        let (comment, connection) = match &self.settings.location {
            Location::Bucket(BucketLocation { provider: Provider::S3, .. }) => (
                "-- `aws-us-east-1.moesync` stands for your BigQuery Omni connection, in the region of the bucket.\n",
                format!("WITH CONNECTION {}\n", engine.identifier("aws-us-east-1.moesync")),
            ),
            _ => ("", String::new()),
        };
        Ok(format!(
            "{comment}-- `moesync` stands for your dataset.\n\
             CREATE OR REPLACE EXTERNAL TABLE {}.{name} (\n{columns}\n)\nWITH PARTITION COLUMNS ({} DATE)\n{connection}\
             OPTIONS (\n  format = 'PARQUET',\n  uris = [{}],\n  hive_partition_uri_prefix = {}\n);\n",
            engine.identifier("moesync"),
            engine.identifier("date"),
            engine.text(&format!("{url}/*.parquet")),
            engine.text(&url),
        ))
    }

    fn snowflake(&self) -> Result<String, String> {
        let Self { engine, name, .. } = self;
        let url = self.url()?;
        let date = engine.identifier("date");
        let columns = self.column_list(|name, of| {
            let (name, of) = (engine.identifier(name), engine.column_type(of));
            format!("{name} {of} AS (VALUE:{name}::{of})")
        });
        let stage = engine.identifier(&format!("{}_stage", name.trim_matches('"')));
        Ok(format!(
            "-- \"MOESYNC\" stands for your storage integration, which may read the bucket.\n\
             CREATE OR REPLACE STAGE {stage} URL = {} STORAGE_INTEGRATION = \"MOESYNC\";\n\
             CREATE OR REPLACE EXTERNAL TABLE {name} (\n  \
             {date} DATE AS (TO_DATE(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'date=', -1), '/', 1))),\n{columns}\n)\n\
             PARTITION BY ({date})\nLOCATION = @{stage}\nAUTO_REFRESH = FALSE\nPATTERN = '.*[.]parquet'\n\
             FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE);\n\
             -- After each new date:\nALTER EXTERNAL TABLE {name} REFRESH;\n",
            engine.text(&format!("{url}/")),
        ))
    }

    fn spark(&self) -> Result<String, String> {
        let Self { engine, name, .. } = self;
        let (columns, url) = (self.definitions(), self.url()?);
        let date = engine.identifier("date");
        Ok(format!(
            "-- The table has no data of its own: dropping it deletes no object.\n\
             DROP TABLE IF EXISTS {name};\n\
             CREATE TABLE {name} (\n{columns},\n  {date} DATE\n)\nUSING PARQUET\nPARTITIONED BY ({date})\nLOCATION {};\n\
             -- Now, and after each new date:\nMSCK REPAIR TABLE {name};\n",
            engine.text(&url),
        ))
    }

    fn clickhouse(&self, format: TableFormat) -> Result<String, String> {
        let Self { engine, name, .. } = self;
        let glob = engine.text(&self.glob(format)?);
        let input = match format {
            TableFormat::Parquet => "Parquet",
            TableFormat::CsvGz => "CSVWithNames",
        };
        let structure: Vec<_> = self
            .columns()
            .map(|(name, of)| format!("{} {}", engine.identifier(name), engine.column_type(of)))
            .collect();
        let (comment, function) = match &self.settings.location {
            Location::Directory(_) => {
                ("-- For clickhouse-local; a server reads only below its user_files_path.\n", "file")
            }
            Location::Bucket(_) => {
                ("-- Credentials: s3(url, key, secret, format, structure), or those of the server.\n", "s3")
            }
        };
        Ok(format!(
            "{comment}CREATE OR REPLACE VIEW {name} AS\n\
             SELECT *, toDate(extract(_path, 'date=([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})/[^/]*$')) AS {}\n\
             FROM {function}(\n  {glob},\n  '{input}',\n  {}\n)\n\
             SETTINGS use_hive_partitioning = 0, date_time_input_format = 'best_effort', input_format_parquet_allow_missing_columns = 1;\n",
            engine.identifier("date"),
            engine.text(&structure.join(", ")),
        ))
    }
}
