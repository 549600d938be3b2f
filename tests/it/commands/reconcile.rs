//! `moesync reconcile`: the counts of archives beside those of statistics.

use std::{
    fs,
    io::{Cursor, Write as _},
};

use flate2::{Compression, write::GzEncoder};
use jiff::civil::Date;
use serde_json::{Value, json};

use crate::support::{
    Bench, Series,
    oracle::{hash, manifest_key},
    s3_server::Server,
};

/// A bench with an archive and a snapshot of statistics of the newest date, both stored.
async fn stored(bench: Bench, stats: &str) -> Bench {
    let report = format!(
        "\n[[reports]]\nworkspace = \"acme\"\nsource = \"campaign_stats\"\nid = \"stats\"\ndestination = \"disk\"\nstart = \"{}\"\n\
         schedule = {{ every = \"day\", at = \"{}\" }}\nattribution_type = \"CLICK_THROUGH\"\n{stats}\n",
        bench.newest,
        bench.generated_at_time()
    );
    bench.write_config(&(bench.config() + &report));
    bench.sync(0).await;
    fs::remove_dir_all(bench.path("ledger")).unwrap();
    fs::remove_file(bench.path("secret-key")).unwrap();
    bench
}

const TOTAL: &str = "metric_type = \"TOTAL\"";

/// Replaces a stored object, and in its manifest what follows from the bytes.
fn replace(bench: &Bench, key: &str, bytes: &[u8], entries: &[(&str, &[u8])]) {
    let path = bench.object(&manifest_key(key));
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["size"] = bytes.len().into();
    manifest["sha256"] = hash(bytes).into();
    let entry = |(name, contents): &(&str, &[u8])| json!({"name": name, "size": contents.len(), "crc32": format!("{:08x}", crc32fast::hash(contents))});
    manifest["entries"] = entries.iter().map(entry).collect();
    fs::write(bench.object(key), bytes).unwrap();
    fs::write(path, manifest.to_string()).unwrap();
}

fn replace_archive(bench: &Bench, files: &[(&str, &str)]) {
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    replace_archive_of(bench, &files);
}

fn replace_archive_of(bench: &Bench, files: &[(&str, &[u8])]) {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        archive.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    let key = bench.series[0].key(bench.newest);
    replace(bench, &key, &archive.finish().unwrap().into_inner(), files);
}

/// A workbook of two sheets, the first of them a cover page, the second with the rows of `csv`: numbers as numbers, all
/// else as text.
fn workbook(csv: &str) -> Vec<u8> {
    let cell = |text: &str| match text.replace(',', "").parse::<f64>() {
        Ok(number) => format!("<c><v>{number}</v></c>"),
        Err(_) => format!("<c t=\"inlineStr\"><is><t>{text}</t></is></c>"),
    };
    // The only commas within quotes are those of numbers.
    let cells = |line: &str| line.replace("\"12,345\"", "12345").split(',').map(cell).collect::<String>();
    let sheet = |lines: &str| {
        let rows: String = lines.lines().map(|line| format!("<row>{}</row>", cells(line))).collect();
        format!("<worksheet xmlns=\"{SPREADSHEET}/main\"><sheetData>{rows}</sheetData></worksheet>")
    };
    let relation = |number: u32| {
        format!(
            "<Relationship Id=\"r{number}\" Type=\"{RELATIONS}/worksheet\" Target=\"worksheets/sheet{number}.xml\"/>"
        )
    };
    let files = [
        (
            "_rels/.rels".to_owned(),
            format!(
                "<Relationships xmlns=\"{PACKAGE}/relationships\">\
             <Relationship Id=\"r1\" Type=\"{RELATIONS}/officeDocument\" Target=\"xl/workbook.xml\"/></Relationships>"
            ),
        ),
        (
            "xl/workbook.xml".to_owned(),
            format!(
                "<workbook xmlns=\"{SPREADSHEET}/main\" xmlns:r=\"{RELATIONS}\"><sheets>\
             <sheet name=\"Cover\" sheetId=\"1\" r:id=\"r1\"/><sheet name=\"Data\" sheetId=\"2\" r:id=\"r2\"/></sheets></workbook>"
            ),
        ),
        (
            "xl/_rels/workbook.xml.rels".to_owned(),
            format!("<Relationships xmlns=\"{PACKAGE}/relationships\">{}{}</Relationships>", relation(1), relation(2)),
        ),
        ("xl/worksheets/sheet1.xml".to_owned(), sheet("Report of MoEngage\n")),
        ("xl/worksheets/sheet2.xml".to_owned(), sheet(csv)),
    ];
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(text.as_bytes()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

const SPREADSHEET: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006";
const RELATIONS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
const PACKAGE: &str = "http://schemas.openxmlformats.org/package/2006";

fn replace_stats(bench: &Bench, lines: &[Value]) {
    replace_stats_text(bench, &lines.iter().map(|line| format!("{line}\n")).collect::<String>());
}

fn replace_stats_text(bench: &Bench, text: &str) {
    let mut snapshot = GzEncoder::new(Vec::new(), Compression::fast());
    snapshot.write_all(text.as_bytes()).unwrap();
    let key = format!("acme/stats/date={}/stats_{}.ndjson.gz", bench.newest, bench.newest.strftime("%Y%m%d"));
    replace(bench, &key, &snapshot.finish().unwrap(), &[("", text.as_bytes())]);
}

const RECONCILE: [&str; 5] = ["reconcile", "--report", "report-test", "--with", "stats"];

async fn reconciled(bench: &Bench) -> Value {
    bench.run(&[&RECONCILE[..], &["--json"]].concat()).await.expect(0).json()
}

/// Results by campaign: the result, and each count as `name report stats`.
fn by_campaign(reconciled: &Value) -> Vec<(String, String)> {
    let campaigns = reconciled["campaigns"].as_array().unwrap().iter();
    let shown = |campaign: &Value| {
        let counts = campaign["counts"].as_array().unwrap().iter();
        let counts =
            counts.map(|it| format!("{} {} {}", it["name"].as_str().unwrap(), it["in_report"], it["in_stats"]));
        let counts: Vec<_> = counts.collect();
        let id = campaign["campaign_id"].as_str().unwrap().to_owned();
        (id, format!("{}: {}", campaign["result"].as_str().unwrap(), counts.join(", ")))
    };
    campaigns.map(shown).collect()
}

fn yesterday(bench: &Bench) -> Date {
    bench.newest.yesterday().unwrap()
}

/// Two wholes, one campaign in parts, and one on another day.
fn push(day: Date) -> String {
    let other = day.yesterday().unwrap();
    format!(
        "Campaign ID,Date,Variation,Locale,All Platform Sent,All Platform Impressions,All Platform Clicks,Android Sent,Sent\n\
         aa01,{day},All Variations,All Locales,\"12,345\",500,7,1,1\n\
         aa01,{day},variation_1,All Locales,6000,250,3,1,1\n\
         aa02,{day} 00:00:00,variation_1,default,10,5,1,1,1\n\
         aa02,{day},variation_2,default,20,6,1,1,1\n\
         aa03,{day},,,100,50,,1,1\n\
         aa04,{day},,,1,1,1,1,1\n\
         aa01,{other},,,3,2,1,1,1\n\
         ,{day},,,9,9,9,9,9\n\
         Total,,,,9,9,9,9,9\n"
    )
}

fn email(day: Date) -> String {
    format!("\u{feff}campaign id;DATE;Total Delivered ;Total Sent\r\nee01;{day};77;80\r\n")
}

fn expected() -> Vec<(String, String)> {
    [
        ("aa01", "different: sent 12345 12340, impression 500 500, click 7 7"),
        ("aa02", "equal: sent 30 30, impression 11 11, click 2 2"),
        ("aa03", "equal: sent 100 100, impression 50 50"),
        ("aa04", "only_in_report: sent 1 null, impression 1 null, click 1 null"),
        ("bb01", "only_in_stats: sent null 5, delivered null 4, impression null 3, click null 2"),
        ("ee01", "equal: delivered 77 77"),
    ]
    .map(|(id, text)| (id.to_owned(), text.to_owned()))
    .to_vec()
}

/// The statistics that belong to [`push`] and [`email`], in one shape.
fn lines(is_raw: bool) -> Vec<Value> {
    let campaigns = [
        ("aa01", json!({"sent": 12340, "impression": 500, "click": 7, "ctr": 1.4})),
        ("aa02", json!({"sent": 30, "impression": 11, "click": 2})),
        ("aa03", json!({"sent": 100, "impression": 50, "click": 9})),
        ("bb01", json!({"sent": 5, "impression": 3, "click": 2, "delivered": 4})),
        ("ee01", json!({"sent": 80, "delivered": 77})),
    ];
    let lines = campaigns.iter().flat_map(|(id, metrics)| match is_raw {
        true => {
            let all = json!({"variations": {
                "all_variations": {"performance_stats": metrics}, "variation_1": {"performance_stats": {"sent": 1}}
            }});
            let locales = json!({"all_locales": all, "default": all});
            vec![json!({"campaign_id": id, "platforms": {
                "ALL_PLATFORMS": {"locales": locales}, "android": {"locales": locales}
            }})]
        }
        false => {
            let row = |platform: &str, variation: &str| {
                let mut row =
                    json!({"campaign_id": id, "platform": platform, "locale": "all_locale", "variation": variation});
                for (name, value) in metrics.as_object().unwrap() {
                    row[format!("performance_stats_{name}")] = value.clone();
                }
                row
            };
            vec![row("android", "all_variations"), row("ALL_PLATFORMS", "all_variations"), row("ALL_PLATFORMS", "v1")]
        }
    });
    // A campaign without numbers.
    lines.chain([json!({"campaign_id": "cc01"})]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_compared_by_campaign_and_day_in_both_shapes() {
    let bench = stored(Bench::new(&[Series::campaign("Report test", 1)]).await, TOTAL).await;
    let day = yesterday(&bench);
    let (push, email) = (push(day), email(day));
    replace_archive(
        &bench,
        &[("r_PUSH.csv", &push), ("flows/r_EMAIL.csv", &email), ("notes.txt", "x"), ("r.csv", "a\n1\n")],
    );
    for is_raw in [true, false] {
        replace_stats(&bench, &lines(is_raw));
        let found = reconciled(&bench).await;
        assert_eq!(by_campaign(&found), expected(), "raw: {is_raw}");
        assert_eq!(found["days_without_stats"], json!([day.yesterday().unwrap()]));
        let counts = [&found["equal"], &found["different"], &found["only_in_report"], &found["only_in_stats"]];
        assert_eq!(counts, [&json!(3), &json!(1), &json!(1), &json!(1)]);
        assert_eq!(found["campaigns"][0]["counts"][0]["difference"], -5);
        assert_eq!(found["campaigns"][0]["date"], day.to_string());
    }
    let text = bench.run(&RECONCILE).await.expect(0).stdout;
    assert!(text.contains("3 equal, 1 different, 1 only in the report, 1 only in the statistics"), "{text}");
    assert!(text.contains("-5") && text.contains("no statistics are stored"), "{text}");
    assert!(
        text.lines().filter(|line| !line.starts_with("campaigns by day")).all(|line| line.chars().count() <= 80),
        "{text}"
    );
    bench.run(&[&RECONCILE[..], &["--strict"]].concat()).await.expect(1);

    let whole = format!("Campaign ID,Date,Sent\nee01,{day},80\n");
    replace_archive(&bench, &[("r.csv", &whole)]);
    replace_stats(&bench, &lines(true)[4..]);
    bench.run(&[&RECONCILE[..], &["--strict"]].concat()).await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_in_other_spellings_are_compared_and_no_campaign_is_left_out() {
    let bench = stored(Bench::new(&[Series::campaign("Report test", 1)]).await, TOTAL).await;
    let day = yesterday(&bench);
    let line = |id: &str, metrics: Value| {
        json!({"campaign_id": id, "platforms": {"ALL_PLATFORMS": {"locales": {"all_locale": {"variations": {
            "all_variations": {"performance_stats": metrics}}}}}}})
    };
    let file = format!(
        "Campaign ID,Date,Variation,Locale,Sent,Clicks,Total Delivered\n\
         aa01,{day},all_variations,all_locale,30.0,2,\naa01,{day},v1,all_locale,30,2,\n\
         aa02,{day},All Variations,All Locale,\"1,200\",n/a,\naa02,{day},All Variations,en,9,9,\n\
         aa03,{day},,,,,10\n\
         aa04,{day},,,,1.5,7\n"
    );
    replace_archive(&bench, &[("r.csv", &file)]);
    let stats = [
        line("aa01", json!({"sent": "30", "click": 2.0})),
        line("aa02", json!({"sent": 1200.00, "click": 1.5, "delivered": "many"})),
        line("aa03", json!({"sent": 1200, "impression": 50})),
        line("aa04", json!({"sent": null})),
    ];
    replace_stats(&bench, &stats);
    let expected = [
        ("aa01", "equal: sent 30 30, click 2 2"),
        ("aa02", "equal: sent 1200 1200"),
        ("aa03", "different: sent null 1200, delivered 10 null, impression null 50"),
        ("aa04", "only_in_report: delivered 7 null"),
    ];
    let expected = expected.map(|(id, text)| (id.to_owned(), text.to_owned()));
    assert_eq!(by_campaign(&reconciled(&bench).await), expected);

    let apart = format!("Campaign ID,Date,Total Delivered\naa03,{day},10\n");
    replace_archive(&bench, &[("r.csv", &apart)]);
    replace_stats(&bench, &stats[2..3]);
    let text = bench.run(&[&RECONCILE[..], &["--strict"]].concat()).await.expect(1).stdout;
    assert!(text.contains("only report") && text.contains("0 equal, 1 different"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_compared_in_statistics_need_not_fit_a_type() {
    let bench = stored(Bench::new(&[Series::campaign("Report test", 1)]).await, TOTAL).await;
    let file = format!("Campaign ID,Date,Sent\naa01,{},3\n", yesterday(&bench));
    replace_archive(&bench, &[("r.csv", &file)]);
    let goals = "\"conversion_goal_stats\":{\"\\ud800\":{\"name\":\"\\udfff\",\"revenue\":1e999}}";
    let metrics = format!("{{\"performance_stats\":{{\"sent\":3,\"\\ud800\":1e999}},{goals}}}");
    for text in [
        format!(
            "{{\"campaign_id\":\"aa01\",{goals},\"platforms\":{{\"ALL_PLATFORMS\":{{\"locales\":{{\"all_locale\":{{\
             \"variations\":{{\"all_variations\":{metrics}}}}}}}}}}}}}\n"
        ),
        format!(
            "{{\"campaign_id\":\"aa01\",\"platform\":\"ALL_PLATFORMS\",\"locale\":\"all_locale\",\
             \"variation\":\"all_variations\",{goals},\"performance_stats_sent\":3}}\n"
        ),
    ] {
        replace_stats_text(&bench, &text);
        assert_eq!(by_campaign(&reconciled(&bench).await), [("aa01".to_owned(), "equal: sent 3 3".to_owned())]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_in_workbooks_are_compared_as_those_in_csv() {
    let bench = stored(Bench::new(&[Series::campaign("Report test", 1)]).await, TOTAL).await;
    let day = yesterday(&bench);
    let (push, email) = (workbook(&push(day)), email(day));
    replace_archive_of(&bench, &[("r_PUSH.xlsx", &push), ("flows/r_EMAIL.csv", email.as_bytes())]);
    replace_stats(&bench, &lines(true));
    assert_eq!(by_campaign(&reconciled(&bench).await), expected());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workbook_that_cannot_be_read_is_named_with_the_cause() {
    let bench = stored(Bench::new(&[Series::campaign("Report test", 1)]).await, TOTAL).await;
    replace_archive_of(&bench, &[("r_PUSH.xlsx", b"this is no workbook")]);
    let failed = bench.run(&RECONCILE).await.expect(1);
    for part in ["`r_PUSH.xlsx`", "reading the workbook: ", "invalid Zip archive"] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_that_do_not_fit_are_refused_with_the_reason() {
    let series = [Series::campaign("Report test", 1), Series::dump(1)];
    let bench = stored(Bench::new(&series).await, TOTAL).await;
    let day = yesterday(&bench);
    let refused = async |arguments: &[&str], code: i32, says: &str| {
        let ran = bench.run(&[&["reconcile"], arguments].concat()).await.expect(code);
        assert!(ran.stderr.contains(says) && ran.stdout.is_empty(), "{}", ran.stderr);
    };
    refused(&["--report", "report-test", "--with", "dump"], 2, "not campaign_stats").await;
    refused(&["--report", "stats", "--with", "report-test"], 2, "not an archive").await;
    refused(&["--report", "report-test", "--with", "stast"], 2, "did you mean `stats`?").await;
    refused(&["--report", "report-test", "--with", "stats", "--date", "2020-01-01"], 1, "no archive of report").await;
    replace_archive(&bench, &[("r.csv", "Campaign ID,Sent\naa01,1\n")]);
    refused(&["--report", "report-test", "--with", "stats"], 2, "the columns Campaign ID, Date").await;
    let config = fs::read_to_string(bench.path("moesync.toml")).unwrap();
    bench.write_config(&config.replace(TOTAL, "metric_type = \"UNIQUE\""));
    refused(&["--report", "report-test", "--with", "stats"], 2, "metric_type = \"TOTAL\"").await;
    bench.write_config(&config.replace(TOTAL, "metric_type = \"TOTAL\"\nwindow_days = 7"));
    refused(&["--report", "report-test", "--with", "stats"], 2, "window_days = 1").await;
    bench.write_config(&config);
    let sent = format!("Campaign ID,Date,Sent\naa01,{day},1\n");
    replace_archive(&bench, &[("r.csv", &sent)]);
    let key = bench.series[0].key(bench.newest);
    fs::write(bench.object(&key), "altered").unwrap();
    refused(&["--report", "report-test", "--with", "stats"], 1, "is damaged").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_and_statistics_of_one_account_agree_in_a_bucket() {
    let server = Server::start(false).await;
    let bench = stored(Bench::on_s3(&server, &[Series::campaign("Report test", 1)]).await, TOTAL).await;
    let found = reconciled(&bench).await;
    assert_eq!((&found["different"], &found["days_without_stats"]), (&json!(0), &json!([])), "{found}");
    assert!(found["equal"].as_u64().unwrap() > 5, "{found}");
    let of_day = found["campaigns"].as_array().unwrap().iter();
    assert!(of_day.clone().all(|campaign| campaign["date"] == yesterday(&bench).to_string()));
    bench.check_secrets();
}
