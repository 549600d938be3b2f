//! `moesync verify`, with and without `--repair`.

use std::{collections::BTreeMap, fs};

use moesync::{
    report::{PartitionId, ReportId},
    sync::{self, Selection},
};

use crate::support::{Bench, Series, oracle::manifest_key};

/// Everything stored, then the object and manifest of the oldest partition harmed by `harm`.
async fn harmed(harm: impl Fn(&Bench, &str)) -> Bench {
    let bench = Bench::new(&[Series::campaign("Report test", 3)]).await;
    bench.sync(0).await;
    let (series, date) = bench.due()[0];
    harm(&bench, &series.key(date));
    bench
}

/// `verify` finds the damage, and `verify --repair` repairs it with this many downloads.
async fn is_found_and_repaired(bench: &Bench, code: &str, says: &str, downloads: usize) {
    let asked = bench.requests();
    let found = bench.run(&["verify", "--json"]).await.expect(1).partitions();
    let damages: Vec<_> = found.iter().filter_map(|partition| partition["damage"].as_str()).collect();
    assert!(damages.len() == 1 && damages[0].contains(says), "{damages:?}");
    let codes: Vec<_> = found.iter().filter_map(|partition| partition["damage_code"].as_str()).collect();
    assert_eq!(codes, [code]);
    assert_eq!(bench.requests(), asked, "only a repair contacts the vendor");

    let repaired = bench.run(&["verify", "--repair", "--json"]).await.expect(0).partitions();
    assert_eq!(repaired.iter().filter(|partition| partition["repaired"] == true).count(), 1);
    assert_eq!(bench.requests(), asked + downloads);
    bench.run(&["verify"]).await.expect(0);
    bench.oracle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_objects_can_be_verified() {
    let bench = Bench::new(&[Series::campaign("Report test", 6)]).await;
    bench.sync(0).await;
    let verified = async |arguments: &[&str]| {
        bench.run(&[&["verify", "--json"], arguments].concat()).await.expect(0).partitions().len()
    };
    assert_eq!(verified(&["--since", &bench.newest.to_string()]).await, 1);
    assert_eq!((verified(&["--sample", "50%"]).await, verified(&["--sample", "100"]).await), (3, 6));
    for wrong in ["0%", "101%", "half"] {
        bench.run(&["verify", "--sample", wrong]).await.expect(2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_object_is_found_kept_aside_and_fetched_again() {
    let bench = harmed(|bench, key| fs::write(bench.object(key), "altered").unwrap()).await;
    is_found_and_repaired(&bench, "altered", "altered", 1).await;
    let kept = bench.kept_in("_quarantine");
    let is_kept = kept.iter().any(|key| fs::read(bench.object(key)).unwrap() == b"altered");
    assert!(is_kept, "the altered bytes are thrown away: {kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_died_before_it_moved_an_altered_object_is_finished_by_a_pass() {
    let alter = |bench: &Bench, key: &str| {
        let mut bytes = fs::read(bench.object(key)).unwrap();
        bytes[300] ^= 1;
        fs::write(bench.object(key), bytes).unwrap();
    };
    let bench = harmed(alter).await;
    let (series, date) = bench.due()[0];
    let altered = fs::read(bench.object(&series.key(date))).unwrap();
    let ctx = bench.context().await;
    let id = PartitionId { report: ReportId::new("acme", "report-test"), date };
    ctx.ledger.reopen_damaged(&id, "the object is altered").await.unwrap();
    ctx.ledger.close().await;
    bench.sync(0).await;
    bench.run(&["verify"]).await.expect(0);
    bench.oracle().await;
    let kept = bench.kept_in("_quarantine");
    assert!(kept.iter().any(|key| fs::read(bench.object(key)).unwrap() == altered), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_object_is_found_and_fetched_again() {
    let bench = harmed(|bench, key| fs::remove_file(bench.object(key)).unwrap()).await;
    is_found_and_repaired(&bench, "missing", "missing", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_manifest_is_found_and_written_again_without_a_download() {
    let bench = harmed(|bench, key| fs::remove_file(bench.object(&manifest_key(key))).unwrap()).await;
    is_found_and_repaired(&bench, "manifest", "manifest", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_at_a_destination_that_is_away_are_unreadable_not_missing() {
    let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
    bench.sync(0).await;
    let (folder, away) = (bench.path("reports"), bench.path("away"));
    fs::rename(&folder, &away).unwrap();
    let found = bench.run(&["verify", "--json"]).await.expect(1).partitions();
    let is_unreadable = |partition: &serde_json::Value| {
        partition["damage_code"] == "unreadable"
            && partition["damage"].as_str().unwrap().contains("reports: No such file")
    };
    assert!(found.len() == 2 && found.iter().all(is_unreadable), "{found:#?}");
    let requests = bench.requests();
    let refused = bench.run(&["verify", "--repair"]).await.expect(1).stderr.clone();
    assert!(refused.contains("its disk is not mounted") && !folder.exists(), "{refused}");
    assert_eq!(bench.requests(), requests);
    fs::rename(&away, &folder).unwrap();
    bench.run(&["verify"]).await.expect(0);
}

/// The keys of all objects of tables and their manifests, with their bytes.
fn tables(bench: &Bench) -> BTreeMap<String, Vec<u8>> {
    let keys = bench.kept_in("tables").into_iter();
    keys.map(|key| (key.clone(), fs::read(bench.object(&key)).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_cannot_be_read_fails_each_date_of_a_repair_once() {
    let bench = Bench::new(&[Series::campaign("Report test", 4)]).await;
    bench.write_config(&bench.config().replace("\ndestination = ", "\ntables = \"parquet\"\ndestination = "));
    bench.sync(0).await;
    for key in bench.kept_in("tables").iter().filter(|key| key.ends_with("_schema.json")) {
        fs::write(bench.object(key), "").unwrap();
    }
    let ran = bench.run(&["verify", "--repair"]).await.expect(1);
    assert_eq!(ran.stderr.matches("has no tables of this content").count(), 4, "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_tables_are_found_and_made_again_from_what_is_stored() {
    let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
    let config =
        bench.config().replace("\ndestination = \"disk\"\n", "\ndestination = \"disk\"\ntables = \"parquet\"\n");
    bench.write_config(&config);
    bench.sync(0).await;
    let whole = tables(&bench);
    let object = whole.keys().find(|key| key.ends_with(".parquet")).unwrap();
    let harms: [(&str, &dyn Fn()); 4] = [
        ("was altered", &|| fs::write(bench.object(object), "PAR1").unwrap()),
        ("is missing", &|| fs::remove_file(bench.object(object)).unwrap()),
        ("does not describe it", &|| fs::remove_file(bench.object(&manifest_key(object))).unwrap()),
        ("does not describe it", &|| fs::write(bench.object(&manifest_key(object)), "{]").unwrap()),
    ];
    for (says, harm) in harms {
        harm();
        is_found_and_repaired(&bench, "tables", says, 0).await;
        assert!(tables(&bench) == whole, "{says}");
    }
    // A schema is that of all dates.
    for key in whole.keys().filter(|key| key.ends_with("_schema.json")) {
        fs::remove_file(bench.object(key)).unwrap();
    }
    let found = bench.run(&["verify", "--json"]).await.expect(1).partitions();
    let says = |partition: &serde_json::Value| {
        partition["damage"].as_str().is_some_and(|it| it.contains("_schema.json` is missing"))
    };
    assert!(found.len() == 2 && found.iter().all(says), "{found:#?}");
    bench.run(&["verify", "--repair"]).await.expect(0);
    assert!(tables(&bench) == whole);
    // One that is there is never replaced.
    let schemas = || whole.keys().filter(|key| key.ends_with("_schema.json"));
    schemas().for_each(|key| fs::write(bench.object(key), "{").unwrap());
    for arguments in [&["verify"][..], &["verify", "--repair"], &["verify"]] {
        let damaged = bench.run(arguments).await.expect(1);
        assert!(damaged.stdout.contains("restore it from a copy"), "{arguments:?}: {}", damaged.stdout);
    }
    schemas().for_each(|key| fs::remove_file(bench.object(key)).unwrap());
    bench.run(&["verify"]).await.expect(1);
    bench.run(&["verify", "--repair"]).await.expect(0);
    assert!(tables(&bench) == whole);
    // With its archive altered, too: the tables are made of what is fetched again.
    let (series, date) = bench.due()[0];
    fs::write(bench.object(&series.key(date)), "altered").unwrap();
    for key in whole.keys().filter(|key| key.contains(&format!("date={date}"))) {
        fs::remove_file(bench.object(key)).unwrap();
    }
    is_found_and_repaired(&bench, "altered", "is missing", 1).await;
    assert!(tables(&bench) == whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_manifest_is_found_and_written_again_without_a_download() {
    let bench = harmed(|bench, key| fs::write(bench.object(&manifest_key(key)), "{]").unwrap()).await;
    is_found_and_repaired(&bench, "manifest", "manifest", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn altered_bytes_are_kept_even_if_the_report_cannot_be_fetched_again() {
    let bench = harmed(|bench, key| fs::write(bench.object(key), "altered").unwrap()).await;
    let (series, date) = bench.due()[0];
    bench.fault("not-yet");
    let ran = bench.run(&["verify", "--repair", "--json"]).await.expect(1);
    let damaged = ran.partitions().into_iter().find(|partition| partition["damage"].is_string()).unwrap();
    assert_eq!((&damaged["repaired"], &damaged["state"]), (&false.into(), &"pending".into()));
    assert!(!bench.object(&series.key(date)).exists());
    let kept = bench.kept_in("_quarantine");
    assert!(kept.iter().any(|key| fs::read(bench.object(key)).unwrap() == b"altered"), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_leaves_expired_partitions_unchanged() {
    // A year ago, for the binary.
    let bench = Bench::at("2025-11-21T12:00:00Z", &[Series::campaign("Report test", 1)]).await;
    bench.write_config(&bench.config().replace("every = \"day\"", &format!("once = \"{}\"", bench.newest)));
    let ctx = bench.context().await;
    assert!(sync::once(&ctx, &Selection::default(), std::future::pending()).await.unwrap().is_complete());
    ctx.ledger.close().await;
    let (series, date) = bench.due()[0];
    let (object, asked) = (bench.object(&series.key(date)), bench.requests());
    fs::write(&object, "altered").unwrap();
    let repair = async |damage: &str| {
        let before = bench.stored_files();
        let ran = bench.run(&["verify", "--repair", "--json"]).await.expect(1);
        let [damaged] = ran.partitions().try_into().unwrap();
        assert!(damaged["damage"].as_str().unwrap().contains(damage), "{damaged}");
        assert_eq!((&damaged["repaired"], &damaged["state"]), (&false.into(), &"stored".into()));
        assert!(bench.stored_files() == before, "the destination was changed");
        assert_eq!(bench.kept_in("_quarantine"), [""; 0]);
        assert_eq!(bench.requests(), asked, "what the vendor has deleted was asked for");
    };
    repair("altered").await;
    fs::remove_file(&object).unwrap();
    repair("missing").await;
}
