//! The contract of every destination, run on each kind: a directory, one with another device at `_staging/`, an S3 server,
//! the same server when it ignores or refuses `If-None-Match`, and a folder of a bucket.

use bytes::Bytes;
use futures::future::join_all;
use moesync::{
    report::manifest_key,
    store::{Commit, Destination, Route},
};

use super::{
    Backend, KEY, LARGE, SMALL, VERSION_KEY, endpoint::Endpoint, manifest, ours, partition, read, sha256, store,
    upload, verified, zip,
};
use crate::support::s3_server::Server;

/// Each promise becomes one test on each kind of destination.
macro_rules! contract {
    ($($promise:ident),* $(,)?) => {
        mod directory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(&super::Backend::directory()).await })*
        }
        mod two_devices {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(&super::Backend::two_devices()).await })*
        }
        mod s3 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(&super::Backend::server(super::Server::start(false).await)).await })*
        }
        mod s3_ignoring_conditions {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(&super::Backend::server(super::Server::start(true).await)).await })*
        }
        mod s3_refusing_conditions {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(&super::Backend::server(super::Server::without_conditions().await)).await })*
        }
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_folder_of_a_bucket_keeps_the_contract() {
            let server = Server::start(false).await;
            let endpoint = Endpoint::of_environment().unwrap_or_else(|| Endpoint::of(&server));
            $($promise(&Backend::endpoint(endpoint.clone())).await;)*
        }
    };
}

contract! {
    objects_of_any_size_are_read_as_written,
    the_first_content_stays_and_other_content_gets_its_own_key,
    the_same_content_again_is_found_to_be_there,
    an_upload_that_is_aborted_or_dropped_leaves_nothing,
    leftovers_of_a_dead_holder_are_swept_and_of_a_live_one_are_not,
    keys_may_hold_letters_of_any_script_and_equals_signs,
    a_manifest_is_read_as_written_and_a_newer_one_replaces_it,
    a_file_that_is_no_manifest_counts_as_none,
    manifests_are_listed_by_object_key_without_foreign_files,
    an_object_is_moved_aside_but_never_onto_another,
    of_eight_concurrent_commits_to_one_key_one_wins_whole,
    bytes_that_cannot_be_verified_are_kept_once,
    bytes_that_are_not_those_verified_are_refused,
    a_check_leaves_nothing_and_reports_whether_overwrites_are_refused,
}

async fn objects_of_any_size_are_read_as_written(backend: &Backend) {
    let destination = backend.open("me");
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
    backend.holds_only(&["a/direct.zip", "a/one-part.zip", "a/small.zip", "a/staged.zip"]).await;
}

async fn the_first_content_stays_and_other_content_gets_its_own_key(backend: &Backend) {
    let destination = backend.open("me");
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
    backend.holds(4).await;
}

async fn the_same_content_again_is_found_to_be_there(backend: &Backend) {
    let destination = backend.open("me");
    for (key, size) in [("small.zip", SMALL), ("large.zip", LARGE)] {
        let bytes = zip(1, size);
        assert_eq!(store(&destination, key, &bytes).await, Commit::Stored);
        assert_eq!(store(&destination, key, &bytes).await, Commit::AlreadyThere);
        let mut staged = upload(&destination, Route::Staged, &bytes).await;
        assert_eq!(staged.commit(&verified(&bytes).await, key, ours()).await.unwrap(), Commit::AlreadyThere);
    }
    backend.holds_only(&["large.zip", "small.zip"]).await;
}

async fn an_upload_that_is_aborted_or_dropped_leaves_nothing(backend: &Backend) {
    let destination = backend.open("me");
    for size in [SMALL, LARGE] {
        for placement in [Route::Direct(KEY), Route::Staged] {
            let bytes = zip(1, size);
            let aborted = upload(&destination, placement, &bytes).await;
            aborted.abort().await;
            backend.holds(0).await;
            let dropped = upload(&destination, placement, &bytes).await;
            drop(dropped);
            backend.comes_to_hold(0).await;
        }
    }
}

async fn leftovers_of_a_dead_holder_are_swept_and_of_a_live_one_are_not(backend: &Backend) {
    let bytes = zip(1, LARGE);
    let mut uploads = Vec::new();
    for holder in ["dead", "alive", "me"] {
        let destination = backend.open(holder);
        for placement in [Route::Direct(KEY), Route::Staged] {
            uploads.push((holder, upload(&destination, placement, &bytes).await));
        }
    }
    let (dead, living): (Vec<_>, Vec<_>) = uploads.into_iter().partition(|(holder, _)| *holder == "dead");
    backend.parts_have_arrived(6).await;
    // As a killed process leaves its uploads.
    dead.into_iter().for_each(std::mem::forget);

    let mut holders = backend.open("me").staged_holders().await.unwrap();
    assert!(holders.remove("alive") && !holders.contains("me"), "{holders:?}");
    assert_eq!(backend.open("me").sweep(&holders).await.unwrap(), 2);
    assert_eq!(backend.unfinished().await, 4);
    for (number, (_, mut upload)) in living.into_iter().enumerate() {
        let key = if number % 2 == 0 { KEY } else { VERSION_KEY };
        let commit = upload.commit(&verified(&bytes).await, key, ours()).await.unwrap();
        assert!(matches!(commit, Commit::Stored | Commit::AlreadyThere), "{commit:?}");
    }
    backend.holds_only(&[VERSION_KEY, KEY]).await;
}

async fn keys_may_hold_letters_of_any_script_and_equals_signs(backend: &Backend) {
    let destination = backend.open("me");
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
    let mut listed = described(&destination, prefix).await;
    listed.sort();
    keys.sort();
    assert_eq!(listed, keys);
}

async fn a_manifest_is_read_as_written_and_a_newer_one_replaces_it(backend: &Backend) {
    let destination = backend.open("me");
    assert_eq!(destination.manifest(KEY).await.unwrap(), None);
    let mut written = manifest(KEY);
    destination.put_manifest(&written).await.unwrap();
    assert_eq!(destination.manifest(KEY).await.unwrap().as_ref(), Some(&written));
    written.attempts = 7;
    destination.put_manifest(&written).await.unwrap();
    assert_eq!(destination.manifest(KEY).await.unwrap().as_ref(), Some(&written));
    backend.holds_only(&[&manifest_key(KEY)]).await;
}

async fn a_file_that_is_no_manifest_counts_as_none(backend: &Backend) {
    let destination = backend.open("me");
    for garbage in ["", "not JSON", "{\"format_version\": 1}", "[]"] {
        let key = format!("{}/{KEY}", garbage.len());
        backend.put(&manifest_key(&key), garbage.as_bytes()).await;
        assert_eq!(destination.manifest(&key).await.unwrap(), None, "{garbage:?}");
    }
}

async fn manifests_are_listed_by_object_key_without_foreign_files(backend: &Backend) {
    let destination = backend.open("me");
    for key in [KEY, VERSION_KEY, "acme/daily-other/date=2026-11-21/x.zip"] {
        destination.put_manifest(&manifest(key)).await.unwrap();
    }
    for foreign in [KEY, "acme/daily/README", "acme/daily/date=2026-11-21/_SUCCESS"] {
        backend.put(foreign, b"foreign").await;
    }
    let mut keys = described(&destination, "acme/daily").await;
    keys.sort();
    assert_eq!(keys, [VERSION_KEY, KEY]);
    assert!(described(&destination, "acme/none").await.is_empty());
    for listed in destination.described_objects("acme/daily").await.unwrap() {
        let (by_listing, by_key) = (destination.look_at(&listed).await, destination.look(&listed.key).await);
        assert_eq!(by_listing.unwrap().size, by_key.unwrap().size, "{}", listed.key);
    }
}

/// The keys of the objects that have manifests.
async fn described(destination: &Destination, prefix: &str) -> Vec<String> {
    let listed = destination.described_objects(prefix).await.unwrap();
    listed.into_iter().map(|listed| listed.key).collect()
}

async fn an_object_is_moved_aside_but_never_onto_another(backend: &Backend) {
    let destination = backend.open("me");
    let (first, second) = (zip(1, LARGE), zip(2, LARGE));
    store(&destination, KEY, &first).await;
    destination.move_if_absent(KEY, VERSION_KEY).await.unwrap();
    destination.move_if_absent(KEY, VERSION_KEY).await.expect("a move may be repeated");
    assert!(read(&destination, VERSION_KEY).await == first);
    backend.holds_only(&[VERSION_KEY]).await;

    store(&destination, KEY, &second).await;
    let error = destination.move_if_absent(KEY, VERSION_KEY).await.unwrap_err();
    assert!(error.to_string().contains("other content"), "{error}");
    assert!(read(&destination, VERSION_KEY).await == first);
    assert!(read(&destination, KEY).await == second);
    destination.move_if_absent("none.zip", "nowhere.zip").await.expect_err("there is nothing to move");
    backend.holds(2).await;
}

async fn of_eight_concurrent_commits_to_one_key_one_wins_whole(backend: &Backend) {
    let destination = backend.open("me");
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
    backend.comes_to_hold(2).await;
}

async fn bytes_that_cannot_be_verified_are_kept_once(backend: &Backend) {
    let destination = backend.open("me");
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
    backend.holds(2).await;
}

async fn bytes_that_are_not_those_verified_are_refused(backend: &Backend) {
    let destination = backend.open("me");
    let mut longer = upload(&destination, Route::Direct(KEY), &zip(1, LARGE)).await;
    longer.commit(&verified(&zip(1, SMALL)).await, KEY, ours()).await.expect_err("other bytes were verified");
    drop(longer);
    // Of the same length, on each way to a name; within the last part or well before it.
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
    backend.comes_to_hold(0).await;
}

async fn a_check_leaves_nothing_and_reports_whether_overwrites_are_refused(backend: &Backend) {
    let capabilities = backend.open("me").check().await.unwrap();
    if let Some(expected) = backend.refuses_overwrite() {
        assert_eq!(capabilities.refuses_overwrite, expected);
    }
    backend.holds(0).await;
}
