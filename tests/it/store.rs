//! What a destination promises, tried on each kind: a directory, one with another device under `_staging/`, an S3 server in
//! this process, the same server when it ignores or refuses `If-None-Match`, and a folder of a bucket.
//!
//! To try the last on a real S3, set `MOESYNC_TEST_S3_ENDPOINT` to its URL, `AWS_BUCKET` to an existing bucket, and
//! `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`. Everything is written below a folder `moesync-test/`.

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::join_all};
use jiff::civil::date;
use moesync::{
    archive::{Limits, Pass, Verdict, Verified},
    config::{self, SourceKind},
    report::{PartitionId, ReportId, manifest_key},
    store::{Budget, Commit, Destination, Manifest, ManifestEntry, ObjectFormat, Route, StoreError, Upload},
};
use object_store::ObjectStore;
use s3s::{
    S3Request, S3Result,
    access::S3Access,
    auth::SimpleAuth,
    dto::PutObjectInput,
    service::{S3Service, S3ServiceBuilder},
};
use tempfile::TempDir;

use crate::vendor::{self, server::Authority};

const KEY: &str = "acme/daily/date=2026-11-21/Report_test_20261121.zip";
const VERSION_KEY: &str = "acme/daily/_versions/date=2026-11-21/Report_test_20261121.3f9c2a71d0be.zip";
pub const BUCKET: &str = "reports";
pub const KEY_ID: &str = "canary-access-key";
pub const SECRET: &str = "canary-secret-access-key";
const SMALL: usize = 2_000;
const LARGE: usize = 12 * 1024 * 1024;

/// Each promise becomes one test on each kind of destination.
macro_rules! contract {
    ($($promise:ident),* $(,)?) => {
        mod a_directory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(&super::Place::directory()).await })*
        }
        mod a_directory_with_another_device_under_staging {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(&super::Place::two_devices()).await })*
        }
        mod an_s3_server {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(&super::Place::server(super::Server::start(false).await)).await })*
        }
        mod an_s3_server_that_ignores_if_none_match {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(&super::Place::server(super::Server::start(true).await)).await })*
        }
        mod an_s3_server_that_refuses_if_none_match {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(&super::Place::server(super::Server::without_conditions().await)).await })*
        }
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_folder_of_a_bucket_keeps_the_contract() {
            let server = Server::start(false).await;
            let endpoint = Endpoint::of_environment().unwrap_or_else(|| Endpoint::of(&server));
            $($promise(&Place::endpoint(endpoint.clone())).await;)*
        }
    };
}

contract! {
    small_and_large_objects_come_back_as_they_went,
    the_first_content_stays_and_other_content_goes_to_a_key_of_its_own,
    the_same_content_again_is_found_to_be_there,
    an_upload_that_is_aborted_or_dropped_leaves_nothing,
    leftovers_of_a_dead_holder_are_swept_and_of_a_live_one_are_not,
    keys_may_hold_letters_of_any_script_and_equals_signs,
    a_manifest_comes_back_as_it_went_and_the_newer_one_replaces_the_older,
    a_file_that_is_no_manifest_counts_as_none,
    manifests_are_listed_by_the_keys_of_their_objects_and_foreign_files_are_not,
    an_object_is_moved_aside_but_never_onto_another,
    of_eight_contents_committed_to_one_key_at_once_one_wins_whole,
    bytes_that_cannot_be_verified_are_kept_once,
    bytes_that_are_not_those_verified_are_refused,
    a_check_leaves_nothing_and_tells_whether_the_store_refuses_to_overwrite,
}

async fn small_and_large_objects_come_back_as_they_went(place: &Place) {
    let destination = place.open("me");
    for (key, placement, size) in [
        ("a/small.zip", Route::Direct("a/small.zip"), SMALL),
        ("a/one-part.zip", Route::Direct("a/one-part.zip"), 5 * 1024 * 1024),
        ("a/direct.zip", Route::Direct("a/direct.zip"), LARGE),
        ("a/staged.zip", Route::Staged, LARGE),
    ] {
        let bytes = zip(1, size);
        let mut upload = upload(&destination, placement, &bytes).await;
        assert_eq!(upload.commit(&verified(&bytes).await, key, ours()).await.unwrap(), Commit::Stored, "{key}");
        assert_eq!(destination.size(key).await.unwrap(), Some(bytes.len() as u64), "{key}");
        assert!(read(&destination, key).await == bytes, "{key} differs from what was stored");
    }
    assert_eq!(destination.size("a/other.zip").await.unwrap(), None);
    assert!(destination.read("a/other.zip").await.unwrap().is_none());
    place.holds_only(&["a/direct.zip", "a/one-part.zip", "a/small.zip", "a/staged.zip"]).await;
}

async fn the_first_content_stays_and_other_content_goes_to_a_key_of_its_own(place: &Place) {
    let destination = place.open("me");
    for size in [SMALL, LARGE] {
        let (key, version_key) = (format!("{size}/{KEY}"), format!("{size}/{VERSION_KEY}"));
        let (first, second) = (zip(1, size), zip(2, size));
        assert_eq!(store(&destination, &key, &first).await, Commit::Stored);

        let proof = verified(&second).await;
        let mut direct = upload(&destination, Route::Direct(&key), &second).await;
        let commit = direct.commit(&proof, &key, ours()).await.unwrap();
        let Commit::Taken { kept } = commit else { panic!("{commit:?} although other content is there") };
        let mut kept = if kept { direct } else { upload(&destination, Route::Staged, &second).await };
        assert_eq!(kept.commit(&proof, &key, ours()).await.unwrap(), Commit::Taken { kept: true });
        assert_eq!(kept.commit(&proof, &version_key, ours()).await.unwrap(), Commit::Stored);

        assert!(read(&destination, &key).await == first, "the first content was overwritten");
        assert!(read(&destination, &version_key).await == second);
        kept.commit(&proof, &version_key, ours()).await.expect_err("an upload is over when it is stored");
    }
    place.holds(4).await;
}

async fn the_same_content_again_is_found_to_be_there(place: &Place) {
    let destination = place.open("me");
    for (key, size) in [("small.zip", SMALL), ("large.zip", LARGE)] {
        let bytes = zip(1, size);
        assert_eq!(store(&destination, key, &bytes).await, Commit::Stored);
        assert_eq!(store(&destination, key, &bytes).await, Commit::AlreadyThere);
        let mut staged = upload(&destination, Route::Staged, &bytes).await;
        assert_eq!(staged.commit(&verified(&bytes).await, key, ours()).await.unwrap(), Commit::AlreadyThere);
    }
    place.holds_only(&["large.zip", "small.zip"]).await;
}

async fn an_upload_that_is_aborted_or_dropped_leaves_nothing(place: &Place) {
    let destination = place.open("me");
    for size in [SMALL, LARGE] {
        for placement in [Route::Direct(KEY), Route::Staged] {
            let bytes = zip(1, size);
            // A part that is cut off while it is sent may still be written by the server after the abort.
            let parts = usize::from(size == LARGE);
            let aborted = upload(&destination, placement, &bytes).await;
            place.parts_have_arrived(parts).await;
            aborted.abort().await;
            place.holds(0).await;
            let dropped = upload(&destination, placement, &bytes).await;
            place.parts_have_arrived(parts).await;
            drop(dropped);
            place.comes_to_hold(0).await;
        }
    }
}

async fn leftovers_of_a_dead_holder_are_swept_and_of_a_live_one_are_not(place: &Place) {
    let bytes = zip(1, LARGE);
    let mut uploads = Vec::new();
    for holder in ["dead", "alive", "me"] {
        let destination = place.open(holder);
        for placement in [Route::Direct(KEY), Route::Staged] {
            uploads.push((holder, upload(&destination, placement, &bytes).await));
        }
    }
    let (dead, living): (Vec<_>, Vec<_>) = uploads.into_iter().partition(|(holder, _)| *holder == "dead");
    place.parts_have_arrived(6).await;
    // What a killed process does for its uploads.
    dead.into_iter().for_each(std::mem::forget);

    assert_eq!(place.open("me").sweep(|holder| holder == "alive").await.unwrap(), 2);
    assert_eq!(place.unfinished().await, 4);
    for (number, (_, mut upload)) in living.into_iter().enumerate() {
        let key = if number % 2 == 0 { KEY } else { VERSION_KEY };
        let commit = upload.commit(&verified(&bytes).await, key, ours()).await.unwrap();
        assert!(matches!(commit, Commit::Stored | Commit::AlreadyThere), "{commit:?}");
    }
    place.holds_only(&[VERSION_KEY, KEY]).await;
}

async fn keys_may_hold_letters_of_any_script_and_equals_signs(place: &Place) {
    let destination = place.open("me");
    let prefix = "acmé/relatório_日報";
    let mut keys = Vec::new();
    for file in ["Año_nuevo_20261121.zip", "日報_20261121.zip", "Отчёт_20261121.zip"] {
        let key = format!("{prefix}/date=2026-11-21/{file}");
        let bytes = zip(1, SMALL);
        assert_eq!(store(&destination, &key, &bytes).await, Commit::Stored, "{key}");
        assert!(read(&destination, &key).await == bytes, "{key}");
        destination.put_manifest(&manifest(&key)).await.unwrap();
        assert!(destination.manifest(&key).await.unwrap().unwrap().names(&partition(), &key));
        keys.push(key);
    }
    let mut listed = destination.manifest_keys(prefix).await.unwrap();
    listed.sort();
    keys.sort();
    assert_eq!(listed, keys);
}

async fn a_manifest_comes_back_as_it_went_and_the_newer_one_replaces_the_older(place: &Place) {
    let destination = place.open("me");
    assert_eq!(destination.manifest(KEY).await.unwrap(), None);
    let mut written = manifest(KEY);
    destination.put_manifest(&written).await.unwrap();
    assert_eq!(destination.manifest(KEY).await.unwrap().as_ref(), Some(&written));
    written.attempts = 7;
    destination.put_manifest(&written).await.unwrap();
    assert_eq!(destination.manifest(KEY).await.unwrap().as_ref(), Some(&written));
    place.holds_only(&[&manifest_key(KEY)]).await;
}

async fn a_file_that_is_no_manifest_counts_as_none(place: &Place) {
    let destination = place.open("me");
    for garbage in ["", "not JSON", "{\"format_version\": 1}", "[]"] {
        let key = format!("{}/{KEY}", garbage.len());
        place.put(&manifest_key(&key), garbage.as_bytes()).await;
        assert_eq!(destination.manifest(&key).await.unwrap(), None, "{garbage:?}");
    }
}

async fn manifests_are_listed_by_the_keys_of_their_objects_and_foreign_files_are_not(place: &Place) {
    let destination = place.open("me");
    for key in [KEY, VERSION_KEY, "acme/daily-other/date=2026-11-21/x.zip"] {
        destination.put_manifest(&manifest(key)).await.unwrap();
    }
    for foreign in [KEY, "acme/daily/README", "acme/daily/date=2026-11-21/_SUCCESS"] {
        place.put(foreign, b"foreign").await;
    }
    let mut keys = destination.manifest_keys("acme/daily").await.unwrap();
    keys.sort();
    assert_eq!(keys, [VERSION_KEY, KEY]);
    assert!(destination.manifest_keys("acme/none").await.unwrap().is_empty());
}

async fn an_object_is_moved_aside_but_never_onto_another(place: &Place) {
    let destination = place.open("me");
    let (first, second) = (zip(1, LARGE), zip(2, LARGE));
    store(&destination, KEY, &first).await;
    destination.move_if_absent(KEY, VERSION_KEY).await.unwrap();
    destination.move_if_absent(KEY, VERSION_KEY).await.expect("a move may be repeated");
    assert!(read(&destination, VERSION_KEY).await == first);
    place.holds_only(&[VERSION_KEY]).await;

    store(&destination, KEY, &second).await;
    let error = destination.move_if_absent(KEY, VERSION_KEY).await.unwrap_err();
    assert!(error.to_string().contains("other content"), "{error}");
    assert!(read(&destination, VERSION_KEY).await == first);
    assert!(read(&destination, KEY).await == second);
    destination.move_if_absent("none.zip", "nowhere.zip").await.expect_err("there is nothing to move");
    place.holds(2).await;
}

async fn of_eight_contents_committed_to_one_key_at_once_one_wins_whole(place: &Place) {
    let destination = place.open("me");
    for size in [SMALL, 6 * 1024 * 1024] {
        let key = format!("{size}.zip");
        let contents: Vec<Bytes> = (0..8).map(|seed| zip(seed, size)).collect();
        let commits = contents.iter().map(|bytes| {
            let (destination, key, bytes) = (destination.clone(), key.clone(), bytes.clone());
            crate::support::spawn(async move { store(&destination, &key, &bytes).await })
        });
        let commits: Vec<Commit> = join_all(commits).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<usize> = (0..8).filter(|at| commits[*at] == Commit::Stored).collect();
        assert_eq!(winners.len(), 1, "{commits:?}");
        assert_eq!(commits.iter().filter(|commit| matches!(commit, Commit::Taken { .. })).count(), 7, "{commits:?}");
        assert!(read(&destination, &key).await == contents[winners[0]], "the winner's content is not whole");
    }
    place.comes_to_hold(2).await;
}

async fn bytes_that_cannot_be_verified_are_kept_once(place: &Place) {
    let destination = place.open("me");
    for size in [SMALL, LARGE] {
        let key = format!("_quarantine/{size}/Report_test_20261121.3f9c2a71d0be.zip");
        let bytes = Bytes::from(vec![7; size]);
        let proof = sha256(&bytes);
        let first = upload(&destination, Route::Staged, &bytes).await;
        assert_eq!(first.quarantine(&proof, &key).await.unwrap(), Commit::Stored);
        let second = upload(&destination, Route::Staged, &bytes).await;
        assert_eq!(second.quarantine(&proof, &key).await.unwrap(), Commit::AlreadyThere);
        assert!(read(&destination, &key).await == bytes);
    }
    place.holds(2).await;
}

async fn bytes_that_are_not_those_verified_are_refused(place: &Place) {
    let destination = place.open("me");
    let mut longer = upload(&destination, Route::Direct(KEY), &zip(1, LARGE)).await;
    longer.commit(&verified(&zip(1, SMALL)).await, KEY, ours()).await.expect_err("other bytes were verified");
    drop(longer);
    // Of the same length, whichever way they are to get a name; to the last part or well before it.
    for size in [SMALL, LARGE] {
        let (bytes, proof) = (zip(1, size), verified(&zip(2, size)).await);
        assert_eq!(bytes.len() as u64, proof.size());
        let mut other = upload(&destination, Route::Direct(KEY), &bytes).await;
        let error = other.commit(&proof, KEY, ours()).await.expect_err("other bytes were verified");
        assert!(error.to_string().contains(proof.sha256()), "{error}");
        other.commit(&verified(&bytes).await, KEY, ours()).await.expect_err("an upload is over when it is refused");
        drop(other);
        let other = upload(&destination, Route::Staged, &bytes).await;
        other.replace(&proof, KEY).await.expect_err("other bytes were verified");
        let other = upload(&destination, Route::Staged, &bytes).await;
        other.quarantine(proof.sha256(), "_quarantine/a").await.expect_err("other bytes have that hash");
    }
    let mut upload = destination.stage(Route::Direct(KEY), Some(3)).unwrap();
    upload.write(Bytes::from_static(b"abcd")).await.expect_err("more bytes than announced");
    drop(upload);
    place.comes_to_hold(0).await;
}

async fn a_check_leaves_nothing_and_tells_whether_the_store_refuses_to_overwrite(place: &Place) {
    let capabilities = place.open("me").check().await.unwrap();
    if let Some(expected) = place.refuses_overwrite() {
        assert_eq!(capabilities.refuses_overwrite, expected);
    }
    place.holds(0).await;
}

// What only a directory can show.

#[tokio::test]
async fn a_check_tries_the_folders_that_reports_go_to() {
    let place = Place::directory();
    fs::create_dir_all(place.root().join("acme")).unwrap();
    let _disk = SmallDisk::mount_at(place.root().join("acme"), "4m");
    let destination = place.open("me");
    assert!(destination.check().await.unwrap().refuses_overwrite);
    let prefixes = ["acme/daily".to_owned(), "other/daily".to_owned()];
    assert!(!destination.check_for(&prefixes).await.unwrap().refuses_overwrite, "no link leads to another device");
    place.holds(0).await;
}

#[tokio::test]
async fn a_missing_directory_is_made_and_its_url_may_hold_spaces_and_escapes() {
    let parent = TempDir::new().unwrap();
    let root = parent.path().join("daily reports/año 100%");
    let destination = Destination::open(&config_of(&root), Budget::new(), "me").unwrap();
    assert_eq!(store(&destination, KEY, &zip(1, SMALL)).await, Commit::Stored);
    assert!(root.join(KEY).is_file());
}

#[tokio::test]
async fn an_oversized_manifest_counts_as_none() {
    let place = Place::directory();
    let destination = place.open("me");
    place.put(&manifest_key(KEY), b"{").await;
    let file = fs::OpenOptions::new().write(true).open(place.root().join(manifest_key(KEY))).unwrap();
    file.set_len(64 * 1024 * 1024 + 1).unwrap();
    assert_eq!(destination.manifest(KEY).await.unwrap(), None);
}

#[tokio::test]
async fn a_full_disk_is_an_error_that_says_so_and_leaves_nothing() {
    let disk = SmallDisk::mount();
    let destination = Destination::open(&config_of(disk.path()), Budget::new(), "me").unwrap();
    let bytes = zip(1, LARGE);
    let mut upload = destination.stage(Route::Direct(KEY), Some(bytes.len() as u64)).unwrap();
    let mut failure = None;
    for chunk in bytes.chunks(64 * 1024) {
        if let Err(error) = upload.write(Bytes::copy_from_slice(chunk)).await {
            failure = Some(error);
            break;
        }
    }
    let error = failure.expect("4 MiB of disk cannot take 12 MiB").to_string();
    assert!(error.contains("No space left on device") && error.contains("make room"), "{error}");
    upload.abort().await;
    assert_eq!(files(disk.path()), Vec::<String>::new());

    // What was full a moment ago takes what fits.
    assert_eq!(store(&destination, KEY, &zip(1, SMALL)).await, Commit::Stored);
    assert_eq!(files(disk.path()), [KEY]);
}

#[tokio::test]
async fn a_copy_left_beside_its_target_is_swept_and_nothing_that_others_have_there() {
    let place = Place::directory();
    for (key, bytes) in [
        ("acme/daily/.moesync-dead-7", "half a copy"),
        ("acme/daily/.hidden-file", "foreign"),
        ("acme/daily/x.zip", "an object"),
        ("_staging/dead/7.hidden", "acme/daily/.moesync-dead-7"),
        ("_staging/dead/8.hidden", "acme/daily/.moesync-dead-8"),
        ("_staging/dead/9.hidden", "acme/daily/x.zip"),
        ("_staging/dead/10.hidden", "../../acme/.moesync-dead-10"),
        ("_staging/alive/11.hidden", "acme/daily/.hidden-file"),
    ] {
        place.put(key, bytes.as_bytes()).await;
    }
    place.open("me").sweep(|holder| holder == "alive").await.unwrap();
    assert_eq!(place.keys().await, ["_staging/alive/11.hidden", "acme/daily/.hidden-file", "acme/daily/x.zip"]);
}

#[test]
fn a_manifest_is_written_as_the_design_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let place = Place::directory();
    runtime.block_on(place.open("me").put_manifest(&manifest(KEY))).unwrap();
    let text = fs::read_to_string(place.root().join(manifest_key(KEY))).unwrap();
    insta::assert_snapshot!(text, @r#"
    {
      "format_version": 1,
      "workspace": "acme",
      "report": "daily",
      "source": "campaign_report",
      "date": "2026-11-21",
      "key": "acme/daily/date=2026-11-21/Report_test_20261121.zip",
      "file_name": "Report_test_20261121.zip",
      "format": "zip",
      "size": 1234,
      "sha256": "3f9c2a71d0be3f9c2a71d0be3f9c2a71d0be3f9c2a71d0be3f9c2a71d0be3f9c",
      "content_type": "application/zip",
      "entries": [
        {
          "name": "../report.csv",
          "size": 5678,
          "crc32": "00abcdef"
        }
      ],
      "records": null,
      "pages": null,
      "requests": null,
      "window": null,
      "generated_at": "2026-11-21T04:00:00Z",
      "due_at": "2026-11-21T04:30:00Z",
      "fetched_at": "2026-11-21T04:31:07.25Z",
      "expires_at": "2026-11-28T04:00:00Z",
      "attempts": 2,
      "source_url": "https://api-01.moengage.com/campaign_reports/rest_api/ID/Report_test_20261121.zip",
      "warnings": [
        "entry `../report.csv` leads out of its folder"
      ],
      "moesync_version": "0.1.0"
    }
    "#);
    assert!(text.ends_with("}\n"));

    let newer = text.replace("\"format_version\": 1", "\"format_version\": 2, \"colour\": \"blue\"");
    fs::write(place.root().join(manifest_key(KEY)), newer).unwrap();
    let read = runtime.block_on(place.open("me").manifest(KEY)).unwrap().unwrap();
    assert_eq!(read, Manifest { format_version: 2, ..manifest(KEY) });
}

#[test]
fn a_manifest_names_one_partition_at_one_key() {
    let manifest = manifest(KEY);
    assert!(manifest.names(&partition(), KEY));
    assert!(!manifest.names(&partition(), VERSION_KEY));
    assert!(!manifest.names(&PartitionId { date: date(2026, 11, 22), ..partition() }, KEY));
    assert!(!manifest.names(&PartitionId { report: ReportId::new("acme", "weekly"), ..partition() }, KEY));
    assert!(!manifest.names(&PartitionId { report: ReportId::new("other", "daily"), ..partition() }, KEY));
}

// What only an object store can show.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_store_fails_with_the_object_is_there_once_and_whole() {
    let put: When = |method, uri| method == Method::PUT && uri.path().ends_with(".zip");
    let part: When = |_, uri| uri.query().is_some_and(|query| query.contains("partNumber="));
    let complete: When =
        |method, uri| method == Method::POST && uri.query().is_some_and(|query| query.contains("uploadId="));
    let begin: When =
        |method, uri| method == Method::POST && uri.query().is_some_and(|query| query.contains("uploads"));
    let scripts = [
        ("500 to a put", SMALL, put, Fault::Refuse(StatusCode::INTERNAL_SERVER_ERROR)),
        ("503 to a put", SMALL, put, Fault::Refuse(StatusCode::SERVICE_UNAVAILABLE)),
        ("reply to a put lost", SMALL, put, Fault::LoseReply),
        ("500 to a put that was done", SMALL, put, Fault::DoAndRefuse(StatusCode::INTERNAL_SERVER_ERROR)),
        ("500 to a beginning", LARGE, begin, Fault::Refuse(StatusCode::INTERNAL_SERVER_ERROR)),
        ("503 to a part", LARGE, part, Fault::Refuse(StatusCode::SERVICE_UNAVAILABLE)),
        ("reply to a part lost", LARGE, part, Fault::LoseReply),
        ("500 to a completion", LARGE, complete, Fault::Refuse(StatusCode::INTERNAL_SERVER_ERROR)),
        ("reply to a completion lost", LARGE, complete, Fault::LoseReply),
        ("200 with an error to a completion", LARGE, complete, Fault::ErrorInSuccess("InternalError")),
    ];
    for (name, size, when, fault) in scripts {
        for placement in [Route::Direct(KEY), Route::Staged] {
            let server = Server::start(false).await;
            let place = Place::server(Arc::clone(&server));
            let destination = place.open("me");
            let bytes = zip(1, size);
            server.next(when, fault);
            let mut upload = upload(&destination, placement, &bytes).await;
            let commit = upload.commit(&verified(&bytes).await, KEY, ours()).await;
            let commit = commit.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(matches!(commit, Commit::Stored | Commit::AlreadyThere), "{name}: {commit:?}");
            assert!(server.all_happened(), "{name} did not happen");
            assert!(read(&destination, KEY).await == bytes, "{name}: the object differs");
            place.holds_only(&[KEY]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_that_fails_for_good_leaves_neither_object_nor_parts() {
    let server = Server::start(false).await;
    let place = Place::server(Arc::clone(&server));
    let destination = place.open("me");
    let bytes = zip(1, LARGE);
    server.next(
        |method, uri| method == Method::POST && uri.query().is_some_and(|query| query.contains("uploadId=")),
        Fault::ErrorInSuccess("EntityTooSmall"),
    );
    let mut upload = upload(&destination, Route::Direct(KEY), &bytes).await;
    upload.commit(&verified(&bytes).await, KEY, ours()).await.expect_err("200 with an error is a failure");
    place.comes_to_hold(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_lost_writes_nothing_where_the_store_would_overwrite() {
    for (ignores, placement, size) in
        [(false, Route::Direct(KEY), LARGE), (false, Route::Staged, LARGE), (true, Route::Direct(KEY), SMALL)]
    {
        let place = Place::server(Server::start(ignores).await);
        let bytes = zip(1, size);
        let mut upload = upload(&place.open("me"), placement, &bytes).await;
        let commit = upload.commit(&verified(&bytes).await, KEY, async { false }).await.unwrap();
        assert_eq!(commit, Commit::NotOurs);
        place.holds(0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_uploads_than_the_memory_budget_holds_all_end() {
    let place = Place::server(Server::start(false).await);
    let destination = place.open("me");
    let uploads = (0..8).map(|seed| {
        let destination = destination.clone();
        crate::support::spawn(async move {
            let bytes = zip(seed, 6 * 1024 * 1024);
            let key = format!("{seed}.zip");
            // Unknown in size, so that each takes the whole of a part.
            let mut upload = destination.stage(Route::Staged, None).unwrap();
            for chunk in bytes.chunks(64 * 1024) {
                upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
            }
            upload.commit(&verified(&bytes).await, &key, ours()).await.unwrap()
        })
    });
    let commits =
        tokio::time::timeout(Duration::from_secs(300), join_all(uploads)).await.expect("no upload waits forever");
    assert!(commits.into_iter().all(|commit| commit.unwrap() == Commit::Stored));
    place.holds(8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_uploads_that_crawl_do_not_delay_a_fifth() {
    let place = Place::server(Server::start(false).await);
    let destination = place.open("me");
    // One byte each; then so much that they leave less than a part.
    for held in [1, 7 * 1024 * 1024 / 2] {
        let mut crawling = Vec::new();
        for _ in 0..4 {
            let mut upload = destination.stage(Route::Staged, None).unwrap();
            upload.write(Bytes::from(vec![7; held])).await.unwrap();
            crawling.push(upload);
        }
        let bytes = zip(held as u64, LARGE);
        let storing = async {
            let mut upload = destination.stage(Route::Staged, None).unwrap();
            for chunk in bytes.chunks(64 * 1024) {
                upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
            }
            upload.commit(&verified(&bytes).await, &format!("{held}.zip"), ours()).await.unwrap()
        };
        let stored =
            tokio::time::timeout(Duration::from_secs(60), storing).await.expect("the fifth waits for the four");
        assert_eq!(stored, Commit::Stored);
    }
}

#[tokio::test]
async fn a_refusal_names_what_was_done_and_no_secret() {
    let server = Server::start(false).await;
    let mut config = server.config();
    config.options.insert("secret_access_key".to_owned(), "another-canary-key".into());
    let destination = Destination::open(&config, Budget::new(), "me").unwrap();
    let error = destination.size(KEY).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("could not look at") && text.contains(KEY) && text.contains("credentials"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn where_nothing_may_be_deleted_reports_are_stored_and_one_probe_stays() {
    let server = Server::start(false).await;
    for _ in 0..20 {
        server.next(
            |method, uri| method == Method::DELETE || uri.query().is_some_and(|query| query.starts_with("delete")),
            Fault::Refuse(StatusCode::FORBIDDEN),
        );
    }
    let destination = Destination::open(&server.config(), Budget::new(), "me").unwrap();
    for key in ["a.zip", "b.zip"] {
        assert_eq!(store(&destination, key, &zip(1, SMALL)).await, Commit::Stored);
    }
    let capabilities = destination.check().await.unwrap();
    assert!(capabilities.refuses_overwrite && !capabilities.deletes);
    let staged = server.root.path().join(BUCKET).join("_staging");
    assert_eq!(crate::support::files(&staged).len(), 1);
}

#[tokio::test]
async fn a_check_notices_that_listing_is_not_allowed_and_names_the_permission() {
    let missing: When = |method, uri| method == Method::HEAD && uri.path().ends_with("/none");
    let listing: When = |_, uri| uri.query().is_some_and(|query| query.contains("list-type=2"));
    for when in [missing, listing] {
        let server = Server::start(false).await;
        server.next(when, Fault::RefuseSaying(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied"));
        let error = Place::server(Arc::clone(&server)).open("me").check().await.unwrap_err().to_string();
        assert!(server.all_happened() && error.contains("s3:ListBucket"), "{error}");
        assert_eq!(files(&server.root.path().join(BUCKET)), Vec::<String>::new(), "the probe is deleted all the same");
    }
}

#[tokio::test]
async fn what_a_store_refuses_for_comes_with_what_to_do() {
    for (status, code, message, hint) in [
        (
            StatusCode::BAD_REQUEST,
            "InvalidRequest",
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters",
            "options = { checksum_algorithm = \"sha256\" }",
        ),
        (
            StatusCode::FORBIDDEN,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            "clock (`timedatectl`)",
        ),
        (StatusCode::BAD_REQUEST, "ExpiredToken", "The provided token has expired.", "renew them"),
    ] {
        let server = Server::start(false).await;
        server.next(|method, _| method == Method::PUT, Fault::RefuseSaying(status, code, message));
        let error = Place::server(server).open("me").check().await.unwrap_err().to_string();
        assert!(error.contains(code) && error.contains(message) && error.contains(hint), "{error}");
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_at_a_destination_too() {
    let authority = Authority::new();
    let server =
        vendor::server::Server::tls(authority.acceptor(), |_| vendor::server::answer("404 Not Found", "", b"")).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(authority.pem.as_bytes()).unwrap();
    let named =
        |path: &Path| config::NamedFile { path: path.to_owned(), place: "moesync.toml:9: network.ca_file".to_owned() };
    let config = |ca_file| {
        let options = [
            ("aws_endpoint", server.url()),
            ("aws_access_key_id", "canary-access-key".to_owned()),
            ("aws_secret_access_key", SECRET.to_owned()),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value.into())).into();
        let url = format!("s3://{BUCKET}").parse().unwrap();
        config::Destination { name: "lake".to_owned(), url, options, fsync: true, ca_file, place: String::new() }
    };
    let open = |ca_file| Destination::open(&config(ca_file), Budget::new(), "me");

    assert_eq!(open(Some(named(file.path()))).unwrap().size(KEY).await.unwrap(), None);
    let missing = open(Some(named(Path::new("/nowhere.pem")))).err().unwrap().to_string();
    assert!(missing.contains("network.ca_file: /nowhere.pem cannot be used"), "{missing}");
    let error = open(None).unwrap().size(KEY).await.unwrap_err().to_string();
    assert!(error.contains("name it in network.ca_file"), "{error}");
}

#[test]
fn a_destination_that_is_not_understood_is_refused_with_the_reason() {
    let open = |url: &str, options: &[(&str, &str)]| {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let config = config::Destination {
            name: "lake".to_owned(),
            url: url.parse().unwrap(),
            options,
            fsync: true,
            ca_file: None,
            place: String::new(),
        };
        Destination::open(&config, Budget::new(), "me").err().expect("it is not understood").to_string()
    };
    assert!(open("s3://reports", &[("aws_colour", "blue")]).contains("aws_colour"));
    assert!(open("ftp://reports", &[]).contains("`ftp://` is not one of"));
    assert!(open("file://host/reports", &[]).contains("absolute path"));
    assert!(!open("s3://user:canary-password@reports", &[]).contains("canary"));
}

// Helpers.

/// A destination that can be looked into.
enum Place {
    Directory(TempDir),
    /// The second is mounted at `_staging/` of the first.
    TwoDevices(TempDir, #[expect(dead_code, reason = "held until the end")] SmallDisk),
    Server(Arc<Server>),
    Endpoint(Endpoint),
}

impl Place {
    fn directory() -> Self {
        Place::Directory(TempDir::new().unwrap())
    }

    fn two_devices() -> Self {
        let root = TempDir::new().unwrap();
        let staging = root.path().join("_staging");
        fs::create_dir(&staging).unwrap();
        let disk = SmallDisk::mount_at(staging, "128m");
        Place::TwoDevices(root, disk)
    }

    fn server(server: Arc<Server>) -> Self {
        Place::Server(server)
    }

    fn endpoint(mut endpoint: Endpoint) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (run, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        endpoint.folder = format!("moesync-test/{run}/{number}");
        Place::Endpoint(endpoint)
    }

    fn open(&self, holder: &str) -> Destination {
        let config = match self {
            Place::Directory(root) | Place::TwoDevices(root, _) => config_of(root.path()),
            Place::Server(server) => server.config(),
            Place::Endpoint(endpoint) => endpoint.config(),
        };
        Destination::open(&config, Budget::new(), holder).unwrap()
    }

    /// Where the objects are on this machine's disk.
    fn root(&self) -> PathBuf {
        match self {
            Place::Directory(root) | Place::TwoDevices(root, _) => root.path().to_owned(),
            Place::Server(server) => server.root.path().join(BUCKET),
            Place::Endpoint(_) => panic!("an endpoint is not on this disk"),
        }
    }

    /// `None` where that is for the store to say.
    fn refuses_overwrite(&self) -> Option<bool> {
        match self {
            Place::Directory(_) => Some(true),
            // No link leads to another device.
            Place::TwoDevices(..) => Some(false),
            Place::Server(server) => {
                Some(!server.ignores_if_none_match && !server.refuses_if_none_match.load(Ordering::Relaxed))
            }
            Place::Endpoint(_) => None,
        }
    }

    async fn put(&self, key: &str, bytes: &[u8]) {
        if let Place::Endpoint(endpoint) = self {
            endpoint.put(key, bytes).await;
        } else {
            let path = self.root().join(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    /// Every key, staged ones included.
    async fn keys(&self) -> Vec<String> {
        match self {
            Place::Endpoint(endpoint) => endpoint.keys().await,
            _ => files(&self.root()),
        }
    }

    /// How many multipart uploads or staged files there are.
    async fn unfinished(&self) -> usize {
        match self {
            Place::Server(server) => server.files(".upload-").len(),
            _ => self.keys().await.iter().filter(|key| key.starts_with("_staging/")).count(),
        }
    }

    async fn parts_have_arrived(&self, uploads: usize) {
        if let Place::Server(server) = self {
            eventually(async || server.files(".upload_id-").len() == uploads * 2).await;
        }
    }

    async fn holds_only(&self, expected: &[&str]) {
        let mut expected: Vec<&str> = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(self.keys().await, expected);
        assert_eq!(self.unfinished().await, 0, "multipart uploads were left behind");
        self.has_no_parts();
    }

    async fn holds(&self, count: usize) {
        let keys = self.keys().await;
        assert!(keys.len() == count && !keys.iter().any(|key| key.starts_with("_staging/")), "{keys:?}");
        assert_eq!(self.unfinished().await, 0, "multipart uploads were left behind");
        self.has_no_parts();
    }

    fn has_no_parts(&self) {
        assert_eq!(self.parts(), Vec::<String>::new(), "parts were left behind");
    }

    fn parts(&self) -> Vec<String> {
        match self {
            Place::Server(server) => server.files(".upload_id-"),
            _ => Vec::new(),
        }
    }

    /// For what is cleaned up in the background.
    async fn comes_to_hold(&self, count: usize) {
        eventually(async || {
            self.keys().await.len() == count && self.unfinished().await == 0 && self.parts().is_empty()
        })
        .await;
        self.holds(count).await;
    }
}

async fn eventually(condition: impl AsyncFn() -> bool) {
    let met = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), met).await.expect("it comes to pass");
}

fn config_of(root: &Path) -> config::Destination {
    let url = url::Url::from_directory_path(root).unwrap();
    config::Destination {
        name: "lake".to_owned(),
        url,
        options: BTreeMap::new(),
        fsync: true,
        ca_file: None,
        place: String::new(),
    }
}

fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// A file system of its own, gone when dropped.
pub struct SmallDisk {
    path: PathBuf,
    directory: Option<TempDir>,
}

impl SmallDisk {
    /// One of 4 MiB.
    pub fn mount() -> Self {
        let directory = TempDir::new().unwrap();
        let mut disk = Self::mount_at(directory.path().to_owned(), "4m");
        disk.directory = Some(directory);
        disk
    }

    pub fn mount_at(path: PathBuf, size: &str) -> Self {
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&path)
            .output()
            .expect("the tests need `mount` (Debian package `mount`)");
        let refusal = String::from_utf8_lossy(&mount.stderr);
        assert!(mount.status.success(), "a small disk is needed, run the tests as root or in `unshare -rm`: {refusal}");
        SmallDisk { path, directory: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all the room that is left. Remove the file to make room.
    pub fn fill(&self) -> PathBuf {
        let filler = self.path.join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a process of a test that failed may still use it.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.path).status();
        drop(self.directory.take());
    }
}

/// An S3 server in this process, which fails when told to.
pub struct Server {
    pub root: TempDir,
    pub url: String,
    ignores_if_none_match: bool,
    /// Whether a condition is answered "invalid argument".
    refuses_if_none_match: AtomicBool,
    service: S3Service,
    faults: Mutex<Vec<(When, Fault)>>,
    silence: Silence,
}

/// A server that falls silent at one request, and what it counts for that.
#[derive(Default)]
struct Silence {
    /// The number, from 0, of the request that is done and gets no answer.
    at: Mutex<Option<usize>>,
    /// All requests since the number was set, as `PUT /reports/key?query`.
    requests: Mutex<Vec<String>>,
    has_come: AtomicBool,
    /// Requests under way, but for the one without an answer.
    working: AtomicUsize,
}

/// Which request meets a fault.
pub type When = fn(&Method, &Uri) -> bool;

#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The request is not done.
    Refuse(StatusCode),
    /// The request is done, the answer says it isn't.
    DoAndRefuse(StatusCode),
    /// The request is done and the connection closed without an answer.
    LoseReply,
    /// The request is not done, for the reason with this code and message.
    RefuseSaying(StatusCode, &'static str, &'static str),
    /// The request is not done; the answer is a 200 with this error in its body.
    ErrorInSuccess(&'static str),
}

impl Server {
    pub async fn start(ignores_if_none_match: bool) -> Arc<Self> {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        if ignores_if_none_match {
            service.set_access(IgnoreIfNoneMatch);
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (service, faults) = (service.build(), Mutex::default());
        let (silence, refuses_if_none_match) = (Silence::default(), AtomicBool::new(false));
        let server = Server { root, url, ignores_if_none_match, refuses_if_none_match, service, faults, silence };
        let server = Arc::new(server);
        let router = Router::new().fallback(answer).with_state(Arc::clone(&server));
        crate::support::spawn(async { axum::serve(listener, router).await });
        server
    }

    async fn without_conditions() -> Arc<Self> {
        let server = Self::start(false).await;
        server.refuses_if_none_match.store(true, Ordering::Relaxed);
        server
    }

    /// The next request that fits meets `fault`.
    pub fn next(&self, when: When, fault: Fault) {
        self.faults.lock().unwrap().push((when, fault));
    }

    pub fn all_happened(&self) -> bool {
        self.faults.lock().unwrap().is_empty()
    }

    fn config(&self) -> config::Destination {
        let options = [
            ("aws_endpoint", self.url.as_str()),
            ("aws_region", "us-east-1"),
            ("aws_access_key_id", KEY_ID),
            ("aws_secret_access_key", SECRET),
            ("allow_http", "true"),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value.into())).into();
        let url = format!("s3://{BUCKET}").parse().unwrap();
        config::Destination { name: "lake".to_owned(), url, options, fsync: true, ca_file: None, place: String::new() }
    }

    /// Counts requests from 0 again; the one with this number is done and gets no answer.
    pub fn be_silent_at(&self, number: Option<usize>) {
        self.silence.requests.lock().unwrap().clear();
        self.silence.has_come.store(false, Ordering::SeqCst);
        *self.silence.at.lock().unwrap() = number;
    }

    /// Whether the request that gets no answer was done.
    pub fn is_silent(&self) -> bool {
        self.silence.has_come.load(Ordering::SeqCst)
    }

    /// Whether no request is under way.
    pub fn is_idle(&self) -> bool {
        self.silence.working.load(Ordering::SeqCst) == 0
    }

    /// What was asked for since [`Server::be_silent_at`], as `PUT /reports/key?query`.
    pub fn requests(&self) -> Vec<String> {
        self.silence.requests.lock().unwrap().clone()
    }

    /// Where the bucket is on this machine's disk.
    pub fn bucket(&self) -> PathBuf {
        self.root.path().join(BUCKET)
    }

    /// Whether this names a multipart upload that is over. S3 says that there is none, the server here that it is denied.
    fn knows_nothing_of(&self, uri: &Uri) -> bool {
        let upload = uri.query().and_then(|query| query.split('&').find_map(|part| part.strip_prefix("uploadId=")));
        upload.is_some_and(|id| self.files(".upload-").iter().all(|name| !name.contains(id)))
    }

    /// The server's own files that begin so: uploads and parts.
    pub fn files(&self, beginning: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(beginning)).collect()
    }
}

/// Counts a request for as long as it is worked on, its client gone or not.
struct Working(Arc<Server>);

impl Working {
    fn on(server: &Arc<Server>) -> Self {
        server.silence.working.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(server))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.silence.working.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let number = {
        let mut requests = server.silence.requests.lock().unwrap();
        requests.push(format!("{} {}", request.method(), request.uri()));
        requests.len() - 1
    };
    let is_silent = *server.silence.at.lock().unwrap() == Some(number);
    let working = Working::on(&server);
    let fault = {
        let mut faults = server.faults.lock().unwrap();
        let due = faults.iter().position(|(when, _)| when(request.method(), request.uri()));
        due.map(|at| faults.remove(at).1)
    };
    let serve = async |request: Request| {
        let answer = server.service.call(request.map(s3s::Body::http_body_unsync)).await.unwrap();
        answer.map(Body::new)
    };
    let error = |code: &str| {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>As scripted.</Message></Error>")
    };
    // A server reads a request before it answers.
    let drained = async |request: Request| {
        request.into_body().into_data_stream().for_each(|_| async {}).await;
    };
    if is_silent {
        drop(serve(request).await);
        drop(working);
        server.silence.has_come.store(true, Ordering::SeqCst);
        return std::future::pending().await;
    }
    if request.method() == Method::DELETE && server.knows_nothing_of(request.uri()) {
        return (StatusCode::NOT_FOUND, error("NoSuchUpload")).into_response();
    }
    if server.refuses_if_none_match.load(Ordering::Relaxed) && request.headers().contains_key("if-none-match") {
        drained(request).await;
        return (StatusCode::BAD_REQUEST, error("InvalidArgument")).into_response();
    }
    match fault {
        None => serve(request).await,
        Some(Fault::RefuseSaying(status, code, message)) => {
            drained(request).await;
            (status, error(code).replace("As scripted.", message)).into_response()
        }
        Some(Fault::Refuse(status)) => {
            drained(request).await;
            (status, error("SlowDown")).into_response()
        }
        Some(Fault::DoAndRefuse(status)) => {
            serve(request).await;
            (status, error("InternalError")).into_response()
        }
        Some(Fault::LoseReply) => {
            serve(request).await.into_body().into_data_stream().for_each(|_| async {}).await;
            // Ends the connection's task, quietly.
            std::panic::resume_unwind(Box::new("the reply is lost"))
        }
        Some(Fault::ErrorInSuccess(code)) => {
            drained(request).await;
            (StatusCode::OK, error(code)).into_response()
        }
    }
}

struct IgnoreIfNoneMatch;

type Access<'a> = Pin<Box<dyn Future<Output = S3Result<()>> + Send + 'a>>;

impl S3Access for IgnoreIfNoneMatch {
    fn put_object<'a, 'b, 'c>(&'a self, request: &'b mut S3Request<PutObjectInput>) -> Access<'c>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        request.input.if_none_match = None;
        Box::pin(async { Ok(()) })
    }
}

/// A folder of a bucket, of which only the outside is seen.
#[derive(Clone)]
struct Endpoint {
    url: String,
    bucket: String,
    folder: String,
    /// Id and secret of the key; else they come from the environment, with the region, as in production.
    key: Option<(&'static str, &'static str)>,
}

impl Endpoint {
    fn of_environment() -> Option<Self> {
        let url = std::env::var("MOESYNC_TEST_S3_ENDPOINT").ok()?;
        let bucket = std::env::var("AWS_BUCKET").expect("AWS_BUCKET names the bucket to test in");
        Some(Endpoint { url, bucket, folder: String::new(), key: None })
    }

    /// For where the environment names none.
    fn of(server: &Server) -> Self {
        let (url, bucket) = (server.url.clone(), BUCKET.to_owned());
        Endpoint { url, bucket, folder: String::new(), key: Some((KEY_ID, SECRET)) }
    }

    fn config(&self) -> config::Destination {
        let mut options = vec![("aws_endpoint", self.url.as_str()), ("allow_http", "true")];
        if let Some((id, secret)) = self.key {
            options.extend([("aws_region", "us-east-1"), ("aws_access_key_id", id), ("aws_secret_access_key", secret)]);
        }
        let options = options.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let url = format!("s3://{}/{}", self.bucket, self.folder).parse().unwrap();
        config::Destination { name: "lake".to_owned(), url, options, fsync: true, ca_file: None, place: String::new() }
    }

    fn store(&self) -> object_store::prefix::PrefixStore<object_store::aws::AmazonS3> {
        let mut store = object_store::aws::AmazonS3Builder::from_env()
            .with_endpoint(&self.url)
            .with_allow_http(true)
            .with_bucket_name(&self.bucket);
        if let Some((id, secret)) = self.key {
            store = store.with_region("us-east-1").with_access_key_id(id).with_secret_access_key(secret);
        }
        object_store::prefix::PrefixStore::new(store.build().unwrap(), self.folder.as_str())
    }

    async fn put(&self, key: &str, bytes: &[u8]) {
        let key = object_store::path::Path::parse(key).unwrap();
        self.store().put_opts(&key, bytes.to_vec().into(), object_store::PutOptions::default()).await.unwrap();
    }

    async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> =
            self.store().list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
        keys.sort();
        keys
    }
}

/// An archive of about `size` bytes that no other seed gives.
fn zip(seed: u64, size: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut noise = Vec::with_capacity(size + 8);
    while noise.len() < size.saturating_sub(150) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(size.saturating_sub(150));
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("report.csv", stored).unwrap();
    archive.write_all(&noise).unwrap();
    archive.finish().unwrap().into_inner().into()
}

async fn verified(bytes: &Bytes) -> Verified {
    let limits = Limits { archive_bytes: 1 << 30, inflated_bytes: 1 << 30, inflate_ratio: 500 };
    let mut pass = Pass::start(limits);
    for chunk in bytes.chunks(64 * 1024) {
        pass.feed(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    match pass.finish().await {
        Verdict::Verified(verified) => verified,
        Verdict::Rejected(_) => panic!("the archive is whole"),
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(bytes))
}

async fn ours() -> bool {
    true
}

async fn upload_of(destination: &Destination, placement: Route<'_>, bytes: &Bytes) -> Result<Upload, StoreError> {
    let mut upload = destination.stage(placement, Some(bytes.len() as u64))?;
    for chunk in bytes.chunks(64 * 1024) {
        upload.write(Bytes::copy_from_slice(chunk)).await?;
    }
    Ok(upload)
}

async fn upload(destination: &Destination, placement: Route<'_>, bytes: &Bytes) -> Upload {
    upload_of(destination, placement, bytes).await.unwrap()
}

async fn store(destination: &Destination, key: &str, bytes: &Bytes) -> Commit {
    let mut upload = upload(destination, Route::Direct(key), bytes).await;
    upload.commit(&verified(bytes).await, key, ours()).await.unwrap()
}

async fn read(destination: &Destination, key: &str) -> Bytes {
    let chunks: Vec<Bytes> = destination.read(key).await.unwrap().expect("it is there").try_collect().await.unwrap();
    chunks.concat().into()
}

fn partition() -> PartitionId {
    PartitionId { report: ReportId::new("acme", "daily"), date: date(2026, 11, 21) }
}

fn manifest(key: &str) -> Manifest {
    Manifest {
        format_version: Manifest::FORMAT_VERSION,
        workspace: "acme".to_owned(),
        report: "daily".to_owned(),
        source: SourceKind::CampaignReport,
        date: date(2026, 11, 21),
        key: key.to_owned(),
        file_name: "Report_test_20261121.zip".to_owned(),
        format: ObjectFormat::Zip,
        size: 1234,
        sha256: "3f9c2a71d0be".repeat(5) + "3f9c",
        content_type: Some("application/zip".to_owned()),
        entries: Some(vec![ManifestEntry { name: "../report.csv".to_owned(), size: 5678, crc32: Some(0x00ab_cdef) }]),
        records: None,
        pages: None,
        requests: None,
        window: None,
        generated_at: "2026-11-21T04:00:00Z".parse().unwrap(),
        due_at: "2026-11-21T04:30:00Z".parse().unwrap(),
        fetched_at: Some("2026-11-21T04:31:07.25Z".parse().unwrap()),
        expires_at: Some("2026-11-28T04:00:00Z".parse().unwrap()),
        attempts: 2,
        source_url: Some(
            "https://api-01.moengage.com/campaign_reports/rest_api/ID/Report_test_20261121.zip".to_owned(),
        ),
        warnings: vec!["entry `../report.csv` leads out of its folder".to_owned()],
        moesync_version: "0.1.0".to_owned(),
    }
}
