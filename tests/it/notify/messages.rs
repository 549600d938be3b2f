//! What people read in Slack and Teams.

use serde_json::Value;

use super::{NOW, hours, pass};
use crate::support::{Bench, Receiver, Series};

/// A bench of one instance with a name and a page, and these reports, that notifies a receiver at `/chat`.
async fn with_chat(kind: &str, series: &[Series]) -> (Bench, Receiver) {
    let (bench, receiver) = (Bench::at(NOW, series).await, Receiver::start().await);
    let tables = format!(
        "\n[instance]\nname = \"production & <test>\"\npage_url = \"https://moesync.example.com/\"\n\n\
         [[notify]]\nname = \"chat\"\nkind = \"{kind}\"\nurl = \"{}/chat\"\n",
        receiver.url
    );
    bench.write_config(&(bench.config() + &tables));
    (bench, receiver)
}

/// The texts of a message, by the keys that have them.
fn texts(message: &Value, key: &str) -> Vec<String> {
    match message {
        Value::Object(map) => {
            let own = map.get(key).and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(map.values().flat_map(|value| texts(value, key))).collect()
        }
        Value::Array(list) => list.iter().flat_map(|value| texts(value, key)).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slack_shows_what_since_when_and_what_to_do_and_mentions_no_one() {
    let (bench, receiver) = with_chat("slack", &[Series::campaign("R&D *", 2)]).await;
    bench.fault("status=401,body=<!channel> & co,times=1");
    pass(&bench).await;
    bench.clock.advance(hours(2));
    pass(&bench).await;
    let messages: Vec<_> = receiver.received().iter().map(|received| received.json()).collect();
    let [began, ended] = messages.as_slice() else { panic!("{messages:#?}") };
    let read =
        |message: &Value| texts(message, "text").join("\n----\n").replace(bench.vendor.url().as_str(), "VENDOR/");
    insta::assert_snapshot!(read(began), @r"
    :rotating_light: production &amp; &lt;test&gt;: workspace acme: MoEngage refuses the credentials: 2 partitions (the nearest: r&amp;d-* 2026-11-20, expires 2026-11-27T06:00:00Z; unauthorized: MoEngage refused the signature for VENDOR/campaign_reports/rest_api/MAZW5N1IMMSH5H67C3T9KBHA/R%26D_%2A_20261120.zip (401 Unauthorized); check app_id and secret key of workspace acme, the key's scopes, and whether MoEngage's API firewall lists this machine's address) https://moesync.example.com/
    ----
    :rotating_light: workspace acme: MoEngage refuses the credentials
    ----
    *Since:* 2026-11-21 12:00 UTC
    *Report:* r&amp;d-* (2 dates)
    *First to expire:* r&amp;d-* 2026-11-20, expires 2026-11-27 06:00 UTC
    *Last attempt:* unauthorized: MoEngage refused the signature for VENDOR/campaign_reports/rest_api/MAZW5N1IMMSH5H67C3T9KBHA/R%26D_%2A_20261120.zip (401 Unauthorized); check app_id and secret key of workspace acme, the key's scopes, and whether MoEngage's API firewall lists this machine's address
    ----
    *What to do:* Check `app_id`, the data centre, the key and its scopes (Settings &gt; Account &gt; APIs). Nothing of it is fetched except one probe an hour; `moesync sync --workspace acme` tries immediately.
    ----
    production &amp; &lt;test&gt; · <https://moesync.example.com/|status page>
    ");
    insta::assert_snapshot!(read(ended), @r"
    :white_check_mark: production &amp; &lt;test&gt;: workspace acme: resolved: MoEngage refuses the credentials https://moesync.example.com/
    ----
    :white_check_mark: resolved: workspace acme: MoEngage refuses the credentials
    ----
    *Began:* 2026-11-21 12:00 UTC
    *Ended:* 2026-11-21 14:00 UTC
    ----
    production &amp; &lt;test&gt; · <https://moesync.example.com/|status page>
    ");
    let all = read(began);
    assert!(!all.contains("<!") && !all.contains("@all"), "{all}");
    assert_eq!(texts(began, "type")[..2], ["header", "plain_text"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn teams_shows_what_since_when_and_what_to_do_as_a_card() {
    let (bench, receiver) = with_chat("teams", &[Series::campaign("R&D *", 1)]).await;
    bench.fault("not-yet");
    bench.clock.advance(hours(97));
    pass(&bench).await;
    let [message] = receiver.received().try_into().unwrap();
    let message = message.json();
    assert_eq!(message["type"], "message");
    assert_eq!(message["attachments"][0]["contentType"], "application/vnd.microsoft.card.adaptive");
    let card = &message["attachments"][0]["content"];
    assert_eq!((&card["type"], &card["version"]), (&"AdaptiveCard".into(), &"1.4".into()));
    let read = texts(&card["body"], "text").join("\n").replace(bench.vendor.url().as_str(), "VENDOR/");
    insta::assert_snapshot!(read.replace(": \n", ": "), @r"
    acme/r&d-*: not stored, expires soon
    Since: 2026-11-25 13:00 UTC
    Report: r&d-* (5 dates)
    First to expire: r&d-* 2026-11-21, expires 2026-11-28 06:00 UTC, in less than 72h
    Last attempt: not_published: MoEngage has no VENDOR/campaign_reports/rest_api/MAZW5N1IMMSH5H67C3T9KBHA/R%26D_%2A_20261121.zip (400 Bad Request): it is not published yet, has expired, or has another name; or MoEngage's API firewall does not list this machine's address; error message: BAD REQUEST: The requested report is not generated yet
    What to do: Correct what the last attempt names, then run `moesync sync --workspace acme --report 'r&d-*'`. `moesync explain --workspace acme --report 'r&d-*' --date 2026-11-21` shows the attempts.
    Instance: production & <test>
    ");
    let action = &card["actions"][0];
    let page = "https://moesync.example.com/report?workspace=acme&report=r%26d-*";
    assert_eq!((&action["type"], &action["url"]), (&"Action.OpenUrl".into(), &page.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_about_many_reports_and_long_reasons_keep_the_limits_of_slack_and_teams() {
    for kind in ["slack", "teams"] {
        // Characters that are escaped, and that count twice in JavaScript.
        let name = |number: usize| format!("{number}{}", "&😀".repeat(35));
        let series: Vec<_> = (0..40).map(|number| Series::campaign(&name(number), 2).bytes(100)).collect();
        let (bench, receiver) = with_chat(kind, &series).await;
        bench.fault(&format!("status=401,body={}", "<&\"😀>".repeat(4000)));
        pass(&bench).await;
        let [message] = receiver.received().try_into().unwrap();
        let json = message.json();
        if kind == "teams" {
            assert!(message.body.len() <= 28 * 1024, "{}", message.body.len());
            continue;
        }
        let blocks = json["blocks"].as_array().unwrap();
        assert!(blocks.len() <= 50);
        for block in blocks {
            let limit = if block["type"] == "header" { 150 } else { 3000 };
            for text in texts(block, "text") {
                assert!(text.encode_utf16().count() <= limit, "{block}");
            }
        }
        assert!(json["text"].as_str().unwrap().chars().count() < 1200);
    }
}
