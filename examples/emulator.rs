//! The emulator as a test double for a loader of your own: fetches one archive from it, signed as MoEngage asks for.
//!
//!     cargo run --example emulator

use std::sync::Arc;

use jiff::{Timestamp, tz::TimeZone};
use moesync::{
    emulator::{self, Options},
    signature,
};
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let now: Timestamp = "2026-11-21T12:00:00Z".parse()?;
    let account = emulator::demo_account(TimeZone::UTC);
    let (app_id, secret_key) = (account.app_id.clone(), account.secret_key.clone());
    let options = Options { accounts: vec![account], seed: 1, faults: Vec::new(), clock: Arc::new(move || now) };
    let emulator = emulator::start(TcpListener::bind("127.0.0.1:0").await?, options)?;

    let file_name = "20261120.zip";
    let signature = signature::sign(&app_id, file_name, &secret_key);
    let mut url = emulator.url().join(&format!("dailyCampaignReportDump/{app_id}/{file_name}"))?;
    url.query_pairs_mut().append_pair("Signature", signature.expose_secret());
    let answer = reqwest::get(url).await?.error_for_status()?;
    println!("{} bytes of {file_name}", answer.bytes().await?.len());
    Ok(())
}
