//! The pages in a real browser. With UPDATE_IMAGES=1 its screenshots are written to docs/images/.

use std::fs;

use jiff::{SignedDuration, ToSpan as _};
use moesync::{
    ledger::Claimed,
    outcome::{Attempt, Evidence, Failure, Outcome, StoredObject, Success},
    partition::{Entry, Settled},
    plan::Plan,
    sync,
};

use super::{Served, root, with_web};
use crate::support::{Bench, Browser, Series, wait_until};

/// The page's policy forbids nothing that it needs, and no script fails.
async fn assert_no_complaints(browser: &Browser) {
    assert_eq!(browser.complaints().await, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_at_risk_shows_its_history_and_becomes_stored_on_recovery() {
    let bench = Bench::new(&[Series::campaign("Report test", 7), Series::dump(3)]).await;
    let (_, endangered) = bench.due()[0];
    let file = bench.series[0].file_name(endangered);
    bench.fault(&format!("status=503,path={file}"));
    let served = Served::start(&bench).await;
    let browser = Browser::start().await;
    browser.open(&served.url).await;

    // It is found.
    let found = async || browser.text(".danger").await.contains(&endangered.to_string());
    assert!(wait_until(found).await, "{}", browser.text("main").await);
    assert!(browser.text("h1").await.contains("1 partition is in danger."));
    assert!(browser.text(".danger").await.contains("left"));

    // Its history is opened.
    browser.click(".danger").await;
    let row = format!("details[data-key='{endangered}']");
    assert!(
        wait_until(async || browser.evaluate(&format!("document.querySelector(\"{row}\")?.open")).await == true).await
    );
    let history = browser.text(&row).await;
    assert!(history.contains("unavailable") && history.contains("503"), "{history}");

    // The page is not reloaded: a value set in this window must still be there.
    browser.evaluate("window.noted = true").await;
    bench.vendor.clear_faults();
    bench.sync(0).await;
    let stored = async || browser.text(&format!("{row} .state")).await == "stored";
    assert!(wait_until(stored).await, "{}", browser.text(&row).await);
    assert_eq!(browser.evaluate("window.noted").await, true);
    assert_eq!(browser.evaluate(&format!("document.querySelector(\"{row}\").open")).await, true, "it was closed");
    browser.click(".brand").await;
    assert!(wait_until(async || browser.text("h1").await == "Every report that is due is stored.").await);
    assert_no_complaints(&browser).await;

    // Without an answer, the page reports that its data may be stale.
    served.daemon.stop(&bench).await;
    assert!(wait_until(async || browser.text(".stale").await.contains("may be stale")).await);
}

/// A ledger with a month of several reports, for which the emulator serves nothing.
async fn month(bench: &Bench) {
    let url = bench.vendor.url();
    let workspace = |name: &str, zone: &str| {
        format!(
            "\n[[workspaces]]\nname = \"{name}\"\napp_id = \"{name}\"\nbase_url = \"{url}\"\ntimezone = \"{zone}\"\n\
             secret_key_file = \"{}\"\n",
            bench.path("secret-key").display()
        )
    };
    let report = |workspace: &str, id: &str, source: &str, schedule: &str| {
        format!(
            "\n[[reports]]\nworkspace = \"{workspace}\"\nid = \"{id}\"\nname = \"{id}\"\nsource = \"{source}\"\n\
             schedule = {{ {schedule} }}\n"
        )
    };
    let daily = "every = \"day\", at = \"00:20\"";
    let head = with_web(bench, "listen = \"127.0.0.1:0\"");
    let destination = head.split("[[destinations]]").nth(1).unwrap().split("[[").next().unwrap();
    let text = [
        head.split("[[workspaces]]").next().unwrap(),
        &workspace("acme", "Europe/Berlin"),
        &workspace("acme-india", "Asia/Kolkata"),
        "\n[[destinations]]",
        destination,
        &report("acme", "campaigns", "campaign_report", daily),
        &report("acme", "conversions", "campaign_report", daily),
        &report("acme", "weekly-summary", "campaign_report", "every = \"week\", on = \"monday\", at = \"07:00\""),
        &report("acme", "dump", "daily_dump", daily),
        &report("acme-india", "push-performance", "campaign_report", daily),
        &report("acme-india", "month-end", "campaign_report", "every = \"month\", on = \"last\", at = \"23:50\""),
    ]
    .concat();
    bench.write_config(&text);
    let ctx = bench.context().await;
    let now = ctx.clock.now();
    for report in &ctx.config.reports {
        let from = now - SignedDuration::from_hours(24 * 45);
        let occurrences = moesync::schedule::after(&report.schedule, &report.timezone, from);
        for occurrence in occurrences.take_while(|occurrence| occurrence.generated_at <= now) {
            let partition = report.partition(occurrence);
            let ago = (occurrence.date.until(now.to_zoned(report.timezone.clone()).date()).unwrap()).get_days();
            let plan = Plan {
                new: vec![Entry::new(partition.clone())],
                planned_through: vec![(report.id.clone(), now)],
                ..Plan::default()
            };
            let view = ctx.view(&ctx.ledger, now).await.unwrap();
            ctx.ledger.extend(&plan, &view).await.unwrap();
            let fate = match (report.id.name(), ago) {
                ("conversions", 13) => Settled::Lost,
                ("conversions", 6) | ("campaigns", 0) | ("push-performance", 0..=1) => Settled::Open,
                ("dump", 21) => Settled::Absent,
                _ => Settled::Stored,
            };
            let Ok(Claimed::Ours(claim)) = ctx.ledger.claim(&Entry::new(partition.clone())).await else {
                panic!("{}", partition.id)
            };
            let size = 400_000 + u64::from(ago.unsigned_abs()) * 7_919 % 300_000;
            let (attempt, after) = lived(&ctx, &claim.entry, fate, size);
            ctx.ledger.record(&claim, &attempt, &after, None).await.unwrap();
        }
    }
    ctx.ledger.close().await;
}

/// An attempt at `entry` with the result `fate`, and the entry after it.
fn lived(ctx: &sync::Context, entry: &Entry, fate: Settled, size: u64) -> (Attempt, Entry) {
    let now = ctx.clock.now();
    let (date, due, id) = (entry.partition.id.date, entry.partition.due_at, entry.partition.id.report.name());
    let (outcome, status, message) = match (fate, id) {
        (Settled::Stored, _) => (Outcome::Stored, 200, ""),
        (Settled::Lost, _) => (Outcome::NotPublished, 404, "MoEngage does not have it any more (HTTP 404)"),
        (_, "conversions") => {
            (Outcome::Corrupt, 200, "the archive ends in the middle of `conversions_2.csv`: 48234 of 61882 bytes")
        }
        (_, "push-performance") => (Outcome::Unauthorized, 401, "MoEngage refuses the signature (HTTP 401)"),
        _ => (Outcome::NotPublished, 400, "not generated yet (HTTP 400)"),
    };
    let is_open = fate == Settled::Open;
    let finished_at = if is_open { now - SignedDuration::from_mins(7) } else { due + SignedDuration::from_secs(3) };
    let key = format!("acme/{id}/date={date}/{id}_{}.zip", date.strftime("%Y%m%d"));
    let sha256 = "9f2c71d0be3a8855a1c06fe4d7724b1e".repeat(2);
    let evidence =
        Evidence { http_status: Some(status), vendor_date: Some(finished_at), seen: true, ..Evidence::default() };
    let object = StoredObject { key, size, sha256, stored_at: finished_at };
    let result = match fate {
        Settled::Stored => Ok(Success { object: object.clone(), remark: None, message: String::new(), evidence }),
        _ => Err(Failure::after(&evidence, outcome, message.to_owned())),
    };
    let attempt = Attempt { started_at: finished_at - SignedDuration::from_millis(640), finished_at, result };
    let after = Entry {
        settled: fate,
        outcome: Some(outcome),
        attempts: 1,
        streak: 7,
        repeats: 7,
        last_attempt_at: Some(finished_at),
        // The ledger does not change while the picture is taken.
        next_attempt_at: is_open.then_some(now + SignedDuration::from_mins(53)),
        seen: true,
        message: Some(message.to_owned()).filter(|message| !message.is_empty()),
        object: (fate == Settled::Stored).then_some(object),
        ..entry.clone()
    };
    (attempt, after)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_fit_a_phone_and_follow_the_colour_scheme() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    month(&bench).await;
    let daemon = crate::support::Daemon::start(&bench).await;
    let line = daemon.log().into_iter().find(|line| line.contains("\"message\":\"running\"")).unwrap();
    let url = format!("http://{}", line.split("http://").nth(1).unwrap().split('/').next().unwrap());
    let browser = Browser::start().await;
    let report = format!("{url}/report?workspace=acme&report=conversions");
    let six_days_ago = bench.clock.read().to_zoned(jiff::tz::TimeZone::get("Europe/Berlin").unwrap()).date() - 6.days();
    let opened = format!("{report}#d{six_days_ago}");

    let mut backgrounds = Vec::new();
    for (name, address, scheme, (width, height)) in [
        ("overview-light", &url, "light", (1180, 1480)),
        ("overview-dark", &url, "dark", (1180, 1010)),
        ("report-dark", &opened, "dark", (1180, 900)),
        ("overview-phone", &url, "light", (390, 844)),
        ("report-phone", &opened, "dark", (390, 844)),
    ] {
        let is_phone = width < 500;
        browser.resize(width, height, is_phone).await;
        browser.prefer(scheme).await;
        browser.open(address).await;
        let too_wide =
            browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth").await;
        assert_eq!(too_wide, 0, "{name} scrolls sideways");
        backgrounds.push(browser.evaluate("getComputedStyle(document.body).backgroundColor").await);
        if std::env::var_os("UPDATE_IMAGES").is_some() {
            // From the top of the page.
            browser.evaluate("scrollTo(0, 0)").await;
            fs::write(root().join(format!("docs/images/{name}.png")), browser.screenshot().await).unwrap();
        }
    }
    assert_ne!(backgrounds[0], backgrounds[1]);
    assert_eq!(browser.evaluate("document.querySelectorAll('.partition[open]').length").await, 1);
    assert_no_complaints(&browser).await;

    // Each state can be distinguished without its colour.
    browser.open(&url).await;
    let signs = browser
        .evaluate(
            "[...document.querySelectorAll('.legend .cell')].map(cell => {\
               const style = getComputedStyle(cell);\
               return [cell.textContent, style.borderTopWidth, style.backgroundImage, style.backgroundColor === 'rgba(0, 0, 0, 0)'].join('|');\
             })",
        )
        .await;
    let signs: Vec<_> = signs.as_array().unwrap().iter().map(|sign| sign.as_str().unwrap().to_owned()).collect();
    let distinct: std::collections::BTreeSet<_> = signs.iter().collect();
    assert_eq!((signs.len(), distinct.len()), (6, 6), "{signs:?}");
    daemon.stop(&bench).await;
}
