//! The real binary with an S3 server: kills at each request, and credentials that must not be shown.

use std::{collections::BTreeSet, fs};

use axum::http::{Method, StatusCode};
use moesync::emulator::{Campaigns, DeliveryType};

use crate::support::{
    Bench, Daemon, Series,
    s3_server::{Fault, Server},
    wait_until,
};

/// Two parts of a multipart upload.
const LARGE: u64 = 6 * 1024 * 1024;

/// Empties the bucket, including unfinished uploads, and deletes the ledger.
fn begin_again(bench: &Bench, server: &Server) {
    for folder in fs::read_dir(server.bucket()).unwrap() {
        fs::remove_dir_all(folder.unwrap().path()).unwrap();
    }
    for upload in server.files(".upload") {
        fs::remove_file(server.root.path().join(upload)).unwrap();
    }
    let _ = fs::remove_dir_all(bench.path("ledger"));
}

/// A pass after a kill: everything is stored, and leftovers of the killed process are deleted.
async fn heals(bench: &Bench, server: &Server, died_at: &str) {
    server.be_silent_at(None);
    bench.sync(0).await;
    bench.check_stored_files().await;
    assert_eq!(bench.stored_files().len(), 2 * bench.due().len(), "{died_at}");
    assert_eq!(bench.kept_in("_staging"), [""; 0], "leftovers of {died_at}");
    assert_eq!(server.files(".upload_id-"), [""; 0], "parts of {died_at}");
    // An upload without a note has no part yet.
    assert!(kind(died_at) == "beginning" || server.files(".upload-").is_empty(), "an upload of {died_at}");
}

/// Kills a pass after each of its requests that change something, before the answer; returns those requests.
async fn deaths_at_each_change(bytes: u64) -> BTreeSet<&'static str> {
    let server = Server::start(false).await;
    let bench = Bench::on_s3(&server, &[Series::campaign("Report test", 1).bytes(bytes)]).await;
    bench.sync(0).await;
    let undisturbed = server.requests();
    let mut died_at = BTreeSet::new();
    for (number, _) in undisturbed.iter().enumerate().filter(|(_, request)| kind(request) != "look") {
        begin_again(&bench, &server);
        server.be_silent_at(Some(number));
        let syncing = Daemon::spawn(bench.command(&["sync"]));
        assert!(wait_until(async || server.is_silent() || syncing.has_ended()).await);
        assert!(!syncing.kill(&bench).await.success(), "it ended before request {number}");
        assert!(wait_until(async || server.is_idle()).await);
        let request = server.requests()[number].clone();
        bench.check_stored_files().await;
        heals(&bench, &server, &request).await;
        died_at.insert(kind(&request));
    }
    bench.oracle().await;
    died_at
}

/// The purpose of a request to the store.
fn kind(request: &str) -> &'static str {
    let (method, uri) = request.split_once(' ').unwrap();
    let is = |text: &str| uri.contains(text);
    match method {
        "PUT" if is("partNumber=") => "part",
        "PUT" if is(".multipart.json") => "note",
        "PUT" if is(".manifest.json") => "manifest",
        "PUT" if is("_staging") => "probe",
        "PUT" => "object",
        "POST" if is("uploads") => "beginning",
        "POST" if is("uploadId=") => "completion",
        "POST" | "DELETE" => "deletion",
        _ => "look",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_change_of_a_bucket_it_harms_nothing_and_leaves_nothing() {
    let (small, large) = tokio::join!(deaths_at_each_change(4096), deaths_at_each_change(LARGE));
    assert!(small.is_superset(&BTreeSet::from(["object", "manifest"])), "only at {small:?}");
    let steps = BTreeSet::from(["beginning", "note", "part", "completion", "deletion", "manifest"]);
    assert!(large.is_superset(&steps), "only at {large:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_repeatedly_over_s3_it_leaves_no_wrong_object_and_no_parts() {
    let server = Server::start(false).await;
    let campaigns = Campaigns { count: 10, delivery_types: vec![DeliveryType::EventTriggered], ..Campaigns::default() };
    let series = [Series::campaign("Report test", 1).bytes(LARGE), Series::dump(4)];
    let bench = Bench::on_s3_with_campaigns(&server, &series, campaigns).await;
    let listing = format!(
        "\n[[reports]]\nworkspace = \"acme\"\ndestination = \"disk\"\nschedule = {{ every = \"day\", at = \"{}\" }}\n\
         source = \"campaigns\"\nstart = \"{}\"\n",
        bench.generated_at_time(),
        bench.newest
    );
    bench.write_config(&(bench.config() + &listing));
    let is_listing_stored = || bench.stored_files().keys().any(|key| key.ends_with(".ndjson.gz"));
    for chain in 0..4 {
        begin_again(&bench, &server);
        // Each run continues from what the previous one left.
        for death in ["download", "object", "part", "listing"] {
            let (requests, written, stored_files) =
                (bench.requests(), server.requests().len(), bench.stored_files().len());
            bench.vendor.clear_faults();
            if death == "download" {
                bench.fault(&format!("stall,times=1,skip={chain}"));
            }
            let syncing = Daemon::spawn(bench.command(&["-vv", "sync"]));
            let has_come = || match death {
                "download" => bench.vendor.requests()[requests..].iter().any(|request| request.fault == Some("stall")),
                "object" => bench.stored_files().len() > stored_files,
                "part" => server.requests()[written..].iter().any(|request| kind(request) == "part"),
                _ => is_listing_stored(),
            };
            assert!(wait_until(async || has_come() || syncing.has_ended()).await, "{death}");
            let status = syncing.kill(&bench).await;
            assert!(death != "download" || status.code().is_none(), "it ended during a download");
            assert!(wait_until(async || server.is_idle()).await);
            bench.check_stored_files().await;
        }
        assert!(is_listing_stored());
    }
    bench.vendor.clear_faults();
    bench.sync(0).await;
    bench.oracle().await;
    assert_eq!(server.files(".upload_id-"), [""; 0], "parts were left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_ledger_a_sync_downloads_before_the_bucket_is_listed() {
    let server = Server::start(false).await;
    let bench = Bench::on_s3(&server, &[Series::campaign("Report test", 2), Series::dump(2)]).await;
    let (first, second) = bench.config().rsplit_once("[[reports]]").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    bench.write_config(&first);
    bench.sync(0).await;
    bench.write_config(&format!("{first}[[reports]]{second}"));
    let lists_stored_objects = |method: &Method, uri: &axum::http::Uri| {
        *method == Method::GET && uri.query().is_some_and(|query| query.contains("prefix=acme"))
    };
    for _ in 0..50 {
        server.next(lists_stored_objects, Fault::Refuse(StatusCode::SERVICE_UNAVAILABLE));
    }
    let ran = bench.run(&["-v", "--log-format", "json", "sync"]).await;
    let log = ran.stderr.clone();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("no `{text}` in\n{log}"));
    assert!(at("stored acme/dump") < at("could not list stored objects"), "{log}");
    ran.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_in_no_page_metric_or_log_over_s3() {
    let server = Server::start(false).await;
    let bench = Bench::on_s3(&server, &[Series::campaign("Report test", 1).bytes(LARGE), Series::dump(2)]).await;
    bench.write_config(&bench.config().replace("listen = \"\"", "listen = \"127.0.0.1:0\""));
    bench.fault("html,path=dailyCampaignReportDump");
    // object_store logs each request that it retries, with its URL.
    let part = |_: &Method, uri: &axum::http::Uri| uri.query().is_some_and(|query| query.contains("partNumber="));
    server.next(part, Fault::Refuse(StatusCode::INTERNAL_SERVER_ERROR));
    let daemon = Daemon::start(&bench).await;
    let is_settled = async || {
        let status = bench.status().await;
        let is = |field: &str, word: &str| status.iter().any(|partition| partition[field] == word);
        is("state", "stored") && is("outcome", "corrupt")
    };
    assert!(wait_until(is_settled).await, "{}", daemon.log().join("\n"));
    assert!(server.all_happened());
    bench.note_pages(&daemon.url()).await;
    let indiscreet: Vec<_> =
        daemon.log().into_iter().filter(|line| line.contains("\"target\":\"object_store")).collect();
    assert_eq!(indiscreet, [""; 0]);
    daemon.stop(&bench).await;
    // The same for the message about a store that refuses them.
    for _ in 0..50 {
        server.next(|_, _| true, Fault::Refuse(StatusCode::FORBIDDEN));
    }
    bench.run(&["-vv", "check", "--online"]).await.expect(1);
    bench.check_secrets();
}
