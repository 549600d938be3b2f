//! The manifest as a file: its fields, its size limit, the partition that it names.

use std::fs;

use jiff::civil::date;
use moesync::{
    report::{PartitionId, ReportId, manifest_key},
    store::Manifest,
};

use super::{Backend, KEY, VERSION_KEY, manifest, partition};

#[tokio::test]
async fn an_oversized_manifest_counts_as_none() {
    let backend = Backend::directory();
    let destination = backend.open("me");
    backend.put(&manifest_key(KEY), b"{").await;
    let file = fs::OpenOptions::new().write(true).open(backend.root().join(manifest_key(KEY))).unwrap();
    file.set_len(64 * 1024 * 1024 + 1).unwrap();
    assert_eq!(destination.manifest(KEY).await.unwrap(), None);
}

#[test]
fn a_manifest_has_the_documented_form() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let backend = Backend::directory();
    runtime.block_on(backend.open("me").put_manifest(&manifest(KEY))).unwrap();
    let text = fs::read_to_string(backend.root().join(manifest_key(KEY))).unwrap();
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
    fs::write(backend.root().join(manifest_key(KEY)), newer).unwrap();
    let read = runtime.block_on(backend.open("me").manifest(KEY)).unwrap().unwrap();
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
