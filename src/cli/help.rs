//! What `--help` and the manual pages say about commands beside their options: examples, exit codes, files, environment.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};

use super::Arguments;

/// What is said about a command.
pub(super) struct Topic {
    /// The command, with the names of its parents.
    pub(super) command: &'static [&'static str],
    /// Lines for a shell.
    pub(super) examples: &'static [&'static str],
    /// What exit codes mean where it is not what they mean everywhere.
    pub(super) exit: &'static str,
    /// Further text, laid out by hand.
    pub(super) text: &'static str,
}

const fn topic(command: &'static [&'static str], examples: &'static [&'static str]) -> Topic {
    Topic { command, examples, exit: "", text: "" }
}

pub(super) const TOPICS: [Topic; 27] = [
    topic(&[], &["moesync init", "moesync check --online", "moesync sync", "moesync run"]),
    topic(
        &["init"],
        &[
            "moesync init",
            "moesync --config /etc/moesync/moesync.toml init",
            "moesync init --base-url http://127.0.0.1:8788      # against moesync emulate",
        ],
    ),
    topic(
        &["run"],
        &["moesync run", "moesync --config conf.d run", "MOESYNC__WEB__LISTEN= moesync run        # no status page"],
    ),
    Topic {
        exit: "1: a due partition is not stored.",
        ..topic(&["sync"], &["moesync sync", "moesync sync --report \"Report test\""])
    },
    Topic {
        exit: "1: a requested date is neither stored nor absent. 2: dates past MoEngage's retention\nwithout --ask-anyway.",
        ..topic(
            &["backfill"],
            &[
                "moesync backfill --report \"Report test\" --from -6d --to yesterday --dry-run",
                "moesync backfill --report \"Report test\" --from 2026-11-20 --to 2026-11-24",
            ],
        )
    },
    topic(&["plan"], &["moesync plan", "moesync plan --days 7 --report \"Report test\""]),
    topic(&["explain"], &["moesync explain --report \"Report test\" --date yesterday"]),
    Topic {
        exit: "1: with --check, something is pending past due, or lost and not acknowledged.",
        ..topic(
            &["status"],
            &["moesync status", "moesync status --state pending --since -30d", "moesync status --check --json"],
        )
    },
    Topic {
        exit: "1: something is damaged or missing.",
        ..topic(&["verify"], &["moesync verify", "moesync verify --repair"])
    },
    topic(
        &["acknowledge"],
        &["moesync acknowledge --report \"Report test\" --date 2026-11-21", "moesync acknowledge --all --dry-run"],
    ),
    topic(
        &["forget"],
        &["moesync forget --unconfigured --dry-run", "moesync forget --report old-report --to 2026-06-30"],
    ),
    topic(&["ls"], &["moesync ls --from -30d", "moesync ls --report \"Report test\" --date yesterday --entries"]),
    topic(
        &["get"],
        &[
            "moesync get --report \"Report test\" --date 2026-11-21",
            "moesync get --report daily --date 2026-11-21 --entry daily_PUSH_20261121.csv",
        ],
    ),
    Topic {
        exit: "1: the output must not be used.",
        ..topic(&["cat"], &["moesync cat --report daily --date 2026-11-21 --entry daily_PUSH_20261121.csv"])
    },
    topic(&["tables"], &["moesync tables --columns", "moesync tables --for duckdb > views.sql"]),
    topic(&["tables", "rebuild"], &["moesync tables rebuild --report \"Report test\" --from -30d"]),
    Topic {
        exit: "1: with --strict, something is not equal.",
        ..topic(&["reconcile"], &["moesync reconcile --report \"Report test\" --with campaign_stats --from -7d"])
    },
    Topic { exit: "1: the daemon is not ready.", ..topic(&["health"], &["moesync health"]) },
    Topic {
        exit: "1: a check failed. 2: run refuses the configuration.",
        ..topic(&["check"], &["moesync check", "moesync check --online"])
    },
    topic(&["config"], &["moesync config show"]),
    topic(&["config", "show"], &["moesync config show", "moesync config show --json"]),
    topic(
        &["sign"],
        &["moesync sign --report \"Report test\" --date yesterday", "moesync sign --filename Report_test_20261121.zip"],
    ),
    topic(&["demo"], &["moesync demo", "moesync demo --keep-running"]),
    Topic {
        text: FAULTS,
        ..topic(
            &["emulate"],
            &["moesync emulate", "moesync emulate --fault status=503,times=2 --fault slow=1000,path=Weekly"],
        )
    },
    topic(&["schema"], &["moesync schema > moesync.schema.json"]),
    topic(
        &["completions"],
        &[
            "moesync completions bash > ~/.local/share/bash-completion/completions/moesync",
            "moesync completions zsh > ~/.zfunc/_moesync        # a folder in $fpath",
            "moesync completions fish > ~/.config/fish/completions/moesync.fish",
        ],
    ),
    topic(&["man"], &["moesync man | man -l -", "moesync man --dir ./man"]),
];

/// The language of faults, for the help text.
const FAULTS: &str = "\
A rule of --fault is a fault and its details, separated by commas:
status=503,times=2,path=Report_test

Faults:
  status=CODE                   this status (403: the feature is off); body=TEXT
  unauthorized, not-yet         401; 400, as before a report is generated
  firewall[=400], =401, =403    403 or this status, as for a blocked address
  rate-limited[=RETRY-AFTER]    429; until=SPAN or TEXT for x-ratelimit-reset
  html, json-error, empty       200, but no archive and no page
  truncate=50%, truncate=BYTES  a body that ends early;
                                framing=content-length, chunked or close
  bit-flip[=BYTE]               one wrong bit
  content-encoding=gzip, label  compressed in transfer, or only labelled so
  slow=RATE                     speed in bytes per second
  stall, reset                  no body after the headers; no answer
  reset-mid-body=50%, =BYTES    a connection reset within the body
  redirect=storage, =URL        code=302 or 307
  wrong-date=-8d                a wrong Date header
  repeat                        repeats the last campaign of the previous page
  shrink                        removes the first campaign of the listing
  hide[=N]                      omits the last N rows of a page, or all
  extra-total=N                 a total that is N too large
  odd-json=KIND                 an odd field: nan, bom, utf8, duplicate,
                                number or surrogate

status=404,api=executions,path=ID refuses the executions of one campaign.

Conditions:
  path=TEXT                     only where the path contains TEXT
  api=SOURCE                    only campaign_report, daily_dump,
                                campaign_stats, campaigns, campaign_meta or
                                executions
  page=N                        only this page of JSON, from 1
  times=N, skip=N               only N times; only after N requests";

/// What the exit codes mean.
pub(super) const EXIT: [(&str, &str); 4] = [
    ("0", "All that was asked for is done."),
    ("1", "Something is not stored, is lost, damaged or not reachable."),
    ("2", "The usage or the configuration is wrong; nothing was started."),
    ("130", "It was stopped at once, by a second Ctrl-C."),
];

/// The variables that are read. Those of object stores and proxies have their own documentation.
pub(super) const ENVIRONMENT: [(&str, &str); 6] = [
    ("MOESYNC_CONFIG", "The configuration, as --config."),
    ("MOESYNC_LOG", "The format of the log, as --log-format."),
    ("MOESYNC__TABLE__KEY", "Overrides a key, such as MOESYNC__LEDGER__URL."),
    ("RUST_LOG", "Filters the log, such as moesync=debug."),
    ("TZDIR", "The system's time zone database."),
    ("HTTPS_PROXY, NO_PROXY", "The proxy, where the configuration names none."),
];

/// The files that are used unless others are named.
pub(super) const FILES: [(&str, &str); 3] = [
    ("./moesync.toml, /etc/moesync/moesync.toml", "The configuration; the first that exists. See moesync.toml(5)."),
    ("./secret-key", "The API key, where `moesync init` writes it."),
    ("./moesync.db", "The ledger, where the configuration names no other."),
];

/// The command line with all help texts.
pub(super) fn command() -> Command {
    TOPICS.iter().fold(strict(Arguments::command()), |command, topic| add(command, topic.command, topic))
}

/// The command line in which the options that a command cannot do without are required, so that its usage names them.
pub(super) fn strict(command: Command) -> Command {
    let with_report = ["explain", "backfill", "reconcile"];
    with_report.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |inner| inner.mut_arg("report", |arg| arg.required(true)))
    })
}

fn add(command: Command, path: &'static [&'static str], topic: &Topic) -> Command {
    match path {
        [] => command.after_help(after(topic)),
        [first, rest @ ..] => command.mut_subcommand(*first, |inner| add(inner, rest, topic)),
    }
}

/// The text after the options.
fn after(topic: &Topic) -> String {
    let mut text = String::new();
    if !topic.text.is_empty() {
        let _ = write!(text, "{}\n\n", topic.text);
    }
    text += "Examples:\n";
    for example in topic.examples {
        let _ = writeln!(text, "  {example}");
    }
    if topic.command.is_empty() {
        text += "\nExit codes:\n";
        for (code, meaning) in EXIT {
            let _ = writeln!(text, "  {code}  {meaning}");
        }
        text += "\nEnvironment:\n";
        for (name, meaning) in ENVIRONMENT {
            let _ = writeln!(text, "  {name:<22} {meaning}");
        }
    } else if !topic.exit.is_empty() {
        let _ = write!(text, "\nExit codes:\n  {}\n", topic.exit.replace('\n', "\n  "));
    }
    text
}
