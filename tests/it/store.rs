//! Destinations: the contract of every kind, and the properties of each kind.
//!
//! To run the contract on a real S3, set `MOESYNC_TEST_S3_ENDPOINT` to its URL, `AWS_BUCKET` to an existing bucket, and
//! `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`. All objects are written below a folder `moesync-test/`.

mod contract;
mod directory;
mod endpoint;
mod manifests;
mod object_store;

use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::TryStreamExt;
use jiff::civil::date;
use moesync::{
    archive::{ArchiveLimits, Pass, Verdict, Verified},
    config::{self, SourceKind},
    report::{PartitionId, ReportId},
    store::{Budget, Commit, Destination, Manifest, ManifestEntry, ObjectFormat, Route, StoreError, Upload},
};
use tempfile::TempDir;

use self::endpoint::Endpoint;
use crate::support::{
    s3_server::{BUCKET, Server},
    small_disk::SmallDisk,
};

const KEY: &str = "acme/daily/date=2026-11-21/Report_test_20261121.zip";
const VERSION_KEY: &str = "acme/daily/_versions/date=2026-11-21/Report_test_20261121.3f9c2a71d0be.zip";
const SMALL: usize = 2_000;
const LARGE: usize = 12 * 1024 * 1024;

/// A destination whose contents the test can read and write.
enum Backend {
    Directory(TempDir),
    /// The second is mounted at `_staging/` of the first.
    TwoDevices(TempDir, #[expect(dead_code, reason = "held until the end")] SmallDisk),
    Server(Arc<Server>),
    Endpoint(Endpoint),
}

impl Backend {
    fn directory() -> Self {
        Backend::Directory(TempDir::new().unwrap())
    }

    fn two_devices() -> Self {
        let root = TempDir::new().unwrap();
        let staging = root.path().join("_staging");
        fs::create_dir(&staging).unwrap();
        let disk = SmallDisk::mount_at(staging, "128m");
        Backend::TwoDevices(root, disk)
    }

    fn server(server: Arc<Server>) -> Self {
        Backend::Server(server)
    }

    fn endpoint(mut endpoint: Endpoint) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (run, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        endpoint.folder = format!("moesync-test/{run}/{number}");
        Backend::Endpoint(endpoint)
    }

    fn open(&self, holder: &str) -> Destination {
        let config = match self {
            Backend::Directory(root) | Backend::TwoDevices(root, _) => config_of(root.path()),
            Backend::Server(server) => server.config(),
            Backend::Endpoint(endpoint) => endpoint.config(),
        };
        Destination::open(&config, Budget::new(), holder).unwrap()
    }

    /// The folder of the objects on this machine's disk.
    fn root(&self) -> PathBuf {
        match self {
            Backend::Directory(root) | Backend::TwoDevices(root, _) => root.path().to_owned(),
            Backend::Server(server) => server.root.path().join(BUCKET),
            Backend::Endpoint(_) => panic!("an endpoint is not on this disk"),
        }
    }

    /// `None` if it depends on the store.
    fn refuses_overwrite(&self) -> Option<bool> {
        match self {
            Backend::Directory(_) => Some(true),
            // No link leads to another device.
            Backend::TwoDevices(..) => Some(false),
            Backend::Server(server) => {
                Some(!server.ignores_if_none_match && !server.refuses_if_none_match.load(Ordering::Relaxed))
            }
            Backend::Endpoint(_) => None,
        }
    }

    async fn put(&self, key: &str, bytes: &[u8]) {
        if let Backend::Endpoint(endpoint) = self {
            endpoint.put(key, bytes).await;
        } else {
            let path = self.root().join(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    /// Every key, including staged ones.
    async fn keys(&self) -> Vec<String> {
        match self {
            Backend::Endpoint(endpoint) => endpoint.keys().await,
            _ => files(&self.root()),
        }
    }

    /// The number of multipart uploads or staged files.
    async fn unfinished(&self) -> usize {
        match self {
            Backend::Server(server) => server.files(".upload-").len(),
            _ => self.keys().await.iter().filter(|key| key.starts_with("_staging/")).count(),
        }
    }

    async fn parts_have_arrived(&self, uploads: usize) {
        if let Backend::Server(server) = self {
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
            Backend::Server(server) => server.files(".upload_id-"),
            _ => Vec::new(),
        }
    }

    /// As [`Backend::holds`], after cleaning up in the background.
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

fn config_of(root: &Path) -> config::DestinationSettings {
    config::DestinationSettings {
        name: "lake".to_owned(),
        location: config::Location::Directory(root.to_owned()),
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
    let limits = ArchiveLimits { archive_bytes: 1 << 30, inflated_bytes: 1 << 30, inflate_ratio: 500 };
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
