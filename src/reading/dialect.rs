//! Identifiers, texts and types in the dialects of query engines.
//!
//! This file owns quoting. It must not know statements.

use crate::table_words::ColumnType;

/// A query engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// DuckDB.
    Duckdb,
    /// Amazon Athena.
    Athena,
    /// Google BigQuery.
    Bigquery,
    /// Snowflake.
    Snowflake,
    /// Apache Spark SQL.
    Spark,
    /// ClickHouse.
    Clickhouse,
}

impl Engine {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Duckdb => "DuckDB",
            Engine::Athena => "Athena",
            Engine::Bigquery => "BigQuery",
            Engine::Snowflake => "Snowflake",
            Engine::Spark => "Spark",
            Engine::Clickhouse => "ClickHouse",
        }
    }

    /// A name in quotes, so that a reserved word is one as well.
    pub(super) fn identifier(self, name: &str) -> String {
        match self {
            Engine::Duckdb | Engine::Snowflake => format!("\"{}\"", name.replace('"', "\"\"")),
            Engine::Athena | Engine::Spark => format!("`{}`", name.replace('`', "``")),
            Engine::Bigquery | Engine::Clickhouse => {
                format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
            }
        }
    }

    /// A text in quotes.
    pub(super) fn text(self, text: &str) -> String {
        let escaped = match self {
            Engine::Duckdb => text.replace('\'', "''"),
            Engine::Athena | Engine::Bigquery | Engine::Snowflake | Engine::Spark | Engine::Clickhouse => {
                text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\r', "\\r")
            }
        };
        format!("'{escaped}'")
    }

    /// The engine's type of a column. Timestamps have no zone.
    pub(super) fn column_type(self, of: ColumnType) -> &'static str {
        match (self, of) {
            (Engine::Duckdb | Engine::Snowflake, ColumnType::String) => "VARCHAR",
            (Engine::Athena | Engine::Bigquery | Engine::Spark, ColumnType::String) => "STRING",
            (Engine::Duckdb | Engine::Athena | Engine::Snowflake | Engine::Spark, ColumnType::Int64) => "BIGINT",
            (Engine::Bigquery, ColumnType::Int64) => "INT64",
            (Engine::Duckdb | Engine::Athena | Engine::Snowflake | Engine::Spark, ColumnType::Double) => "DOUBLE",
            (Engine::Bigquery, ColumnType::Double) => "FLOAT64",
            (Engine::Duckdb | Engine::Athena, ColumnType::Timestamp) => "TIMESTAMP",
            (Engine::Bigquery, ColumnType::Timestamp) => "DATETIME",
            (Engine::Snowflake | Engine::Spark, ColumnType::Timestamp) => "TIMESTAMP_NTZ",
            (Engine::Bigquery, ColumnType::Boolean) => "BOOL",
            (Engine::Duckdb | Engine::Athena | Engine::Snowflake | Engine::Spark, ColumnType::Boolean) => "BOOLEAN",
            (Engine::Clickhouse, ColumnType::String) => "Nullable(String)",
            (Engine::Clickhouse, ColumnType::Int64) => "Nullable(Int64)",
            (Engine::Clickhouse, ColumnType::Double) => "Nullable(Float64)",
            (Engine::Clickhouse, ColumnType::Date) => "Nullable(Date32)",
            (Engine::Clickhouse, ColumnType::Timestamp) => "Nullable(DateTime64(6))",
            (Engine::Clickhouse, ColumnType::Boolean) => "Nullable(Bool)",
            (_, ColumnType::Date) => "DATE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_inside_names_and_texts_are_escaped_as_each_engine_expects() {
        let name = "a\"b`c\\d";
        assert_eq!(Engine::Duckdb.identifier(name), "\"a\"\"b`c\\d\"");
        assert_eq!(Engine::Athena.identifier(name), "`a\"b``c\\d`");
        assert_eq!(Engine::Bigquery.identifier(name), "`a\"b\\`c\\\\d`");
        assert_eq!(Engine::Duckdb.text("it's \\"), "'it''s \\'");
        assert_eq!(Engine::Spark.text("it's \\"), "'it\\'s \\\\'");
    }
}
