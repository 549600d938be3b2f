//! `moesync tables`: what it lists, and statements that the engines' parsers accept and that DuckDB runs.

use std::{collections::BTreeMap, fs, io::Read, path::Path, process::Command};

use jiff::civil::{Date, date};
use moesync::{
    derivation::{TableManifest, TableObject},
    reading::{self, Engine, Table, TablePart},
    table_words::{ColumnType, TableFormat},
    tables::{Column, Content, Depth, Extended, Input, Origin, Part, Schema},
};
use serde_json::{Value, json};

use crate::support::{Bench, Series, s3_server::Server};

/// A report id that is a key part only after many changes.
const ID: &str = "order \\\"x\\\" it's `y` 日本";
const NAME: &str = "acme_order_x_it_s_y_ri_ben_push";

/// Names of columns that need quotes in every dialect.
const NAMES: [&str; 8] = ["select", "a\"b", "a`b", "it's", "日本", "with space", "back\\slash", "plain"];

fn column(name: &str, column_type: ColumnType, day: i8) -> Column {
    let (first_date, last_date) = (date(2026, 11, day), date(2026, 11, 3));
    Column { name: name.into(), heading: name.into(), column_type: Some(column_type), first_date, last_date }
}

fn schema() -> Schema {
    use ColumnType::{Boolean, Double, Int64, String, Timestamp};
    let types = [Int64, Double, ColumnType::Date, Timestamp, Boolean, String, String, Int64];
    // The last one was added on the third day.
    let day = |name: &str| if name == "plain" { 3 } else { 1 };
    Schema { columns: NAMES.into_iter().zip(types).map(|(name, it)| column(name, it, day(name))).collect() }
}

/// Writes a table of three dates: one row, two rows and none.
fn write_table(folder: &Path, format: TableFormat) -> BTreeMap<String, u64> {
    // Longer than a line may be by DuckDB's defaults.
    let long = "y".repeat(3_000_000);
    let row = format!("7,8.4,2026-11-21,2026-11-21 09:30:00.5,true,\"a\r\nb\",\"say \"\"x\"\", {long}\"");
    let sources = [format!("h\n{row}\n"), format!("h\n{row},12\n{row},\n"), "h\n".to_owned()];
    let part = Part { table: "push".into(), number: 0, entry: 0, content: Content::Csv, sheet: None };
    let mut rows = BTreeMap::new();
    for ((day, columns), source) in [(1, 7), (3, 8), (2, 7)].into_iter().zip(sources) {
        let at = date(2026, 11, day);
        let headings: Vec<String> = (0..columns).map(|number| format!("h{number}")).collect();
        let text = source.replacen('h', &headings.join(","), 1);
        let open = || Ok(Box::new(text.as_bytes()) as Box<dyn Read>);
        let input = Input { part: &part, open: &open };
        let survey = input.survey(Depth::Whole).unwrap();
        let mut schema = schema();
        schema.columns.truncate(columns);
        let (positions, inferred) = (vec![(0..columns).collect()], vec![false; columns]);
        let extended = Extended { schema, changes: Vec::new(), columns: positions, inferred };
        let origin = Origin { report: "r".into(), date: at, sha256: "00".repeat(32), entry: "x.csv".into() };
        let mut object = Vec::new();
        let written = input.write(&survey, &extended, &origin, format, &mut object).unwrap();
        let path = folder.join(format!("date={at}"));
        fs::create_dir_all(&path).unwrap();
        let name = format!("part-0.{}", format.extension());
        fs::write(path.join(&name), object).unwrap();
        let manifest = TableManifest {
            format_version: TableManifest::FORMAT_VERSION,
            workspace: "acme".into(),
            report: ID.into(),
            date: at,
            objects: 1,
            object: TableObject {
                table: "push".into(),
                key: String::new(),
                rows: written.rows,
                rescued_rows: written.rescued_rows,
                size: 0,
                sha256: String::new(),
                schema_version: String::new(),
            },
            format,
            entry: "x.csv".into(),
            sheet: None,
            source_key: String::new(),
            source_sha256: String::new(),
            moesync_version: String::new(),
        };
        let manifest = serde_json::to_string(&manifest).unwrap();
        fs::write(path.join(format!("_{name}.manifest.json")), manifest).unwrap();
        if written.rows > 0 {
            rows.insert(at.to_string(), written.rows);
        }
    }
    fs::write(folder.join("_schema.json"), serde_json::to_string(&schema()).unwrap()).unwrap();
    rows
}

/// The report with a name that needs care, in a destination whose path does.
async fn bench() -> Bench {
    bench_in("it's [old] `y` 日本").await
}

async fn bench_in(root: &str) -> Bench {
    let mut bench = Bench::new(&[Series { id: ID.to_owned(), ..Series::campaign("Report test", 1) }]).await;
    let root = bench.path(root);
    fs::create_dir_all(&root).unwrap();
    bench.store_in(&root);
    bench
}

fn folder(bench: &Bench) -> std::path::PathBuf {
    bench.object("tables/acme/order__x__it_s__y__日本/push")
}

/// Parses, and for DuckDB runs, statements by Python.
fn judge(cases: &[Value]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), serde_json::to_string(cases).unwrap()).unwrap();
    let python = root.join("target/engines/bin/python");
    assert!(python.exists(), "{} is missing; `make engines` installs it", python.display());
    let judged =
        Command::new(python).arg(root.join("tests/it/tables/statements.py")).arg(file.path()).output().unwrap();
    let lines = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success(), "{lines}{}", String::from_utf8_lossy(&judged.stderr));
    assert_eq!(lines.lines().count(), cases.len(), "{lines}");
}

fn case(engine: &str, sql: &str, texts: &[&str]) -> Value {
    let columns: Vec<_> = NAMES.into_iter().chain(["_entry", "_rescued", "date"]).collect();
    json!({"engine": engine, "sql": sql, "name": NAME, "columns": columns, "texts": texts, "rows": null, "types": null})
}

#[tokio::test(flavor = "multi_thread")]
async fn duckdb_runs_its_statements_for_both_formats_and_counts_every_row() {
    let types = ["BIGINT", "DOUBLE", "DATE", "TIMESTAMP", "BOOLEAN", "VARCHAR", "VARCHAR", "BIGINT"];
    let mut types: BTreeMap<_, _> = NAMES.into_iter().zip(types).collect();
    types.extend([("_entry", "VARCHAR"), ("_rescued", "VARCHAR")]);
    for format in [TableFormat::Parquet, TableFormat::CsvGz] {
        // In the second path are partitions of another kind, one of them with the name of a column.
        for root in ["it's [old] `y` 日本", "env=prod/plain=x"] {
            let bench = bench_in(root).await;
            let rows = write_table(&folder(&bench), format);
            let printed = bench.run(&["tables", "--for", "duckdb"]).await.expect(0).stdout;
            let mut case = case("duckdb", &printed, &[]);
            case["rows"] = json!(rows);
            case["types"] = json!(types);
            judge(&[case]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn duckdb_reads_csv_after_the_only_date_with_a_column_was_removed() {
    let bench = bench().await;
    let mut rows = write_table(&folder(&bench), TableFormat::CsvGz);
    fs::remove_dir_all(folder(&bench).join("date=2026-11-03")).unwrap();
    rows.remove("2026-11-03");
    let printed = bench.run(&["tables", "--for", "duckdb"]).await.expect(0).stdout;
    let mut case = case("duckdb", &printed, &[]);
    case["columns"].as_array_mut().unwrap().retain(|column| column != "plain");
    case["rows"] = json!(rows);
    judge(&[case]);
}

/// A bench whose report has tables, made by `sync`; then the key is deleted.
async fn made(bench: Bench) -> Bench {
    let with_tables = bench
        .config()
        .replace("\nsource = \"campaign_report\"", "\ntables = \"parquet\"\nsource = \"campaign_report\"");
    bench.write_config(&with_tables);
    bench.sync(0).await;
    fs::remove_file(bench.path("secret-key")).unwrap();
    bench
}

/// The objects, manifests and schemas of tables.
fn made_files(bench: &Bench) -> BTreeMap<String, Vec<u8>> {
    bench.kept_in("tables").into_iter().map(|key| (key.clone(), fs::read(bench.object(&key)).unwrap())).collect()
}

/// Each made table is listed with its rows, and made again with the same bytes.
async fn is_listed_and_rebuilt(bench: &Bench) {
    let listed = bench.run(&["tables", "--json"]).await.expect(0).json();
    let tables = listed["tables"].as_array().unwrap();
    let names: Vec<_> = tables.iter().map(|table| table["table"].as_str().unwrap()).collect();
    assert_eq!(names, ["email", "flows_email", "flows_push", "push", "sms", "whatsapp"]);
    for table in tables {
        assert_eq!(table["dates"].as_array().unwrap().len(), 2);
        assert!(table["rows"].as_u64().unwrap() > 0 && table["columns"].as_array().unwrap().len() > 15, "{table}");
    }
    let before = made_files(bench);
    let newest = bench.newest.to_string();
    fs::remove_dir_all(bench.object(&format!("tables/acme/report-test/push/date={newest}"))).unwrap();
    let rebuilt =
        bench.run(&["tables", "rebuild", "--json", "--report", "report-test", "--date", &newest]).await.expect(0);
    let rebuilt = rebuilt.json();
    assert_eq!((&rebuilt["partitions"], &rebuilt["objects"]), (&1.into(), &6.into()), "{rebuilt}");
    assert!(made_files(bench) == before, "other bytes than at first");
    let text = bench.run(&["tables", "rebuild"]).await.expect(0).stdout;
    assert!(text.contains("tables of 2 partitions made again"), "{text}");
    assert!(made_files(bench) == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_sync_made_in_a_folder_are_listed_read_by_duckdb_and_rebuilt() {
    let bench = made(Bench::new(&[Series::campaign("Report test", 2)]).await).await;
    is_listed_and_rebuilt(&bench).await;
    let listed = bench.run(&["tables", "--json", "--table", "push"]).await.expect(0).json();
    let dates = listed["tables"][0]["dates"].as_array().unwrap().iter();
    let rows: BTreeMap<_, _> =
        dates.map(|date| (date["date"].as_str().unwrap().to_owned(), date["rows"].as_u64().unwrap())).collect();
    for format in ["parquet", "csv.gz"] {
        let printed = bench.run(&["tables", "--for", "duckdb", "--table", "push"]).await.expect(0).stdout;
        let none: [&str; 0] = [];
        judge(&[json!({
            "engine": "duckdb", "sql": printed, "name": "acme_report_test_push", "columns": none, "texts": none, "rows": rows,
            "types": null
        })]);
        if format == "parquet" {
            let config = fs::read_to_string(bench.path("moesync.toml")).unwrap();
            bench.write_config(&config.replace("tables = \"parquet\"", "tables = \"csv.gz\""));
            bench.run(&["tables", "rebuild"]).await.expect(0);
        }
    }
    bench.run(&["tables", "rebuild", "--report", "report-tset"]).await.expect(2);
    let config = fs::read_to_string(bench.path("moesync.toml")).unwrap();
    bench.write_config(&config.replace("tables = \"csv.gz\"\n", ""));
    let refused = bench.run(&["tables", "rebuild"]).await.expect(2);
    assert!(refused.stderr.contains("has the key `tables`"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_sync_made_in_a_bucket_are_listed_and_rebuilt() {
    let server = Server::start(false).await;
    let bench = made(Bench::on_s3(&server, &[Series::campaign("Report test", 2)]).await).await;
    is_listed_and_rebuilt(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_listed_with_columns_types_rows_and_dates() {
    let bench = bench().await;
    assert!(bench.run(&["tables"]).await.expect(0).stdout.starts_with("no tables"));
    write_table(&folder(&bench), TableFormat::Parquet);
    let listed = bench.run(&["tables", "--json"]).await.expect(0).json();
    let [table] = listed["tables"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    assert_eq!((&table["table"], &table["rows"], &table["formats"]), (&"push".into(), &3.into(), &json!(["parquet"])));
    assert_eq!(
        table["columns"][0],
        json!({
            "name": "select", "heading": "select", "type": "int64", "first_date": "2026-11-01", "last_date": "2026-11-03"
        })
    );
    assert_eq!(table["dates"][2], json!({"date": "2026-11-03", "parts": 1, "rows": 2}));
    let one = bench.run(&["tables", "--json", "--table", "push", "--date", "2026-11-01"]).await.expect(0).json();
    assert_eq!((&one["tables"][0]["rows"], one["tables"][0]["dates"].as_array().unwrap().len()), (&1.into(), 1));
    let text = bench.run(&["tables"]).await.expect(0).stdout;
    assert!(text.contains("push") && text.contains("2026-11-03"), "{text}");
    let text = bench.run(&["tables", "--columns"]).await.expect(0).stdout;
    assert!(text.contains("with space") && text.contains("timestamp"), "{text}");
    bench.run(&["tables", "--table", "pusch"]).await.expect(2);
    fs::write(folder(&bench).join("_schema.json"), "{]").unwrap();
    let invalid = bench.run(&["tables"]).await.expect(1);
    assert!(invalid.stderr.contains("_schema.json"), "{}", invalid.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_for_a_folder_name_it_or_say_why_the_engine_cannot_read_it() {
    let bench = bench().await;
    write_table(&folder(&bench), TableFormat::Parquet);
    let root = folder(&bench).display().to_string();
    let spark = bench.run(&["tables", "--for", "spark"]).await.expect(0).stdout;
    let clickhouse = bench.run(&["tables", "--for", "clickhouse"]).await.expect(0).stdout;
    judge(&[
        case("spark", &spark, &[&format!("file://{root}")]),
        case("clickhouse", &clickhouse, &[&format!("{root}/date=*/*.parquet")]),
    ]);
    for engine in ["athena", "bigquery", "snowflake"] {
        let refused = bench.run(&["tables", "--for", engine]).await.expect(2);
        assert!(refused.stderr.contains("folder of this machine"), "{}", refused.stderr);
        assert_eq!(refused.stdout, "");
    }
    write_table(&folder(&bench), TableFormat::CsvGz);
    let mixed = bench.run(&["tables", "--for", "duckdb"]).await.expect(2);
    assert!(mixed.stderr.contains("tables rebuild"), "{}", mixed.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_in_a_bucket_are_listed_and_a_store_of_ones_own_is_not_that_of_a_cloud() {
    let server = Server::start(false).await;
    let bench = Bench::on_s3(&server, &[Series::campaign("Report test", 1)]).await;
    write_table(&bench.object("tables/acme/report-test/push"), TableFormat::Parquet);
    let listed = bench.run(&["tables", "--json"]).await.expect(0).json();
    assert_eq!(listed["tables"][0]["rows"], 3);
    let duckdb = bench.run(&["tables", "--for", "duckdb"]).await.expect(0).stdout;
    assert!(duckdb.contains("'s3://reports/tables/acme/report-test/push/date=*/*.parquet'"), "{duckdb}");
    let clickhouse = bench.run(&["tables", "--for", "clickhouse"]).await.expect(0).stdout;
    assert!(clickhouse.contains(&format!("'{}/reports/tables/", server.url)), "{clickhouse}");
    let athena = bench.run(&["tables", "--for", "athena"]).await.expect(2);
    assert!(athena.stderr.contains("endpoint of its own"), "{}", athena.stderr);
    bench.check_secrets();
}

/// Statements of the library for a table of the report `id` in a destination at this URL.
fn statements_of(id: &str, schema: Schema, url: &str, engine: Engine, format: TableFormat) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moesync.toml");
    let text = format!(
        "[[workspaces]]\nname = \"acme\"\napp_id = \"A\"\ndata_center = \"01\"\ntimezone = \"UTC\"\nsecret_key = \"k\"\n\
         [[destinations]]\nname = \"lake\"\nurl = \"{url}\"\noptions = {{ azure_storage_account_name = \"shop\", aws_metadata_endpoint = \"http://10.0.0.1\" }}\n\
         [[reports]]\nsource = \"daily_dump\"\nid = \"{id}\"\ndestination = \"lake\"\nschedule = {{ every = \"day\", at = \"09:30\" }}\n"
    );
    fs::write(&path, text).unwrap();
    let config = moesync::config::load(&path, []).unwrap();
    let at = |day| -> (Date, _) { (date(2026, 11, day), vec![TablePart { key: String::new(), format }]) };
    let folder = format!("tables/{}/push", config.reports[0].key_prefix());
    let table = Table { name: "push".into(), folder, schema, dates: [at(1), at(3)].into() };
    reading::statements(engine, &config.reports[0], &table).map_err(|error| error.to_string())
}

fn at(url: &str, engine: Engine, format: TableFormat) -> Result<String, String> {
    statements_of(ID, schema(), url, engine, format)
}

#[test]
fn statements_for_the_clouds_are_parsed_with_names_and_locations_as_they_are() {
    let path = "it's \"x\"/tables/acme/order__x__it_s__y__日本/push";
    let s3 = "s3://bucket/it's%20%22x%22";
    let of = |scheme: &str| format!("{scheme}://bucket/{path}");
    let expected: [(Engine, &str, &str, Vec<String>); 13] = [
        (Engine::Duckdb, "duckdb", s3, vec![of("s3") + "/date=*/*.parquet"]),
        (Engine::Athena, "athena", s3, vec![of("s3") + "/", of("s3") + "/date=${date}/", "2026-11-01,NOW+1DAY".into()]),
        (Engine::Bigquery, "bigquery", s3, vec![of("s3") + "/*.parquet", of("s3")]),
        (Engine::Snowflake, "snowflake", s3, vec![of("s3") + "/"]),
        (Engine::Spark, "spark", s3, vec![of("s3a")]),
        (
            Engine::Clickhouse,
            "clickhouse",
            s3,
            vec![format!("https://bucket.s3.amazonaws.com/{path}/date=*/*.parquet")],
        ),
        (Engine::Duckdb, "duckdb", "gs://bucket/it's%20%22x%22", vec![of("gs") + "/date=*/*.parquet"]),
        (Engine::Bigquery, "bigquery", "gs://bucket/it's%20%22x%22", vec![of("gs") + "/*.parquet", of("gs")]),
        (Engine::Snowflake, "snowflake", "gs://bucket/it's%20%22x%22", vec![of("gcs") + "/"]),
        (Engine::Spark, "spark", "gs://bucket/it's%20%22x%22", vec![of("gs")]),
        (Engine::Duckdb, "duckdb", "az://bucket/it's%20%22x%22", vec![of("az") + "/date=*/*.parquet"]),
        (
            Engine::Snowflake,
            "snowflake",
            "az://bucket/it's%20%22x%22",
            vec![format!("azure://shop.blob.core.windows.net/bucket/{path}/")],
        ),
        (
            Engine::Spark,
            "spark",
            "az://bucket/it's%20%22x%22",
            vec![format!("abfss://bucket@shop.dfs.core.windows.net/{path}")],
        ),
    ];
    let cases = expected.map(|(engine, dialect, url, texts)| {
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        case(dialect, &at(url, engine, TableFormat::Parquet).unwrap(), &texts)
    });
    judge(&cases);
}

#[test]
fn what_an_engine_cannot_read_is_refused_with_the_reason() {
    let refused = |url: &str, engine, format, reason: &str| {
        let error = at(url, engine, format).unwrap_err();
        assert!(error.contains(reason) && error.contains("acme/") && error.contains("push"), "{error}");
    };
    for engine in [Engine::Athena, Engine::Bigquery, Engine::Snowflake, Engine::Spark] {
        refused("s3://bucket", engine, TableFormat::CsvGz, "by their position");
    }
    refused("gs://bucket", Engine::Athena, TableFormat::Parquet, "Amazon S3 alone");
    refused("az://bucket", Engine::Bigquery, TableFormat::Parquet, "Azure");
    refused("s3://bucket/a*b", Engine::Clickhouse, TableFormat::Parquet, "patterns");
    for engine in [Engine::Duckdb, Engine::Clickhouse] {
        assert!(at("s3://bucket", engine, TableFormat::CsvGz).is_ok());
    }
}

#[test]
fn the_page_of_each_engine_shows_what_is_printed_and_sql_that_its_parser_accepts() {
    use ColumnType::{Double, Int64, String, Timestamp};
    let columns = [("campaign_id", String), ("campaign_sent_time", Timestamp), ("sent", Int64), ("ctr", Double)];
    let schema = Schema { columns: columns.into_iter().map(|(name, it)| column(name, it, 1)).collect() };
    let engines = [
        (Engine::Duckdb, "duckdb"),
        (Engine::Athena, "athena"),
        (Engine::Bigquery, "bigquery"),
        (Engine::Snowflake, "snowflake"),
        (Engine::Spark, "spark"),
        (Engine::Clickhouse, "clickhouse"),
    ];
    let mut cases = Vec::new();
    for (engine, name) in engines {
        let printed = statements_of("daily", schema.clone(), "s3://acme-lake", engine, TableFormat::Parquet).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/tables/{name}.md"));
        let page = fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once("```sql\n").unwrap();
        let (shown, after) = rest.split_once("```").unwrap();
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            fs::write(&path, format!("{before}```sql\n{printed}```{after}")).unwrap();
        } else {
            assert_eq!(
                shown, printed,
                "{name}; if the change is meant: UPDATE_SCHEMAS=1 cargo test --test it tables::"
            );
        }
        let blocks = after.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        for sql in blocks {
            let columns: [&str; 0] = [];
            cases.push(json!({
                "engine": name, "sql": sql, "name": null, "columns": columns, "texts": columns, "rows": null
            }));
        }
    }
    assert!(cases.len() >= 6);
    judge(&cases);
}
