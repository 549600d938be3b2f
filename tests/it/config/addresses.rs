//! Addresses of workspaces, destinations, ledgers and targets.

use jiff::SignedDuration;
use moesync::{
    alarm_kind::AlarmKind,
    config::{BucketLocation, Channel, Encryption, Events, Ledger, Location, Provider},
};
use secrecy::ExposeSecret as _;

use super::{GOOD, changed, errors_in, load, load_bytes, with_report_lines, with_table};

#[test]
fn a_workspace_has_exactly_one_valid_address() {
    let address = |url: &str| format!("base_url = \"{url}\"");
    let mistakes = [
        "data_center = \"1\"".to_owned(),
        "data_center = \"07\"".to_owned(),
        format!("data_center = \"01\"\n{}", address("https://x.example")),
        address("api-01.moengage.com"),
        address("ftp://x.example"),
        address("https://x.example/?key=canary-5d41402a"),
        address("https://x.example/#part"),
        address("https://user:canary-5d41402a@x.example"),
        address("http://x.example"),
    ];
    let mistakes: Vec<_> = mistakes.iter().map(|line| changed("data_center = \"01\"", line)).collect();
    insta::assert_snapshot!(errors_in(&mistakes), @r##"
    moesync.toml:4: workspaces[0].data_center: expected "01", "02", "03", "04", "05", "06" or "101", found "1"; did you mean "01"?
    moesync.toml:4: workspaces[0].data_center: expected "01", "02", "03", "04", "05", "06" or "101", found "07"; a data centre added later can be given as base_url
    moesync.toml:5: workspaces[0].base_url: data_center is given too; exactly one of the two is required
    moesync.toml:4: workspaces[0].base_url: expected an address such as "https://api-01.moengage.com"
    moesync.toml:4: workspaces[0].base_url: expected an address such as "https://api-01.moengage.com"
    moesync.toml:4: workspaces[0].base_url: an address ends before "?" and "#"; remove them and what follows
    moesync.toml:4: workspaces[0].base_url: an address ends before "?" and "#"; remove them and what follows
    moesync.toml:4: workspaces[0].base_url: an address with a user or password in it; credentials have keys of their own
    moesync.toml:4: workspaces[0].base_url: http:// is not encrypted and only allowed for loopback addresses; use https://, or set allow_http = true in [network]
    "##);
}

#[test]
fn a_base_url_may_be_http_on_loopback_or_where_allowed_and_loses_its_last_slash() {
    let url = |url: &str| changed("data_center = \"01\"", &format!("base_url = \"{url}\""));
    let base_url = |text: &str| load(text).unwrap().workspaces[0].base_url.to_string();
    assert_eq!(base_url(&url("https://gateway.example/moengage/")), "https://gateway.example/moengage");
    for loopback in ["http://127.0.0.1:8080/", "http://127.8.8.8/", "http://[::1]:8080/", "http://localhost:1/"] {
        assert_eq!(base_url(&url(loopback)), loopback);
    }
    let allowed = format!("[network]\nallow_http = true\n{}", url("http://x.example"));
    assert_eq!(base_url(&allowed), "http://x.example/");
    let report =
        load(&with_report_lines("base_url = \"https://other.example/\"\ntimezone = \"Asia/Kolkata\"")).unwrap();
    assert_eq!(report.reports[0].base_url.as_str(), "https://other.example/");
    assert_eq!(report.reports[0].timezone.iana_name(), Some("Asia/Kolkata"));
}

#[test]
fn a_destination_is_a_folder_or_a_bucket() {
    let url = |new: &str| changed("file:///archive", new);
    let loaded = |new: &str| load(&url(new)).unwrap().destinations[0].location.clone();
    let bucket = |provider, prefix: &str| {
        Location::Bucket(BucketLocation { provider, bucket: "bucket".to_owned(), prefix: prefix.to_owned() })
    };
    assert_eq!(loaded("s3://bucket/prefix/"), bucket(Provider::S3, "prefix"));
    assert_eq!(loaded("gs://bucket"), bucket(Provider::GoogleCloud, ""));
    assert_eq!(loaded("az://bucket/my%20reports/x"), bucket(Provider::Azure, "my reports/x"));
    assert_eq!(loaded("file:///var/lib/my reports"), Location::Directory("/var/lib/my reports".into()));
    assert_eq!(loaded("file:///var/lib/my%20reports/"), Location::Directory("/var/lib/my reports".into()));
    let here = std::env::current_dir().unwrap();
    assert_eq!(loaded("file://./archive"), Location::Directory(here.join("archive")));
    let config = load_bytes(url("file://${HOME}/archive").as_bytes(), &[("HOME", "/home/me")]).unwrap();
    assert_eq!(config.destinations[0].location, Location::Directory("/home/me/archive".into()));
    let options = changed("url =", "options = { AWS_Region = \"eu\", aws_secret_access_key = \"5\" }\nurl =");
    let config = load(&options).unwrap();
    let options: Vec<_> = config.destinations[0].options.iter().map(|(k, v)| (k.as_str(), v.expose_secret())).collect();
    assert_eq!(options, [("AWS_Region", "eu"), ("aws_secret_access_key", "5")]);

    let mistakes = [
        "/var/lib/archive",
        "file://archive",
        "file:archive",
        "file:/archive",
        "file:",
        "FILE:///archive",
        "ftp://x/y",
        "s3:///prefix",
        "s3://user:canary-5d41402a@bucket",
        "s3://bucket?secret=canary-5d41402a",
        "file://${UNSET}/archive",
    ];
    let mut mistakes: Vec<_> = mistakes.iter().map(|new| url(new)).collect();
    mistakes.push(changed("url = \"file:///archive\"", "url = \"s3://bucket\"\nfsync = false"));
    insta::assert_snapshot!(errors_in(&mistakes), @r##"
    moesync.toml:10: destinations[0].url: expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    moesync.toml:10: destinations[0].url: a path after file:// begins with "/", or with "./" when it is relative
    moesync.toml:10: destinations[0].url: expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    moesync.toml:10: destinations[0].url: expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    moesync.toml:10: destinations[0].url: expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    moesync.toml:10: destinations[0].url: expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    moesync.toml:10: destinations[0].url: expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    moesync.toml:10: destinations[0].url: expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
    moesync.toml:10: destinations[0].url: only a bucket and a prefix are expected here; credentials and endpoints are options
    moesync.toml:10: destinations[0].url: a destination's URL ends before "?" and "#"; write them as %3F and %23 within a path
    moesync.toml:10: destinations[0].url: the environment variable "UNSET" is not set
    moesync.toml:11: destinations[0].fsync: only for file:// destinations, not s3://
    "##);
}

#[test]
fn a_ledger_is_a_file_or_a_postgres_database() {
    let ledger = |url: &str| with_table(&format!("[ledger]\nurl = \"{url}\""));
    let loaded = |url: &str| load(&ledger(url)).unwrap().ledger;
    assert_eq!(loaded("sqlite:///var/lib/moesync.db"), Ledger::Sqlite("/var/lib/moesync.db".into()));
    assert_eq!(loaded("sqlite://moesync.db"), Ledger::Sqlite("moesync.db".into()));
    assert_eq!(loaded("postgresql://db/x"), Ledger::Postgres("postgresql://db/x".into()));
    let config = load_bytes(ledger("sqlite://${STATE}/x.db").as_bytes(), &[("STATE", "/state")]).unwrap();
    assert_eq!(config.ledger, Ledger::Sqlite("/state/x.db".into()));
    let mistakes = [
        "sqlite:x.db",
        "sqlite::memory:",
        "sqlite://:memory:",
        "sqlite://",
        "sqlite://x.db?mode=ro",
        "mysql://u:canary-5d41402a@db/x",
        "",
    ];
    insta::assert_snapshot!(errors_in(&mistakes.map(ledger)), @r#"
    moesync.toml:2: ledger.url: expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE
    moesync.toml:2: ledger.url: expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE
    moesync.toml:2: ledger.url: expected the path of a file after sqlite://, and nothing else
    moesync.toml:2: ledger.url: expected the path of a file after sqlite://, and nothing else
    moesync.toml:2: ledger.url: expected the path of a file after sqlite://, and nothing else
    moesync.toml:2: ledger.url: expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE
    moesync.toml:2: ledger.url: expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE
    "#);
}

/// The good configuration, with a target of these lines.
fn with_target(lines: &str) -> String {
    format!("{GOOD}\n[[notify]]\nname = \"hook\"\n{lines}\n")
}

#[test]
fn the_default_events_of_a_target_depend_on_its_kind() {
    let secret = "secret = \"whsec_bW9lc3luYy1leGFtcGxlLW1vZXN5bmMtZXhhbXBsZQ==\"";
    let target = |lines: &str| load(&with_target(lines)).unwrap().notify.remove(0);
    let events = |lines: &str| target(lines).events().cloned().unwrap();
    let all = Events { stored: true, tables: true, schema_changed: true, summary: true, ..Events::alarms() };
    assert_eq!(events(&format!("kind = \"webhook\"\nurl = \"https://hooks.example/\"\n{secret}")), all);
    assert_eq!(events("kind = \"slack\"\nurl_env = \"SLACK\""), Events::alarms());
    let some = Events { alarms: [AlarmKind::Late].into(), stored: true, ..Events::default() };
    assert_eq!(events("kind = \"slack\"\nurl_env = \"SLACK\"\nevents = [\"late\", \"stored\"]"), some);
    let Channel::Ping { every } = target("kind = \"ping\"\nurl = \"http://127.0.0.1/x\"").channel else { panic!() };
    assert_eq!(every, SignedDuration::from_mins(5));
}

#[test]
fn an_invalid_target_is_refused_and_its_address_not_shown() {
    let slack = "kind = \"slack\"\n";
    let mail = "kind = \"email\"\nfrom = \"moesync@acme.example\"\nto = [\"you@acme.example\"]\n";
    let hook = "kind = \"webhook\"\nurl = \"https://hooks.example/\"\n";
    let texts = [
        with_target("kind = \"pigeon\""),
        with_target("kind = \"email\"\nurl = \"smtps://mail.example\"\nfrom = \"moesync@acme.example\""),
        with_target(&format!("{mail}url = \"https://mail.example/\"")),
        with_target(&format!("{mail}url = \"smtp://moesync:canary-5d41402a@mail.example\"")),
        with_target(&format!("{mail}url = \"smtp://mail.example\"\nstarttls = false")),
        with_target(&format!("{mail}url = \"smtp://mail.example\"\nusername = \"moesync\"")),
        with_target(&format!("{mail}url = \"smtp://mail.example\"\npassword = \"canary-5d41402a\"")),
        with_target(&format!("{}url_env = \"MAIL\"", mail.replace("you@", "you"))),
        with_target("kind = \"slack\""),
        with_target(&format!("{slack}url = \"hooks.example/canary-5d41402a\"")),
        with_target(&format!("{slack}url = \"http://hooks.example/canary-5d41402a\"")),
        with_target(&format!("{slack}url = \"https://hooks.example/\"\nurl_env = \"SLACK\"")),
        with_target(&format!("{slack}url_env = \"SLACK\"\nsecret_env = \"SECRET\"")),
        with_target(&format!("{slack}url_env = \"SLACK\"\nevents = []")),
        with_target(&format!("{slack}url_env = \"SLACK\"\nevents = [\"lots\"]")),
        with_target(&format!("{slack}url_env = \"SLACK\"\nevery = \"5m\"")),
        with_target(hook),
        with_target(&format!("{hook}secret = \"canary-5d41402a\"")),
        with_target("kind = \"ping\"\nurl_env = \"PING\"\nevery = \"5s\""),
        with_target("kind = \"ping\"\nurl_env = \"PING\"\nevents = [\"alarms\"]"),
        with_target(&format!("{slack}url_env = \"SLACK\"\nchannel = \"#ops\"")),
        with_target(&format!("{slack}url_env = \"A\"\n[[notify]]\nname = \"hook\"\n{slack}url_env = \"B\"")),
    ];
    insta::assert_snapshot!(errors_in(&texts), @r#"
    moesync.toml:19: notify[0].kind: expected "webhook", "slack", "teams", "email" or "ping", found "pigeon"
    moesync.toml:17: notify[0]: no recipient; give to = ["you@example.com"]
    moesync.toml:22: notify[0].url: expected the address of a mail server: smtps://HOST:465 (TLS) or smtp://HOST:587 (STARTTLS)
    moesync.toml:22: notify[0].url: expected nothing but host and port; user and password have keys of their own
    moesync.toml:22: notify[0].url: starttls = false sends unencrypted, and is only allowed for loopback addresses
    moesync.toml:17: notify[0]: no password for the username; give exactly one of password_file, password_env and password
    moesync.toml:17: notify[0]: no username for the password
    moesync.toml:21: notify[0].to[0]: expected an address such as "you@example.com" or "You <you@example.com>", found "youacme.example"
    moesync.toml:17: notify[0]: no address; give exactly one of url_file, url_env and url
    moesync.toml:20: notify[0].url: expected an address that begins with https://
    moesync.toml:20: notify[0].url: http:// is not encrypted and only allowed for loopback addresses; use https://, or set allow_http = true in [network]
    moesync.toml:20: notify[0].url: only one of url_env, url may be given; remove the others
    moesync.toml:21: notify[0].secret_env: a target of kind "slack" does not have this key; remove it
    moesync.toml:21: notify[0].events: must not be empty; leave it out for the default
    moesync.toml:21: notify[0].events[0]: expected "alarms", "stored", "tables", "schema_changed", "summary", "lost", "expiring", "late", "unauthorized", "rejected", "corrupt", "unsupported", "store_failed", "tables_failed", "other_content", "ledger", "configuration", "clock" or "panic", found "lots"; did you mean "lost"?
    moesync.toml:21: notify[0].every: a target of kind "slack" does not have this key; remove it
    moesync.toml:17: notify[0]: no secret; give exactly one of secret_file, secret_env and secret
    moesync.toml:21: notify[0].secret: expected "whsec_" and 24 to 64 bytes in base64; `echo whsec_$(openssl rand -base64 32)` makes one
    moesync.toml:21: notify[0].every: must be from 1m to 1d, found "5s"
    moesync.toml:21: notify[0].events: a target of kind "ping" does not have this key; remove it
    moesync.toml:21: notify[0].channel: unknown key; known here: name, kind, url_file, url_env, url, secret_file, secret_env, secret, from, to, username, password_file, password_env, password, starttls, events, every, allow_world_readable
    moesync.toml:22: notify[1].name: "hook" is already used, at moesync.toml:18
    "#);
}

#[test]
fn a_base_url_with_the_path_of_an_endpoint_is_refused() {
    let base_url = |path: &str| {
        let url = format!("base_url = \"https://api-01.moengage.com/{path}\"");
        load(&changed("data_center = \"01\"", &url))
    };
    let refusals = ["campaign_reports/rest_api/APP-1", "dailyCampaignReportDump", "core-services/v1/campaigns"]
        .map(|path| base_url(path).unwrap_err());
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    moesync.toml:4: workspaces[0].base_url: the address ends before "/campaign_reports": moesync adds the path of each API itself
    moesync.toml:4: workspaces[0].base_url: the address ends before "/dailyCampaignReportDump": moesync adds the path of each API itself
    moesync.toml:4: workspaces[0].base_url: the address ends before "/core-services": moesync adds the path of each API itself
    "#);
    assert!(base_url("moengage").is_ok(), "a proxy may have a path of its own");
}

#[test]
fn a_mail_server_has_a_port_and_an_encryption_by_its_address() {
    let mail = "kind = \"email\"\nfrom = \"moesync@acme.example\"\nto = [\"You <you@acme.example>\"]\n";
    let server = |lines: &str| {
        let target = load(&with_target(&format!("{mail}{lines}"))).unwrap().notify.remove(0);
        let Channel::Email { email, .. } = &target.channel else { panic!("{target:?}") };
        let server = target.mail_server(email).unwrap();
        (server.to_string(), server.encryption)
    };
    for (lines, shown, encryption) in [
        ("url = \"smtps://mail.example\"", "smtps://mail.example:465", Encryption::Tls),
        ("url = \"smtps://mail.example:4650/\"", "smtps://mail.example:4650", Encryption::Tls),
        ("url = \"smtp://mail.example\"", "smtp://mail.example:587", Encryption::StartTls),
        ("url = \"smtp://127.0.0.1:25\"", "smtp://127.0.0.1:25", Encryption::StartTls),
        ("url = \"smtp://[::1]\"\nstarttls = false", "smtp://[::1]:25", Encryption::None),
    ] {
        assert_eq!(server(lines), (shown.to_owned(), encryption));
    }
}

#[test]
fn the_page_of_an_instance_is_linked_to_and_its_address_holds_no_secret() {
    let instance = |lines: &str| with_table(&format!("[instance]\n{lines}"));
    let loaded =
        load(&instance("name = \"production\"\npage_url = \"https://proxy.example/moesync\"")).unwrap().instance;
    assert_eq!(loaded.page(None).unwrap(), "https://proxy.example/moesync/");
    let page = loaded.page(Some(("acme", "Report & test"))).unwrap();
    assert_eq!(page, "https://proxy.example/moesync/report?workspace=acme&report=Report+%26+test");
    assert_eq!(load(GOOD).unwrap().instance.page(None), None);
    let mistakes = [
        "name = \"\"",
        "page_url = \"moesync.example.com\"",
        "page_url = \"https://user:canary-5d41402a@moesync.example.com\"",
        "page_url = \"https://moesync.example.com/?token=canary-5d41402a\"",
    ];
    insta::assert_snapshot!(errors_in(&mistakes.map(instance)), @r##"
    moesync.toml:2: instance.name: must not be empty
    moesync.toml:2: instance.page_url: expected an address such as "https://moesync.example.com", without user, password, "?" and "#"
    moesync.toml:2: instance.page_url: expected an address such as "https://moesync.example.com", without user, password, "?" and "#"
    moesync.toml:2: instance.page_url: expected an address such as "https://moesync.example.com", without user, password, "?" and "#"
    "##);
}
