//! A directory as destination: devices, a full disk, leftovers, its URL.

use std::{collections::HashSet, fs};

use bytes::Bytes;
use moesync::store::{Budget, Commit, Destination, Route};
use tempfile::TempDir;

use super::{Backend, KEY, LARGE, SMALL, config_of, files, store, zip};
use crate::support::small_disk::SmallDisk;

#[tokio::test]
async fn a_check_tries_the_folders_that_reports_go_to() {
    let backend = Backend::directory();
    fs::create_dir_all(backend.root().join("acme")).unwrap();
    let _disk = SmallDisk::mount_at(backend.root().join("acme"), "4m");
    let destination = backend.open("me");
    assert!(destination.check().await.unwrap().refuses_overwrite);
    let prefixes = ["acme/daily".to_owned(), "other/daily".to_owned()];
    assert!(!destination.check_for(&prefixes).await.unwrap().refuses_overwrite, "no link leads to another device");
    backend.holds(0).await;
}

#[tokio::test]
async fn a_missing_directory_is_made_and_its_url_may_hold_spaces_and_escapes() {
    let parent = TempDir::new().unwrap();
    let root = parent.path().join("daily reports/año 100%");
    let destination = Destination::open(&config_of(&root), Budget::new(), "me").unwrap();
    assert!(!root.exists());
    destination.make_folder().unwrap();
    assert_eq!(store(&destination, KEY, &zip(1, SMALL)).await, Commit::Stored);
    assert!(root.join(KEY).is_file());
}

#[tokio::test]
async fn a_directory_that_was_there_and_is_gone_is_not_made_again() {
    let parent = TempDir::new().unwrap();
    let root = parent.path().join("disk");
    let destination = Destination::open(&config_of(&root), Budget::new(), "me").unwrap();
    // Its disk was away at the start.
    assert_eq!(store(&destination, KEY, &zip(1, SMALL)).await, Commit::Stored);
    fs::remove_dir_all(&root).unwrap();
    destination.check().await.unwrap_err();
    assert!(!root.exists());
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

    // An upload that fits succeeds afterwards.
    assert_eq!(store(&destination, KEY, &zip(1, SMALL)).await, Commit::Stored);
    assert_eq!(files(disk.path()), [KEY]);
}

#[tokio::test]
async fn a_leftover_copy_is_swept_and_foreign_files_beside_it_are_not() {
    let backend = Backend::directory();
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
        backend.put(key, bytes.as_bytes()).await;
    }
    backend.open("me").sweep(&HashSet::from(["dead".to_owned()])).await.unwrap();
    assert_eq!(backend.keys().await, ["_staging/alive/11.hidden", "acme/daily/.hidden-file", "acme/daily/x.zip"]);
}
