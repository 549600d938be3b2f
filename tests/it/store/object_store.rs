//! An object store as destination: failed requests, lost claims, the memory budget, missing permissions, certificates.

use std::{io::Write, path::Path, sync::Arc, time::Duration};

use axum::http::{Method, StatusCode};
use bytes::Bytes;
use futures::future::join_all;
use moesync::{
    config,
    store::{Budget, Commit, Destination, Route},
};

use super::{Backend, KEY, LARGE, SMALL, files, ours, read, store, upload, verified, zip};
use crate::{
    support::s3_server::{BUCKET, Fault, SECRET, Server, When},
    vendor::{self, server::Authority},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_any_failed_request_the_object_is_stored_once_and_whole() {
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
            let backend = Backend::server(Arc::clone(&server));
            let destination = backend.open("me");
            let bytes = zip(1, size);
            server.next(when, fault);
            let mut upload = upload(&destination, placement, &bytes).await;
            let commit = upload.commit(&verified(&bytes).await, KEY, ours()).await;
            let commit = commit.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(matches!(commit, Commit::Stored | Commit::AlreadyThere), "{name}: {commit:?}");
            assert!(server.all_happened(), "{name} did not happen");
            assert!(read(&destination, KEY).await == bytes, "{name}: the object differs");
            backend.holds_only(&[KEY]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_that_keeps_failing_leaves_neither_object_nor_parts() {
    let server = Server::start(false).await;
    let backend = Backend::server(Arc::clone(&server));
    let destination = backend.open("me");
    let bytes = zip(1, LARGE);
    server.next(
        |method, uri| method == Method::POST && uri.query().is_some_and(|query| query.contains("uploadId=")),
        Fault::ErrorInSuccess("EntityTooSmall"),
    );
    let mut upload = upload(&destination, Route::Direct(KEY), &bytes).await;
    upload.commit(&verified(&bytes).await, KEY, ours()).await.expect_err("200 with an error is a failure");
    backend.comes_to_hold(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_lost_writes_nothing_where_the_store_would_overwrite() {
    for (ignores, placement, size) in
        [(false, Route::Direct(KEY), LARGE), (false, Route::Staged, LARGE), (true, Route::Direct(KEY), SMALL)]
    {
        let backend = Backend::server(Server::start(ignores).await);
        let bytes = zip(1, size);
        let mut upload = upload(&backend.open("me"), placement, &bytes).await;
        let commit = upload.commit(&verified(&bytes).await, KEY, async { false }).await.unwrap();
        assert_eq!(commit, Commit::NotOurs);
        backend.holds(0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_uploads_than_the_memory_budget_holds_all_end() {
    let backend = Backend::server(Server::start(false).await);
    let destination = backend.open("me");
    let uploads = (0..8).map(|seed| {
        let destination = destination.clone();
        crate::support::spawn(async move {
            let bytes = zip(seed, 6 * 1024 * 1024);
            let key = format!("{seed}.zip");
            // Of unknown size, so that each reserves a whole part.
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
    backend.holds(8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_slow_uploads_do_not_delay_a_fifth() {
    let backend = Backend::server(Server::start(false).await);
    let destination = backend.open("me");
    // One byte each; then enough to leave less than a part.
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
async fn a_refusal_names_the_operation_and_no_secret() {
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
async fn a_redirect_of_a_store_fails_and_its_target_receives_nothing() {
    let elsewhere = vendor::server::Server::start(|_| vendor::server::answer("200 OK", "", b"other content")).await;
    let target: &'static str = format!("{}/object", elsewhere.url()).leak();
    for method in [Method::HEAD, Method::GET, Method::PUT] {
        let server = Server::start(false).await;
        let mut config = server.config();
        config.options.insert("aws_session_token".to_owned(), "canary-token".into());
        let destination = Destination::open(&config, Budget::new(), "me").unwrap();
        let when: When = match method {
            Method::HEAD => |method, _| *method == Method::HEAD,
            Method::GET => |method, _| *method == Method::GET,
            _ => |method, _| *method == Method::PUT,
        };
        server.next(when, Fault::Redirect(target));
        let error = match method {
            Method::HEAD => destination.size(KEY).await.unwrap_err(),
            Method::GET => destination.read(KEY).await.err().unwrap(),
            _ => destination.check().await.unwrap_err(),
        };
        assert!(server.all_happened() && error.to_string().contains("redirect"), "{error}");
    }
    assert_eq!(elsewhere.requests(), [""; 0]);
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
        let error = Backend::server(Arc::clone(&server)).open("me").check().await.unwrap_err().to_string();
        assert!(server.all_happened() && error.contains("s3:ListBucket"), "{error}");
        assert_eq!(files(&server.root.path().join(BUCKET)), Vec::<String>::new(), "the probe is not deleted");
    }
}

#[tokio::test]
async fn a_refusal_of_the_store_comes_with_advice() {
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
        let error = Backend::server(server).open("me").check().await.unwrap_err().to_string();
        assert!(error.contains(code) && error.contains(message) && error.contains(hint), "{error}");
    }
}

#[tokio::test]
async fn a_destination_trusts_the_configured_authority() {
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
        let location = format!("s3://{BUCKET}").parse().unwrap();
        config::DestinationSettings {
            name: "lake".to_owned(),
            location,
            options,
            fsync: true,
            ca_file,
            place: String::new(),
        }
    };
    let open = |ca_file| Destination::open(&config(ca_file), Budget::new(), "me");

    assert_eq!(open(Some(named(file.path()))).unwrap().size(KEY).await.unwrap(), None);
    let missing = open(Some(named(Path::new("/nowhere.pem")))).err().unwrap().to_string();
    assert!(missing.contains("network.ca_file: /nowhere.pem cannot be used"), "{missing}");
    let error = open(None).unwrap().size(KEY).await.unwrap_err().to_string();
    assert!(error.contains("name it in network.ca_file"), "{error}");
}

#[test]
fn an_invalid_destination_is_refused_with_the_reason() {
    let open = |url: &str, options: &[(&str, &str)]| {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let config = config::DestinationSettings {
            name: "lake".to_owned(),
            location: url.parse().unwrap(),
            options,
            fsync: true,
            ca_file: None,
            place: String::new(),
        };
        Destination::open(&config, Budget::new(), "me").err().expect("it is not understood").to_string()
    };
    assert!(open("s3://reports", &[("aws_colour", "blue")]).contains("aws_colour"));
    assert!(open("s3://reports/a//b", &[]).contains("a//b"));
    for url in ["ftp://reports", "file://host/reports", "s3://user:canary-password@reports"] {
        let error = url.parse::<config::Location>().unwrap_err().to_string();
        assert!(error.contains("expected") && !error.contains("canary"), "{url}: {error}");
    }
}
