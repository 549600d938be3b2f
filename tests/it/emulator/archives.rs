//! The content of archives: reproducible, of the size asked for, and readable by other tools.

use moesync::{
    config::SourceKind,
    emulator::{Container, Csv, EmulatedReport},
};

use super::{APP, FILE, KEY, Vendor, account, dump_path, json, judge, report};

#[tokio::test]
async fn the_same_seed_and_name_give_the_same_bytes_and_others_give_others() {
    let reports = || account(vec![report("Report test"), EmulatedReport { container: Container::Gzip, ..report("G") }]);
    let (one, same, other) =
        (Vendor::seeded(reports(), 1).await, Vendor::seeded(reports(), 1).await, Vendor::seeded(reports(), 2).await);
    for file_name in [FILE, "G_20210217.zip"] {
        let body = async |vendor: &Vendor, name: &str| vendor.report(name).await.bytes().await.unwrap();
        let bytes = body(&one, file_name).await;
        assert_eq!(body(&one, file_name).await, bytes);
        assert_eq!(body(&same, file_name).await, bytes);
        assert_ne!(body(&other, file_name).await, bytes);
        assert_ne!(body(&one, &file_name.replace("17", "16")).await, bytes);
    }
    // These hashes change with the contents of archives.
    let zip = one.report(FILE).await.bytes().await.unwrap();
    let script = "import sys,zipfile\nz=zipfile.ZipFile(sys.argv[1])\n\
                  for n in z.namelist()[:3]: print(n,*z.read(n).decode().splitlines()[:3],sep='\\n')";
    insta::assert_snapshot!(judge("python3", &["-c", script], &zip).await, @r##"
    Report_test_PUSH_20210217.csv
    Campaign ID,Campaign Name,Campaign Type,Campaign Delivery Type,Campaign Channel,Campaign Status,Campaign Sent Time,Parent Campaign ID,Flows Name,Variation,Locale,Date,Tag Category: Region,Conversion Goal 1 Name,"Conversion Goal 1 Conversions (Total, Click-through)",Conversion Goal 1 Revenue,All Platform Sent,All Platform Impressions,All Platform Clicks,All Platform CTR,Android Sent,Android Impressions,Android Clicks,iOS Sent,iOS Impressions,iOS Clicks,Delivery Rate
    5fbd15cc00126aa278000002,Welcome series #2,Smart Trigger,EVENT_TRIGGERED,PUSH,Active,,,,All Variations,All Locales,2021-02-16,"['APAC', 'MENA']",Goal 1,0,,791,380,6,1.6,642,282,1,149,98,5,48.0%
    5f1573670051c450b5000009,Für dich empfohlen #9,General,PERIODIC,PUSH,Active,,,,All Variations,All Locales,2021-02-16,['MENA'],Goal 1,11,913,6976,4445,289,6.5,3252,1493,154,3724,2952,135,63.7%
    Report_test_EMAIL_20210217.csv
    Campaign ID,Campaign Name,Campaign Type,Campaign Delivery Type,Campaign Channel,Campaign Status,Campaign Sent Time,Parent Campaign ID,Flows Name,Variation,Locale,Date,Tag Category: Region,Conversion Goal 1 Name,"Conversion Goal 1 Conversions (Total, Click-through)",Conversion Goal 1 Revenue,Total Sent,Total Delivered,Total Open,Unique opens,Total clicks,Unique clicks,Hard bounces,Unsubscribes ,Email Subject
    5fd569c500f1510895000001,Año nuevo 50% off #1,General,PERIODIC,EMAIL,Stopped,,,,All Variations,All Locales,2021-02-16,['LATAM'],Goal 1,11,924,10798,10614,3344,2229,335,234,184,6,Año nuevo 50% off #1: 9 for you
    5f8d10d200d622e1ca000004,"Flash sale, 24 h #4",General,BUSINESS_EVENT_TRIGGERED,EMAIL,Stopped,,,,All Variations,All Locales,2021-02-16,['LATAM'],Goal 1,18,414,6517,6422,1813,1209,236,165,95,4,"Flash sale, 24 h #4: 83 for you"
    Report_test_SMS_20210217.csv
    Campaign ID,Campaign Name,Campaign Type,Campaign Delivery Type,Campaign Channel,Campaign Status,Campaign Sent Time,Parent Campaign ID,Flows Name,Variation,Locale,Date,Tag Category: Region,Conversion Goal 1 Name,"Conversion Goal 1 Conversions (Total, Click-through)",Conversion Goal 1 Revenue,Sent,Total Delivered,Clicks,Clicks,Delivery Rate
    5efde93300b64f339000000a,Año nuevo 50% off #10,Smart Trigger,EVENT_TRIGGERED,SMS,Active,,,,All Variations,All Locales,2021-02-16,"['LATAM', 'APAC']",Goal 1,19,"1,045",5852,5705,278,194,97.5%
    5e9de19700b98f66a100000e,Cart abandoned #14,Smart Trigger,EVENT_TRIGGERED,SMS,Active,,,,All Variations,All Locales,2021-02-16,[],Goal 1,5,345,3730,3667,124,86,98.3%
    "##);
}

/// Prints for each CSV of an archive its name, its number of headings, and whether all rows have as many fields.
const LIST: &str = r"
import csv, io, sys, tarfile, zipfile
with open(sys.argv[1], 'rb') as f: is_zip = f.read(2) == b'PK'
if is_zip:
    z = zipfile.ZipFile(sys.argv[1])
    assert z.testzip() is None
    files = [(i.filename, i.date_time[:3], z.read(i)) for i in z.infolist()]
else:
    t = tarfile.open(sys.argv[1])
    import datetime
    of = lambda m: datetime.datetime.fromtimestamp(m.mtime, datetime.timezone.utc).timetuple()[:3]
    files = [(m.name, of(m), t.extractfile(m).read()) for m in t]
for name, day, data in files:
    rows = list(csv.reader(io.StringIO(data.decode('utf-8'), newline='')))
    assert len(rows) > 1 and all(len(row) == len(rows[0]) for row in rows), name
    print(name, day, len(rows[0]))
";

#[tokio::test]
async fn archives_have_about_the_requested_size_and_other_tools_read_them() {
    // From a few rows in memory to an archive on disk.
    for bytes in [0, 100_000, 3_000_000] {
        let of = |name: &str, container| EmulatedReport { bytes, container, ..report(name) };
        let reports = vec![
            of("Zip", Container::Zip),
            of("Gzip", Container::Gzip),
            of("Tar", Container::Tar),
            of("Tgz", Container::TarGz),
            of("Rar", Container::Rar),
        ];
        let vendor = Vendor::new(account(reports)).await;
        let mut sizes = vec![];
        for name in ["Zip", "Tar", "Tgz"] {
            let archive = vendor.report(&format!("{name}_20210217.zip")).await.bytes().await.unwrap();
            sizes.push((name, archive.len()));
            let listing = judge("python3", &["-c", LIST], &archive).await;
            let expected = [
                ("", "PUSH", 27),
                ("", "EMAIL", 25),
                ("", "SMS", 21),
                ("", "WHATSAPP", 21),
                ("flows/", "FLOWS_EMAIL", 25),
                ("flows/", "FLOWS_PUSH", 27),
            ];
            let expected = expected
                .map(|(folder, kind, width)| format!("{folder}{name}_{kind}_20210217.csv (2021, 2, 17) {width}\n"));
            assert_eq!(listing, expected.concat());
            match name {
                "Zip" => drop(judge("unzip", &["-tq"], &archive).await),
                "Tar" => drop(judge("tar", &["-tf"], &archive).await),
                _ => drop(judge("tar", &["-tzf"], &archive).await),
            }
        }

        let gzip = vendor.report("Gzip_20210217.zip").await.bytes().await.unwrap();
        let script = "import sys,gzip,csv\nt=list(csv.reader(gzip.open(sys.argv[1],'rt',encoding='utf-8',newline='')))\n\
                      assert all(len(r)==20 for r in t)\nprint(sorted({r[4] for r in t[1:]}))";
        let channels = judge("python3", &["-c", script], &gzip).await;
        assert!(bytes == 0 || channels == "['EMAIL', 'PUSH', 'SMS', 'WHATSAPP']\n", "{channels}");
        sizes.push(("Gzip", gzip.len()));
        let rar = vendor.report("Rar_20210217.zip").await.bytes().await.unwrap();
        assert!(rar.starts_with(b"Rar!\x1a\x07\x01\x00"));
        sizes.push(("Rar", rar.len()));

        if bytes > 0 {
            for (name, size) in sizes {
                assert!((bytes * 8 / 10..bytes * 12 / 10).contains(&(size as u64)), "{name}: {size} for {bytes}");
            }
        }
    }
}

#[tokio::test]
async fn the_daily_dump_has_its_own_names_and_tables_any_separator_and_mark() {
    let csv = Csv { separator: ';', byte_order_mark: true };
    let dump = EmulatedReport { source: SourceKind::DailyDump, csv, ..report("dump") };
    let vendor = Vendor::new(account(vec![dump])).await;
    let zip = vendor.ask(&dump_path(APP, "20210217.zip", KEY), |request| request).await.bytes().await.unwrap();
    let script = "import sys,zipfile\nz=zipfile.ZipFile(sys.argv[1])\n\
                  for n in z.namelist(): print(n,z.read(n)[:24])";
    let listing = judge("python3", &["-c", script], &zip).await;
    let names = [
        "General_Push",
        "General_Email",
        "General_SMS",
        "General_WHATSAPP",
        "Smart_Trigger_Email",
        "Smart_Trigger_Push",
    ];
    let expected = names.map(|name| format!("{name}_{APP}_20210217.csv b'\\xef\\xbb\\xbfCampaign ID;Campaign '\n"));
    assert_eq!(listing, expected.concat());
}

#[tokio::test]
async fn an_export_counts_a_campaigns_day_as_statistics_do() {
    let vendor = Vendor::new(account(vec![EmulatedReport { bytes: 100_000, ..report("Report test") }])).await;
    let zip = vendor.report(FILE).await.bytes().await.unwrap();
    let script = "import sys,zipfile,csv,io,json\nz=zipfile.ZipFile(sys.argv[1])\n\
                  rows=lambda c:csv.DictReader(io.TextIOWrapper(z.open(f'Report_test_{c}_20210217.csv'),'utf-8',newline=''))\n\
                  print(json.dumps({c:{r['Campaign ID']:[r['Date'],r[a],r[b]] for r in rows(c)} for c,a,b in \
                  [('PUSH','All Platform Sent','All Platform Clicks'),('EMAIL','Total Sent','Total Delivered'),\
                  ('SMS','Sent','Total Delivered')]}))";
    let exported: serde_json::Value = serde_json::from_str(&judge("python3", &["-c", script], &zip).await).unwrap();
    let counted = json::stats_of_day(&vendor, "2021-02-16").await;
    let mut compared = 0;
    for (channel, second) in [("PUSH", "click"), ("EMAIL", "delivered"), ("SMS", "delivered")] {
        for (id, performance) in &counted {
            let row = &exported[channel][id];
            if !row.is_null() {
                let expected = ["sent", second].map(|name| performance[name].to_string());
                assert_eq!(*row, serde_json::json!(["2021-02-16", expected[0], expected[1]]), "{channel} {id}");
                compared += 1;
            }
        }
    }
    assert!(compared > 10 && compared == counted.len(), "{compared} of {}", counted.len());
}
