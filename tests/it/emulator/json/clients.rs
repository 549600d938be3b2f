//! The emulator's command, and MoEngage's own Python client against its APIs.

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use moesync::{config::SourceKind, emulator::Traffic};
use tokio::{io::AsyncReadExt, process::Command};

use super::{
    super::{API_KEY, APP, account},
    Vendor,
};

#[tokio::test]
async fn the_command_names_what_it_serves() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moesync"));
    let elsewhere = tempfile::tempdir().unwrap();
    command.args(["emulate", "--listen", "127.0.0.1:0", "--campaigns", "3"]).kill_on_drop(true);
    command.current_dir(elsewhere.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut banner = String::new();
    let mut stdout = child.stdout.take().unwrap();
    while !banner.contains("executions") {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(30), stdout.read(&mut bytes)).await.unwrap().unwrap();
        assert_ne!(read, 0, "{banner}");
        banner += str::from_utf8(&bytes[..read]).unwrap();
    }
    for api in ["campaign_report ", "daily_dump ", "campaign_stats ", "campaigns ", "campaign_meta ", "executions "] {
        assert!(banner.contains(api), "{api} in {banner}");
    }
    // The line works as it is.
    let curl = banner.lines().find_map(|line| line.trim().strip_prefix("try ")).unwrap().trim();
    let folder = tempfile::tempdir().unwrap();
    let fetched = Command::new("sh").args(["-c", curl]).current_dir(folder.path()).output().await.unwrap();
    assert!(fetched.status.success(), "{curl}: {fetched:?}");
    for part in ["DEMO-APP-ID", "demo-api-key-of-no-account", "Daily - conversions"] {
        assert!(banner.contains(part), "{part}: {banner}");
    }
    child.kill().await.unwrap();
}

/// MoEngage's own client, at a known version.
const OFFICIAL_CLIENT: &str = "moengage-mcp-server==0.1.2";
/// Calls all functions of the client, and fails if one reports an error.
const OFFICIAL_CLIENT_ASKS: &str = r#"
import asyncio, sys
from datetime import date
from moengage_mcp import config
from moengage_mcp.client import MoEngageClient
from moengage_mcp.models import *

# The package has no setting for it.
config.DataCenter.api_base_url = property(lambda self: sys.argv[1].rstrip("/"))

async def main():
    settings = config.Settings(workspace_id=sys.argv[2], campaign_reports_api_key=sys.argv[3])
    client = MoEngageClient(settings)
    campaigns = []
    for page in range(1, 10):
        found = await client.search_campaigns(CampaignSearchRequest(limit=15, page=page))
        assert found.success, found.error_message
        campaigns += found.campaigns
        if len(found.campaigns) < 15: break
    assert len({c.campaign_id for c in campaigns}) == 40, len(campaigns)
    assert all(c.channel and c.created_by and c.created_at and c.basic_details.name for c in campaigns)
    for channel in CampaignChannel:
        for status in CampaignStatus:
            found = await client.search_campaigns(CampaignSearchRequest(
                channels=[channel], campaign_status=[status], delivery_type=list(CampaignDeliveryType)))
            assert found.success, found.error_message
    triggered = [c.campaign_id for c in campaigns if c.campaign_delivery_type == "EVENT_TRIGGERED"][-5:]
    for attribution in AttributionType:
        for metric in MetricType:
            stats = await client.get_campaign_stats(StatsRequest(
                campaign_ids=triggered, start_date=date(2020, 12, 1), end_date=date(2020, 12, 31),
                attribution_type=attribution, metric_type=metric))
            assert stats.success, stats.error_message
            assert [c.campaign_id for c in stats.campaigns] == triggered, stats
            assert all(c.all_variations.sent > 0 and c.all_variations.ctr > 0 for c in stats.campaigns), stats
    # A refusal is an error to the client.
    wrong = await MoEngageClient(config.Settings(workspace_id=sys.argv[2], campaign_reports_api_key="wrong")) \
        .search_campaigns(CampaignSearchRequest())
    assert not wrong.success and "Invalid workspace ID or API key" in wrong.error_message, wrong
    print(len(campaigns), len(triggered))

asyncio.run(main())
"#;

#[tokio::test]
async fn moengages_own_client_reads_statistics_and_searches() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(OFFICIAL_CLIENT);
    let python = folder.join("bin/python");
    if !folder.join("installed").exists() {
        let venv = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).await;
        assert!(venv.status.success(), "python3 -m venv is needed by this test (python3-venv): {venv:?}");
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "2"];
        let installed = run(Command::new(&python).args(pip).arg(OFFICIAL_CLIENT)).await;
        let error = String::from_utf8_lossy(&installed.stderr);
        assert!(
            installed.status.success(),
            "this test needs {OFFICIAL_CLIENT} from PyPI, once, and could not install it: {error}"
        );
        std::fs::write(folder.join("installed"), "").unwrap();
    }
    let vendor = Vendor::hasty(account(vec![])).await;
    let asked = run(Command::new(&python)
        .args(["-c", OFFICIAL_CLIENT_ASKS, vendor.emulator.url().as_str(), APP, API_KEY])
        .current_dir(&folder)
        .env_clear()
        .env("NO_PROXY", "*"))
    .await;
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    assert_eq!(String::from_utf8(asked.stdout).unwrap(), "40 5\n");
    assert_eq!(vendor.emulator.traffic(SourceKind::CampaignStats), Traffic { requests: 4, rate_limited: 0 });
}

async fn run(command: &mut Command) -> Output {
    let patience = Duration::from_secs(300);
    let output = tokio::time::timeout(patience, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    output
        .unwrap()
        .unwrap_or_else(|error| panic!("{:?} is needed by this test: {error}", command.as_std().get_program()))
}
