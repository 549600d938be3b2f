//! Reads an archive through the verifier in one forward pass and prints its entries, or why it is refused.
//!
//!     cargo run --example verify_archive -- Report_test_20261121.zip

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use moesync::archive::{ArchiveLimits, Pass, Verdict};
use tokio::{fs::File, io::AsyncReadExt as _};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).context("usage: verify_archive FILE")?;
    let mut file = File::open(&path).await.with_context(|| format!("open {path}"))?;
    let limits = ArchiveLimits { archive_bytes: 20 << 30, inflated_bytes: 200 << 30, inflate_ratio: 500 };
    let mut pass = Pass::start(limits);
    let mut chunk = BytesMut::with_capacity(64 * 1024);
    while file.read_buf(&mut chunk).await.with_context(|| format!("read {path}"))? > 0 {
        pass.feed(chunk.split().freeze()).await?;
        chunk.reserve(64 * 1024);
    }
    match pass.finish().await {
        Verdict::Verified(archive) => {
            println!("{} of {} bytes, sha256 {}", archive.format().as_str(), archive.size(), archive.sha256());
            for entry in archive.entries() {
                println!("{:>12}  {}", entry.size, entry.name);
            }
            for warning in archive.warnings() {
                println!("warning: {warning}");
            }
            Ok(())
        }
        Verdict::Rejected(rejected) => bail!("{path}: {}", rejected.message),
    }
}
