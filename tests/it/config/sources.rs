//! Where settings come from: files, the environment, and variables in texts.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use jiff::SignedDuration;
use moesync::config::{self, Config, Env, Ledger, Location, Open};
use proptest::prelude::*;
use secrecy::ExposeSecret as _;

use super::{
    CANARY, EXAMPLE, GOOD, changed, env_error, errors_of, load, load_bytes, uncommented, warnings, with_table,
};

#[test]
fn the_environment_overrides_any_key_of_a_table_in_the_type_it_needs() {
    let file = with_table("[ledger]\nurl = \"sqlite://a.db\"\n[limits]\nconcurrency = 8");
    let env = [
        ("MOESYNC__LEDGER__URL", "postgres://moesync@db/moesync"),
        ("MOESYNC__LIMITS__CONCURRENCY_PER_WORKSPACE", "2"),
        ("MOESYNC__LIMITS__ARCHIVE_BYTES", "1000000"),
        ("MOESYNC__NETWORK__ALLOW_HTTP", "true"),
        ("MOESYNC__WEB__LISTEN", ""),
        ("MOESYNC__WEB__OPEN", "health,metrics"),
        ("MOESYNC__ALARMS__EXPIRY", "48h, 12h"),
        ("MOESYNC_LOG", "not ours"),
        ("PATH", "/bin"),
    ];
    let config = load_bytes(file.as_bytes(), &env).unwrap();
    assert_eq!(config.ledger, Ledger::Postgres("postgres://moesync@db/moesync".into()));
    assert_eq!((config.limits.concurrency, config.limits.concurrency_per_workspace), (8, 2));
    assert_eq!(config.limits.archive_bytes, 1_000_000);
    assert!(config.network.allow_http && config.web.listen.is_none());
    assert_eq!(config.web.open, [Open::Health, Open::Metrics]);
    assert_eq!(config.alarms.expiry, [48, 12].map(SignedDuration::from_hours));
}

#[test]
fn a_mistake_in_the_environment_names_the_variable() {
    let errors = [
        env_error("MOESYNC__LEDGR__URL", "sqlite://x.db"),
        env_error("MOESYNC__LEDGER", CANARY),
        env_error("MOESYNC__WORKSPACES__0__SECRET_KEY", CANARY),
        env_error("MOESYNC__LIMITS__CONCURRENCY", "many"),
        env_error("MOESYNC__LIMITS__CONCURRENCY", "0"),
        env_error("MOESYNC__ALARMS__EXPIRY", "48h,soon"),
        env_error("MOESYNC__LEDGER__URL", "mysql://user:canary-5d41402a@db/x"),
    ];
    insta::assert_snapshot!(errors.join("\n"), @r#"
    environment variable MOESYNC__LEDGR__URL: unknown setting; did you mean "MOESYNC__LEDGER__URL"?
    environment variable MOESYNC__LEDGER: unknown setting; did you mean "MOESYNC__LEDGER__URL"?
    environment variable MOESYNC__WORKSPACES__0__SECRET_KEY: workspaces, destinations, reports and notify targets are set in the file alone; there, ${VAR} stands for a variable
    environment variable MOESYNC__LIMITS__CONCURRENCY: limits.concurrency: expected an integer, found a string
    environment variable MOESYNC__LIMITS__CONCURRENCY: limits.concurrency: must be from 1 to 1024, found 0
    environment variable MOESYNC__ALARMS__EXPIRY: alarms.expiry[1]: expected a duration such as "30m", "1h30m" or "7d" (w, d, h, m, s), found "soon"
    environment variable MOESYNC__LEDGER__URL: ledger.url: expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE
    "#);
}

#[test]
fn a_variable_that_is_not_utf8_is_named_where_it_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moesync.toml");
    let text = |bytes: &[u8]| OsString::from_vec(bytes.to_owned());
    let errors = |file: &str| {
        fs::write(&path, file).unwrap();
        let env = Env::of_system([
            (text(b"MOESYNC__LEDGER__URL"), text(b"sqlite://./canary\xff.db")),
            (text(b"moesync__web\xfe"), text(b"canary")),
            (text(b"ROOT"), text(b"/canary\xff")),
            (text(b"OTHER\xff"), text(b"canary")),
        ]);
        config::load(&path, env).unwrap_err().to_string().replace(&format!("{}/", folder.path().display()), "")
    };
    insta::assert_snapshot!(errors(&changed("file:///archive", "file://${ROOT}")), @r#"
    moesync.toml:10: destinations[0].url: the environment variable "ROOT" is not UTF-8 text
    environment variable MOESYNC__LEDGER__URL: not UTF-8 text
    environment variable MOESYNC__WEB�: not UTF-8 text
    "#);
}

#[test]
fn the_line_of_a_table_is_no_difference_of_it() {
    let file = with_table("[web]\ntoken_file = \"/token\"");
    let web = |text: &str| load(text).unwrap().web;
    assert_eq!(web(&file), web(&format!("# a comment\n{file}")));
    assert_ne!(web(&file), web(&file.replace("/token", "/other")));
}

#[test]
fn text_that_is_not_toml_is_reported_with_line_and_column_and_not_quoted() {
    insta::assert_snapshot!(errors_of(&[
        ("\"canary-5d41402a\"", "\"canary-5d41402a"),
        ("\"canary-5d41402a\"", "canary-5d41402a"),
        ("secret_key = ", ""),
        ("\"canary-5d41402a\"", "\"canary-5d41402a\" \"canary-5d41402a\""),
        ("timezone", "secret_key = \"canary-5d41402a\"\ntimezone"),
        ("[[workspaces]]", "[[workspaces]"),
        ("\"canary-5d41402a\"", "99999999999999999999"),
    ]), @r#"
    moesync.toml:6:30: not valid TOML: invalid basic string, expected `"`
    moesync.toml:6:14: not valid TOML: string values must be quoted, expected literal string
    moesync.toml:6:18: not valid TOML: key with no value, expected `=`
    moesync.toml:6:32: not valid TOML: unexpected key or value, expected newline, `#`
    moesync.toml:7:1: not valid TOML: duplicate key
    moesync.toml:1:14: not valid TOML: unclosed array table, expected `]`
    moesync.toml:6:14: not valid TOML: a number is out of range
    "#);
}

#[test]
fn a_file_that_is_missing_or_not_text_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = config::load(&folder.path().join("moesync.toml"), []).unwrap_err().to_string();
    let missing = missing.replace(&folder.path().display().to_string(), "/folder");
    let not_text = load_bytes(b"# a\n# \xff\n", &[]).unwrap_err();
    insta::assert_snapshot!(format!("{missing}\n{not_text}"), @r#"
    cannot read the configuration /folder/moesync.toml: No such file or directory (os error 2); name another one with --config or MOESYNC_CONFIG
    moesync.toml:2: not UTF-8 text; save the file in that encoding
    "#);
}

#[test]
fn a_named_file_is_used_even_if_it_does_not_exist() {
    assert_eq!(config::locate(Some(Path::new("elsewhere.toml"))).unwrap(), PathBuf::from("elsewhere.toml"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[\\PC\\n]{0,200}") {
        let _ = load_bytes(&bytes, &[]);
        let _ = load(&text);
    }

    #[test]
    fn no_change_of_the_example_makes_it_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), "[\\PC]{0,3}|\n|\"|= 0\n|= -9\n"), 1..4)
    ) {
        let mut text: Vec<char> = uncommented(EXAMPLE).chars().collect();
        for (index, insert) in changes {
            let at = index.index(text.len());
            text.splice(at..at + 1, insert.chars());
        }
        let _ = load(&text.into_iter().collect::<String>());
    }
}

#[test]
fn proxy_variables_without_effect_are_a_warning() {
    let good = [
        ("HTTP_PROXY", "proxy.example:3128"),
        ("HTTPS_PROXY", "http://user:canary-5d41402a@proxy.example"),
        ("https_proxy", ""),
        ("NO_PROXY", "localhost, .example.com,10.0.0.0/8,::1,*"),
    ];
    assert_eq!(warnings(GOOD, &good), "");
    let bad = [
        ("HTTP_PROXY", "not an address canary-5d41402a"),
        ("https_proxy", "http://"),
        ("no_proxy", "minio:9000,*.internal.test,[::1]:80,fine.test"),
    ];
    let shown = warnings(GOOD, &bad);
    assert!(!shown.contains(CANARY), "{shown}");
    insta::assert_snapshot!(shown, @r#"
    environment variable HTTP_PROXY: not an address such as "http://proxy.example:3128", so no proxy is used for it
    environment variable https_proxy: not an address such as "http://proxy.example:3128", so no proxy is used for it
    environment variable no_proxy: "minio:9000" has no effect; write "minio"
    environment variable no_proxy: "*.internal.test" has no effect; write ".internal.test"
    environment variable no_proxy: "[::1]:80" has no effect; write "::1"
    "#);
}

#[test]
fn every_variable_that_names_no_setting_is_reported_with_the_mistakes_of_the_file() {
    let text = changed("name = \"archive\"", "name = \"archive\"\ncolour = \"red\"");
    let env =
        [("MOESYNC__LIMITS__CONCURENCY", "1"), ("MOESYNC__WEB__OPEN", "health,meters"), ("MOESYNC__COLOUR", "red")];
    insta::assert_snapshot!(load_bytes(text.as_bytes(), &env).unwrap_err(), @r#"
    moesync.toml:10: destinations[0].colour: unknown key; known here: name, url, options, fsync
    environment variable MOESYNC__COLOUR: unknown setting
    environment variable MOESYNC__LIMITS__CONCURENCY: unknown setting; did you mean "MOESYNC__LIMITS__CONCURRENCY"?
    environment variable MOESYNC__WEB__OPEN: web.open[1]: expected "health" or "metrics", found "meters"; did you mean "metrics"?
    "#);
}

/// Writes these files into a folder and loads it; messages name the files without their folder.
fn load_folder(files: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    config::load(folder.path(), env)
        .map_err(|mistakes| mistakes.to_string().replace(&folder.path().display().to_string(), "conf.d"))
}

#[test]
fn the_files_of_a_folder_add_up_in_the_order_of_their_names() {
    let report = |name: &str| {
        format!(
            "[[reports]]\nsource = \"campaign_report\"\nname = \"{name}\"\nschedule = {{ every = \"day\", at = \"09:30\" }}\n"
        )
    };
    let files = [
        ("20-more.toml", format!("[limits]\nconcurrency = 3\n{}", report("Third"))),
        ("10-main.toml", format!("[limits]\ninflate_ratio = 9\n{GOOD}{}", report("Second"))),
        (".hidden.toml", "not TOML".to_owned()),
        ("notes.txt", "not TOML".to_owned()),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let config = load_folder(&files, &[("MOESYNC__LIMITS__MIN_RATE", "2 KiB/s")]).unwrap();
    let names: Vec<_> = config.reports.iter().map(|report| report.name.as_str()).collect();
    assert_eq!(names, ["Report test", "Second", "Third"]);
    assert_eq!((config.limits.concurrency, config.limits.inflate_ratio, config.limits.min_rate), (3, 9, 2048));
}

#[test]
fn a_mistake_in_a_folder_names_its_file_and_a_key_given_twice_both() {
    let main = format!("[limits]\nconcurrency = 8\n{GOOD}");
    let mistakes = [
        ("10-main.toml", main.as_str()),
        ("20-limits.toml", "[limits]\nmin_rate = \"fast\"\nconcurrency = 9\n"),
        ("30-reports.toml", "[[reports]]\nsource = \"campaign_report\"\nnmae = \"Second\"\nworkspace = \"acmee\"\n"),
    ];
    let broken = [("10-main.toml", main.as_str()), ("20-a.toml", "[["), ("30-b.toml", "x")];
    let of_two = [("10-main.toml", GOOD), ("20-more.toml", GOOD)];
    let shown = [&mistakes, &broken].map(|files| load_folder(files, &[]).unwrap_err()).join("\n\n");
    let shown = [shown, load_folder(&of_two, &[]).unwrap_err(), load_folder(&[], &[]).unwrap_err()].join("\n\n");
    insta::assert_snapshot!(shown, @r#"
    conf.d/20-limits.toml:2: limits.min_rate: expected a rate such as "1 KiB/s", found "fast"
    conf.d/20-limits.toml:3: limits.concurrency: already given, at conf.d/10-main.toml:2; remove one of the two
    conf.d/30-reports.toml:1: reports[1].schedule: missing, but required
    conf.d/30-reports.toml:3: reports[1].nmae: unknown key; did you mean "name"?
    conf.d/30-reports.toml:4: reports[1].workspace: no workspace is called "acmee"; did you mean "acme"?

    conf.d/20-a.toml:1:3: not valid TOML: unquoted keys cannot be empty, expected letters, numbers, `-`, `_`
    conf.d/30-b.toml:1:2: not valid TOML: key with no value, expected `=`

    conf.d/20-more.toml:2: workspaces[1].name: "acme" is already used, at conf.d/10-main.toml:2
    conf.d/20-more.toml:9: destinations[1].name: "archive" is already used, at conf.d/10-main.toml:9

    the folder conf.d has no *.toml file; name another one with --config or MOESYNC_CONFIG
    "#);
}

#[test]
fn variables_stand_for_their_values_in_every_text() {
    let text = changed("\"APP-1\"", "\"${APP}\"")
        .replace("\"canary-5d41402a\"", "\"${KEY}\"")
        .replace("file:///archive", "s3://${BUCKET}/${PREFIX}${PREFIX}")
        .replace("Report test", "$${APP} costs $5 and $$${APP}")
        .replace("every = \"day\"", "every = \"${EVERY}\"");
    let env = [("APP", "APP-2"), ("KEY", CANARY), ("BUCKET", "lake"), ("PREFIX", "${KEY}x"), ("EVERY", "day")];
    let config = load_bytes(text.as_bytes(), &env).unwrap();
    assert_eq!(config.workspaces[0].app_id, "APP-2");
    assert_eq!(config.workspaces[0].secret_key.resolve().unwrap().expose_secret(), CANARY);
    assert_eq!(config.reports[0].name, "${APP} costs $5 and $${APP}");
    let Location::Bucket(bucket) = &config.destinations[0].location else { panic!("{config:?}") };
    assert_eq!((bucket.bucket.as_str(), bucket.prefix.as_str()), ("lake", "${KEY}x${KEY}x"), "values are not expanded");
}

#[test]
fn an_unset_variable_is_reported_with_its_key_and_no_further_mistake() {
    let text = changed("\"APP-1\"", "\"${APP}\"")
        .replace("file:///archive", "s3://${BUCKET}")
        .replace("09:30", "${AT")
        .replace("\"canary-5d41402a\"", "\"${KEY}\"");
    insta::assert_snapshot!(load(&text).unwrap_err(), @r#"
    moesync.toml:3: workspaces[0].app_id: the environment variable "APP" is not set
    moesync.toml:10: destinations[0].url: the environment variable "BUCKET" is not set
    moesync.toml:15: reports[0].schedule.at: a "${" has no closing "}"; write a literal "${" as "$${"
    "#);
    let late = load(&changed("\"canary-5d41402a\"", "\"${KEY}\"")).expect("commands work without the key");
    assert!(late.workspaces[0].secret_key.resolve().unwrap_err().to_string().contains("\"KEY\" is not set"));
}
