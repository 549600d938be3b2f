//! Executions: refused parents, spellings, totals.

use std::collections::BTreeSet;

use moesync::outcome::Outcome;
use serde_json::json;

use super::{Desk, NOW, executions, ok, one_execution, reply};

fn ten() -> Vec<(&'static str, &'static str, &'static str)> {
    ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"].map(|id| (id, "EMAIL", "PERIODIC")).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_parent_in_ten_leaves_nine_stored_and_is_named() {
    for (status, refused) in [(400, "p4"), (404, "p0"), (403, "p0"), (403, "p9"), (422, "p5")] {
        let desk = executions(ten(), move |parent, _| match parent == refused {
            true => reply(status, r#"{"error": {"code": "400 Bad Request", "message": "Campaign has no instances"}}"#),
            false => one_execution(parent),
        })
        .await;
        desk.store().await;
        let parents: BTreeSet<_> = desk.lines().iter().map(|line| line["parent_campaign_id"].to_string()).collect();
        assert_eq!((desk.lines().len(), parents.len()), (9, 9));
        let warning = desk.warning();
        assert!(
            warning.contains(&format!("executions of {refused} ")) && warning.contains("no instances"),
            "{warning}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_parents_refused_is_rejected_or_a_403_of_the_api() {
    let desk = executions(ten(), |_, _| reply(400, "")).await;
    let message = desk.miss(Outcome::Rejected).await;
    assert!(message.contains("all 10 parents") && message.contains("created through its API"), "{message}");
    let desk = executions(ten(), |_, _| reply(403, "")).await;
    desk.miss(Outcome::Unauthorized).await;
    let desk = executions(ten(), |parent, _| reply(if parent == "p3" { 404 } else { 403 }, "")).await;
    desk.miss(Outcome::Rejected).await;
    let desk = executions(ten(), |parent, _| match parent {
        "p3" => reply(401, ""),
        parent => one_execution(parent),
    })
    .await;
    desk.miss(Outcome::Unauthorized).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_asks_further_parents_when_the_first_are_refused() {
    let checked = async |desk: &Desk, code| desk.bench.run(&["check", "--online"]).await.expect(code).stdout;
    let desk = executions(ten(), |parent, _| match parent {
        "p0" => reply(403, ""),
        "p1" => reply(404, ""),
        parent => one_execution(parent),
    })
    .await;
    let said = checked(&desk, 0).await;
    assert!(said.contains("first page received; 1 in total"), "{said}");
    let desk = executions(ten(), |_, _| reply(400, "")).await;
    let said = checked(&desk, 0).await;
    assert!(said.contains("MoEngage refused the executions of the first 5 recurring campaigns"), "{said}");
    assert_eq!(desk.requests(), 6);
    let desk = executions(ten(), |_, _| reply(403, "")).await;
    let said = checked(&desk, 1).await;
    assert!(said.contains("API firewall"), "{said}");
    let desk = executions(Vec::new(), |_, _| reply(500, "")).await;
    let said = checked(&desk, 0).await;
    assert!(said.contains("no campaign on its first page has executions") && desk.requests() == 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_are_asked_of_recurring_email_and_push_campaigns_in_any_spelling() {
    let parents = vec![
        ("email", "Email", "Periodic"),
        ("push", "PUSH", "business event triggered"),
        ("sms", "SMS", "PERIODIC"),
        ("once", "EMAIL", "ONE_TIME"),
    ];
    let desk = executions(parents, |parent, _| one_execution(parent)).await;
    desk.store().await;
    let stored: Vec<_> = desk.lines().iter().map(|line| line["parent_campaign_id"].clone()).collect();
    assert_eq!((stored, desk.warnings()), (vec![json!("email"), json!("push")], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_equal_executions_are_two_lines() {
    let execution = json!({ "campaign_id": "x", "sent_time": null, "status": "Scheduled" });
    let desk = executions(vec![("p", "EMAIL", "PERIODIC")], move |_, _| {
        ok(&json!({ "executions": [execution, execution], "total_instances": 2 }))
    })
    .await;
    desk.store().await;
    assert_eq!((desk.lines().len(), desk.warnings()), (2, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_total_of_executions_does_not_end_the_listing() {
    let execution = |number: u64| json!({ "campaign_id": format!("x{number}"), "sent_time": NOW });
    for total_of in [|items: usize| items, |_| 23] {
        let desk = executions(vec![("p", "EMAIL", "PERIODIC")], move |_, page| {
            let executions: Vec<_> = ((page - 1) * 15..(page * 15).min(20)).map(execution).collect();
            ok(&json!({ "total_instances": total_of(executions.len()), "executions": executions }))
        })
        .await;
        desk.store().await;
        assert_eq!(desk.lines().len(), 20);
        let odd: Vec<_> = desk.warnings().iter().map(|warning| warning.contains("20 of 23")).collect();
        assert_eq!(odd, if total_of(7) == 7 { vec![] } else { vec![true] });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_warnings_of_a_snapshot_are_bounded_and_say_how_many_more_there_are() {
    // MoEngage counts more executions of each than it lists.
    let parents = (0..13).map(|number| (&*format!("p{number:02}").leak(), "PUSH", "PERIODIC")).collect();
    let desk = executions(parents, |parent, page| match page {
        1 => ok(&json!({ "executions": [{ "campaign_id": parent }], "total_instances": 9 })),
        _ => ok(&json!({ "executions": [], "total_instances": 9 })),
    })
    .await;
    desk.store().await;
    let warnings = desk.warnings();
    assert!(warnings.len() == 13 && warnings[12].contains("1 of 9 executions of p12"), "{warnings:?}");

    let named: Vec<_> = (0..120).map(|number| format!("p{number:03}")).collect();
    let desk = Desk::new(&format!("\"executions\"\ncampaign_ids = {named:?}"), |asked| {
        let listed = if asked.page() == 1 { json!([{ "campaign_id": "x" }]) } else { json!([]) };
        ok(&json!({ "executions": listed, "total_instances": 9 }))
    })
    .await;
    desk.store().await;
    let warnings = desk.warnings();
    assert_eq!((desk.lines().len(), warnings.len()), (120, 101));
    assert_eq!(warnings[100], "20 more warnings are left out");
}
