//! The tables of stored partitions, made by the binary and the library: when, where, and whatever happens meanwhile.

mod kills;
mod sharing;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Cursor, Write as _},
};

use serde_json::Value;

use crate::support::{
    Bench, Daemon, Ran, Series,
    oracle::{hash, manifest_key},
    receiver::Receiver,
    s3_server, wait_until,
};

/// A bench whose reports have tables.
async fn bench(series: &[Series]) -> Bench {
    let bench = Bench::new(series).await;
    bench.write_config(&with_tables(&bench.config(), "parquet"));
    bench
}

/// The configuration with tables for every report.
fn with_tables(config: &str, format: &str) -> String {
    config.replace("\ndestination = \"disk\"\n", &format!("\ndestination = \"disk\"\ntables = \"{format}\"\n"))
}

/// All objects, manifests and schemas of tables, by key.
fn tables(bench: &Bench) -> BTreeMap<String, Vec<u8>> {
    // A file may be replaced while they are read.
    let read = |key: String| Some((key.clone(), fs::read(bench.object(&key)).ok()?));
    bench.kept_in("tables").into_iter().filter_map(read).collect()
}

/// The invariants of tables at any moment: each object is whole, and each manifest stands beside an object.
fn check_tables(bench: &Bench) -> BTreeMap<String, Vec<u8>> {
    let tables = tables(bench);
    for (key, bytes) in &tables {
        if key.ends_with(".parquet") {
            assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"), "half of `{key}`");
        } else if key.ends_with(".csv.gz") {
            let read = std::io::copy(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut std::io::sink());
            assert!(read.is_ok(), "half of `{key}`");
        } else {
            let json: Value = serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("`{key}`: {error}"));
            if key.ends_with(".manifest.json") {
                let subject = json["key"].as_str().unwrap();
                assert_eq!(manifest_key(subject), *key);
                assert_eq!(json["sha256"], hash(&tables[subject]), "`{key}` does not describe its object");
            }
        }
    }
    tables
}

/// All invariants once every table is made: as many rows as the archives have, each from the stored object.
fn check_all_made(bench: &Bench, status: &[Value]) -> BTreeMap<String, Vec<u8>> {
    let tables = check_tables(bench);
    let manifests = tables.iter().filter(|(key, _)| key.ends_with(".manifest.json"));
    let manifests: Vec<Value> = manifests.map(|(_, json)| serde_json::from_slice(json).unwrap()).collect();
    assert_eq!(manifests.len(), tables.keys().filter(|key| key.contains("/part-")).count(), "each has a manifest");
    for partition in status {
        assert_eq!(partition["tables"], "made", "{partition}");
        let of = |manifest: &&Value| {
            ["report", "date"].iter().all(|field| manifest[field] == partition[field])
                && manifest["source_sha256"] == partition["sha256"]
        };
        let made: Vec<_> = manifests.iter().filter(of).collect();
        assert!(!made.is_empty() && made.iter().all(|manifest| manifest["objects"] == made.len()), "{partition}");
        assert_eq!(made.iter().map(|manifest| manifest["rows"].as_u64().unwrap()).sum::<u64>(), rows(bench, partition));
    }
    tables
}

/// The number of data rows in a stored archive of CSV files.
fn rows(bench: &Bench, partition: &Value) -> u64 {
    let archive = fs::File::open(bench.object(partition["key"].as_str().unwrap())).unwrap();
    let mut archive = zip::ZipArchive::new(archive).unwrap();
    let entries = archive.len();
    let count = |number| {
        let mut text = Vec::new();
        std::io::copy(&mut archive.by_index(number).unwrap(), &mut text).unwrap();
        let mut reader = csv_rows(&text);
        reader.next();
        reader.count() as u64
    };
    (0..entries).map(count).sum()
}

/// The rows of a CSV whose quoted cells may have line breaks.
fn csv_rows(text: &[u8]) -> impl Iterator<Item = ()> {
    let mut is_quoted = false;
    let ends = text.iter().filter(|byte| {
        is_quoted ^= **byte == b'"';
        **byte == b'\n' && !is_quoted
    });
    let ends = ends.count() + usize::from(!text.ends_with(b"\n"));
    (0..ends).map(drop)
}

/// `sync` with all its log lines.
async fn sync(bench: &Bench) -> Ran {
    bench.run(&["-v", "sync", "--json"]).await.expect(0)
}

/// The dates of the tables that a command made, in the order of its log.
fn made_in_order(ran: &Ran) -> Vec<String> {
    let lines = ran.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let made = lines.filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with("made the tables")));
    made.map(|line| line["date"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_makes_the_tables_of_each_stored_partition_once() {
    let bench = bench(&[Series::campaign("Report test", 3), Series::dump(2)]).await;
    let ran = sync(&bench).await;
    assert_eq!(made_in_order(&ran).len(), 5);
    assert!(ran.partitions().iter().all(|partition| partition["tables"] == "made"));
    let first = check_all_made(&bench, &bench.status().await);
    bench.oracle().await;
    let again = sync(&bench).await;
    assert_eq!(made_in_order(&again), [""; 0]);
    assert!(tables(&bench) == first);

    let date = bench.newest.to_string();
    let explained =
        bench.run(&["explain", "--report", "report-test", "--date", &date, "--json"]).await.expect(0).json();
    let objects = explained["derived"]["objects"].as_array().unwrap();
    assert!(objects.iter().all(|object| first.contains_key(object["key"].as_str().unwrap())));
    assert_eq!(explained["derived"]["left_alone"], Value::Array(Vec::new()));
    let text = bench.run(&["explain", "--report", "report-test", "--date", &date]).await.expect(0).stdout;
    assert!(text.contains("tables         made: "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_nothing_differs() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let ran = bench.sync(0).await;
    let printed =
        [ran.stdout, bench.run(&["status", "--json"]).await.stdout, bench.run(&["plan", "--json"]).await.stdout];
    for text in printed {
        assert!(!text.contains("\"tables\""), "{text}");
    }
    assert_eq!(bench.kept_in("tables"), [""; 0]);
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_enabled_later_are_made_of_the_past_newest_first() {
    let bench = Bench::new(&[Series::campaign("Report test", 4)]).await;
    bench.sync(0).await;
    bench.write_config(&with_tables(&bench.config(), "parquet"));
    let made = made_in_order(&sync(&bench).await);
    let newest_first: Vec<_> = made.iter().cloned().collect::<BTreeSet<_>>().into_iter().rev().collect();
    assert_eq!((made.len(), &made), (4, &newest_first));
    let parquet = check_all_made(&bench, &bench.status().await);

    bench.write_config(&with_tables(&bench.config(), "csv.gz"));
    assert_eq!(made_in_order(&sync(&bench).await).len(), 4);
    let gzipped = check_all_made(&bench, &bench.status().await);
    assert!(gzipped.keys().all(|key| !key.ends_with(".parquet")), "those of the former format are removed");
    assert_eq!(gzipped.len(), parquet.len());

    bench.write_config(&bench.config());
    assert!(bench.sync(0).await.partitions().is_empty());
    assert!(bench.status().await.iter().all(|partition| partition.get("tables").is_none()));
    assert!(tables(&bench) == gzipped, "they stay");
    bench.write_config(&with_tables(&bench.config(), "csv.gz"));
    bench.sync(0).await;
    assert!(check_all_made(&bench, &bench.status().await) == gzipped);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_loss_of_the_ledger_tables_are_recognised_and_not_news() {
    let bench = bench(&[Series::campaign("Report test", 3)]).await;
    bench.sync(0).await;
    let made = check_all_made(&bench, &bench.status().await);
    let changed = |key: &String| fs::metadata(bench.object(key)).unwrap().modified().unwrap();
    let times: Vec<_> = made.keys().map(changed).collect();
    fs::remove_dir_all(bench.path("ledger")).unwrap();
    let receiver = Receiver::start().await;
    bench.write_config(&(with_tables(&bench.config(), "parquet") + &receiver.webhook()));
    bench.sync(0).await;
    assert!(check_all_made(&bench, &bench.status().await) == made);
    assert_eq!(made.keys().map(changed).collect::<Vec<_>>(), times, "nothing was written again");
    assert!(receiver.events().iter().all(|event| event["type"] != "tables"), "{:?}", receiver.events());

    // One object less: the tables of its date are made again, and the others stay.
    let lost = made.keys().rfind(|key| key.contains("/part-")).unwrap();
    fs::remove_file(bench.object(lost)).unwrap();
    fs::remove_dir_all(bench.path("ledger")).unwrap();
    bench.sync(0).await;
    assert!(check_all_made(&bench, &bench.status().await).contains_key(lost));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_gets_the_same_tables_as_a_directory() {
    let server = s3_server::Server::start(false).await;
    let series = [Series::campaign("Report test", 2)];
    let (on_s3, on_disk) = (Bench::on_s3(&server, &series).await, bench(&series).await);
    on_s3.write_config(&with_tables(&on_s3.config(), "parquet"));
    on_s3.sync(0).await;
    on_disk.sync(0).await;
    let on_s3_status = on_s3.status().await;
    if on_s3.newest == on_disk.newest {
        assert!(check_all_made(&on_s3, &on_s3_status) == tables(&on_disk));
    }
    fs::remove_dir_all(on_s3.path("ledger")).unwrap();
    assert_eq!(on_s3.sync(0).await.code, Some(0));
    check_all_made(&on_s3, &on_s3.status().await);
    assert_eq!(on_s3.kept_in("_staging"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_files_get_their_names_one_by_one_the_tables_are_the_same() {
    let bench = bench(&[Series::campaign("Report test", 3)]).await;
    bench.sync(0).await;
    fs::remove_dir_all(bench.object("tables")).unwrap();
    bench.run(&["tables", "rebuild"]).await.expect(0);
    let together = check_all_made(&bench, &bench.status().await);
    fs::remove_dir_all(bench.object("tables")).unwrap();
    let config = fs::read_to_string(bench.path("moesync.toml")).unwrap();
    let one_by_one = config.replace("\n[[destinations]]\n", "\n[[destinations]]\nfsync = false\n");
    assert_ne!(one_by_one, config);
    bench.write_config(&one_by_one);
    bench.run(&["tables", "rebuild"]).await.expect(0);
    assert!(check_all_made(&bench, &bench.status().await) == together);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_at_once_lose_no_column_and_make_each_table_once() {
    let bench = Bench::new(&[Series::campaign("Report test", 5), Series::dump(5)]).await;
    bench.sync(0).await;
    bench.write_config(&with_tables(&bench.config(), "parquet"));
    let (one, other) = tokio::join!(sync(&bench), sync(&bench));
    let made = [made_in_order(&one), made_in_order(&other)].concat();
    assert_eq!(made.len(), 10, "{made:?}");
    let tables = check_all_made(&bench, &bench.status().await);
    for (key, schema) in tables.iter().filter(|(key, _)| key.ends_with("/_schema.json")) {
        let schema: Value = serde_json::from_slice(schema).unwrap();
        let columns = schema["columns"].as_array().unwrap();
        let dates: BTreeSet<_> = columns.iter().map(|column| column["last_date"].as_str().unwrap()).collect();
        assert!(dates.contains(bench.newest.to_string().as_str()), "{key}: {dates:?}");
        let names: BTreeSet<_> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
        assert_eq!(names.len(), columns.len(), "{key}");
    }
}

fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_makes_no_table_is_stored_all_the_same_and_an_alarm() {
    let bench = bench(&[Series::campaign("Report test", 1)]).await;
    let _body = bench.answer_with(zipped(&[("a.csv", b"A,B\n1,2\n"), ("b.xlsx", b"this is no workbook")])).await;
    let receiver = Receiver::start().await;
    let config = fs::read_to_string(bench.path("moesync.toml")).unwrap();
    bench.write_config(&(config.clone() + &receiver.webhook()));
    let ran = bench.sync(0).await;
    assert_eq!(ran.alarms(), ["tables_failed"]);
    let [partition] = &bench.status().await[..] else { panic!() };
    assert_eq!((&partition["state"], &partition["tables"]), (&"stored".into(), &"failed".into()));
    assert_eq!(receiver.alarms(), ["tables_failed began"], "{:?}", receiver.events());
    let status = bench.run(&["status", "--json"]).await.expect(0).json();
    assert_eq!(status["reports"][0]["tables_failed"], 1);
    let text = bench.run(&["status"]).await.expect(0).stdout;
    assert!(text.contains("NO TABLES"), "{text}");
    let event = receiver.events().into_iter().find(|event| event["type"] == "alarm.began").unwrap();
    let message = event["data"]["message"].as_str().unwrap();
    assert!(message.contains("the tables of 1 date cannot be made") && message.contains("b.xlsx"), "{message}");
    assert_eq!(check_tables(&bench).len(), 0, "all tables of an object or none");

    bench.write_config(&(config.replace("tables = \"parquet\"\n", "") + &receiver.webhook()));
    bench.sync(0).await;
    assert_eq!(receiver.alarms(), ["tables_failed began", "tables_failed ended"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_only_later_rows_show_are_those_of_the_columns() {
    let bench = bench(&[Series::campaign("Report test", 2)]).await;
    let rows = (0..1000).map(|row| if row < 700 { format!("{row},,x\n") } else { "0.5,2026-11-21,y\n".to_owned() });
    let csv = "A,B,C\n".to_owned() + &rows.collect::<String>();
    let _body = bench.answer_with(zipped(&[("a.csv", csv.as_bytes())])).await;
    bench.sync(0).await;
    let tables = bench.run(&["tables", "--json"]).await.expect(0).json();
    let columns = tables["tables"][0]["columns"].as_array().unwrap();
    let types: Vec<_> = columns.iter().map(|column| (column["name"].as_str(), column["type"].as_str())).collect();
    let expected = [("a", "double"), ("b", "date"), ("c", "string")];
    assert_eq!(types, expected.map(|(name, of_type)| (Some(name), Some(of_type))));
    let made = check_all_made(&bench, &bench.status().await);
    let manifests = made.iter().filter(|(key, _)| key.ends_with(".manifest.json"));
    let manifests: Vec<Value> = manifests.map(|(_, json)| serde_json::from_slice(json).unwrap()).collect();
    assert!(manifests.len() == 2 && manifests.iter().all(|manifest| manifest["rescued_rows"] == 0), "{manifests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_to_its_end_decides_no_type() {
    let bench = bench(&[Series::campaign("Report test", 2)]).await;
    let csv = "A,B\n".to_owned() + &"1,2\n".repeat(600) + &",".repeat(5000) + "\n";
    let _body = bench.answer_with(zipped(&[("a.csv", csv.as_bytes())])).await;
    let ran = bench.sync(0).await;
    assert_eq!(ran.alarms(), ["tables_failed"]);
    assert_eq!(bench.kept_in("tables"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_very_many_files_makes_no_tables() {
    let bench = bench(&[Series::campaign("Report test", 1)]).await;
    let names: Vec<_> = (0..1001).map(|number| format!("{number}.csv")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), &b"a\n1\n"[..])).collect();
    let _body = bench.answer_with(zipped(&files)).await;
    let ran = bench.sync(0).await;
    assert_eq!(ran.alarms(), ["tables_failed"]);
    assert!(ran.stderr.contains("1001 files"), "{}", ran.stderr);
    assert_eq!(bench.kept_in("tables"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_has_a_limit_of_columns_over_all_dates() {
    let bench = bench(&[Series::campaign("Report test", 2)]).await;
    let zipped_csv = |letter: char| {
        let headings: Vec<_> = (0..3000).map(|number| format!("{letter}{number}")).collect();
        zipped(&[("a.csv", format!("{}\n1\n", headings.join(",")).as_bytes())])
    };
    let body = bench.answer_with(zipped_csv('a')).await;
    let newest = bench.newest.to_string();
    bench.run(&["backfill", "--report", "report-test", "--from", &newest, "--to", &newest]).await.expect(0);
    *body.lock().unwrap() = zipped_csv('b');
    let ran = bench.sync(0).await;
    assert_eq!(ran.alarms(), ["tables_failed"]);
    assert!(ran.stderr.contains("would have 6000 columns"), "{}", ran.stderr);
    check_tables(&bench);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_damaged_does_not_keep_those_beside_it_from_their_tables() {
    let bench = Bench::new(&[Series::campaign("Report test", 4)]).await;
    bench.sync(0).await;
    let damaged = bench.object(bench.status().await[1]["key"].as_str().unwrap());
    let whole = fs::read(&damaged).unwrap();
    fs::write(&damaged, b"PK").unwrap();
    bench.write_config(&with_tables(&bench.config(), "parquet"));
    assert_eq!(made_in_order(&sync(&bench).await).len(), 3);
    check_tables(&bench);
    let states: Vec<_> = bench.status().await.iter().map(|partition| partition["tables"].clone()).collect();
    assert_eq!(states, ["made", "pending", "made", "made"]);
    fs::write(&damaged, whole).unwrap();
    assert_eq!(made_in_order(&sync(&bench).await).len(), 1);
    check_all_made(&bench, &bench.status().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_tables_that_cannot_be_written_is_an_alarm_from_the_second_time_on() {
    let bench = bench(&[Series::campaign("Report test", 1)]).await;
    fs::create_dir_all(bench.path("reports")).unwrap();
    fs::write(bench.object("tables"), "in the way").unwrap();
    assert_eq!(bench.sync(0).await.alarms(), [""; 0]);
    assert_eq!(bench.status().await[0]["tables"], "pending");
    assert_eq!(bench.sync(0).await.alarms(), ["tables_failed"]);
    assert_eq!(bench.status().await[0]["tables"], "failed");
    fs::remove_file(bench.object("tables")).unwrap();
    bench.sync(0).await;
    check_all_made(&bench, &bench.status().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_other_kinds_are_listed_and_the_events_say_what_is_ready() {
    let bench = bench(&[Series::campaign("Report test", 1)]).await;
    let receiver = Receiver::start().await;
    let body = bench.answer_with(zipped(&[("a.csv", b"A,B\n1,2\n3,4\n"), ("read me.pdf", b"%PDF")])).await;
    let config = fs::read_to_string(bench.path("moesync.toml")).unwrap();
    bench.write_config(&(config + &receiver.webhook()));
    bench.sync(0).await;
    let of_type = |wanted: &str| -> Vec<Value> {
        receiver
            .events()
            .into_iter()
            .filter(|event| event["type"] == wanted)
            .map(|event| event["data"].clone())
            .collect()
    };
    let [ready] = &of_type("tables")[..] else { panic!("{:?}", receiver.events()) };
    assert_eq!((&ready["rows"], &ready["left_alone"]), (&2.into(), &vec!["read me.pdf"].into()));
    let key = ready["tables"][0]["key"].as_str().unwrap();
    assert_eq!(ready["tables"][0]["sha256"], hash(&tables(&bench)[key]));
    assert_eq!(of_type("schema_changed").len(), 0, "the first columns are no change");

    // The partition is lost and fetched again, with a further column and an entry less.
    fs::remove_file(bench.object(bench.status().await[0]["key"].as_str().unwrap())).unwrap();
    *body.lock().unwrap() = zipped(&[("a.csv", b"A,B,C\n1,2,x\n")]);
    bench.run(&["verify", "--repair"]).await;
    bench.sync(0).await;
    let [changed] = &of_type("schema_changed")[..] else { panic!("{:?}", receiver.events()) };
    assert_eq!((&changed["changes"][0]["column"], &changed["changes"][0]["change"]), (&"c".into(), &"added".into()));
    assert_eq!(of_type("tables").len(), 2);
    check_tables(&bench);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_makes_tables_and_its_metrics_count_them() {
    let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
    bench.write_config(&with_tables(&bench.config(), "parquet").replace("listen = \"\"", "listen = \"127.0.0.1:0\""));
    let daemon = Daemon::start(&bench).await;
    let are_made = async || {
        let status = bench.status().await;
        status.len() == 2 && status.iter().all(|partition| partition["tables"] == "made")
    };
    assert!(wait_until(are_made).await);
    let status = bench.status().await;
    check_all_made(&bench, &status);
    let metrics =
        reqwest::get(format!("{}/metrics", daemon.url().trim_end_matches('/'))).await.unwrap().text().await.unwrap();
    let rows: u64 = status.iter().map(|partition| rows(&bench, partition)).sum();
    let of = "workspace=\"acme\",report=\"report-test\",source=\"campaign_report\"";
    for expected in [format!("moesync_table_rows{{{of}}} {rows}"), format!("moesync_tables{{{of},state=\"failed\"}} 0")]
    {
        assert!(metrics.contains(&expected), "{expected} is not in {metrics}");
    }
    assert!(daemon.stop(&bench).await.success());
}
