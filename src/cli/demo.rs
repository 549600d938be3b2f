//! `moesync demo`: a complete example against the MoEngage emulator, without an account.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
};

use clap::Args;
use jiff::{ToSpan, tz::TimeZone};
use secrecy::ExposeSecret;
use url::Url;

use super::{
    CommandError, Completion, Result, emulate,
    shell::{Shell, print},
    table::{self, Look},
};
use crate::{
    config::{self, MonthDay, Schedule, SourceKind},
    daemon,
    emulator::{self, Account, Campaigns},
    partition::{Settled, State},
    sync::{self, Progress, Selection},
    words::{PartitionStatus, Partitions},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Keeps running as a daemon, together with the emulator.
    #[arg(long)]
    keep_running: bool,
}

/// The folder of all files of the demo.
const FOLDER: &str = "moesync-demo";

/// Few, because statistics are requested within MoEngage's rate limit.
const CAMPAIGNS: u32 = 12;

/// The late report appears at the third request. A report that is missing by then is a failure of the demo.
const PASSES: usize = 5;

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let _lock = lock_folder()?;
    let today = shell.clock.now().to_zoned(TimeZone::UTC).date();
    let campaigns = Campaigns { count: CAMPAIGNS, created_before: today, ..Campaigns::default() };
    let account = Account { campaigns, ..emulator::demo_account(TimeZone::UTC) };
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let emulator_options = emulate::emulator_options(shell, vec![account.clone()], 1, Vec::new());
    let emulator = emulate::start(anywhere, emulator_options).await?;
    let path = Path::new(FOLDER).join("moesync.toml");
    let page = free_address();
    write(shell, &account, &emulator.url(), page, &path)
        .map_err(|error| CommandError::Failed(format!("could not write to ./{FOLDER}: {error}")))?;

    shell.bars.say(&format!(
        "A MoEngage emulator listens on {}.\nIt serves a week of reports, one of which is published late.",
        emulator.url()
    ));
    delete_ledger().map_err(|error| CommandError::Failed(format!("could not clear ./{FOLDER}: {error}")))?;
    let ctx = shell.context(Arc::new(config::load(&path, std::iter::empty())?)).await?;
    let mut summary = sync::once(&ctx, &Selection::default(), shell.stopped()).await?;
    for _ in 1..PASSES {
        let pending = summary.entries.iter().filter(|entry| entry.settled == Settled::Open).count();
        if pending == 0 || !summary.is_whole {
            break;
        }
        shell.bars.say(&format!("{pending} dates are not published yet; requesting them again."));
        summary = sync::once(&ctx, &Selection::default(), shell.stopped()).await?;
    }

    sync::derive_once(&ctx, &Selection::default(), shell.stopped()).await?;
    let now = shell.clock.now();
    let entries = ctx.ledger.entries().await?;
    ctx.ledger.close().await;
    let partitions: Vec<_> = entries.iter().map(|entry| PartitionStatus::new(entry, true, now)).collect();
    shell.print(&Partitions { partitions }, |stored| {
        format!(
            "\n{}\n{} in ./{FOLDER}/reports,\neach with its manifest beside it.\n\n\
             Next:\n  \
             moesync --config {FOLDER}/moesync.toml status\n  \
             moesync --config {FOLDER}/moesync.toml verify\n  \
             moesync --config {FOLDER}/moesync.toml ls\n  \
             moesync --config {FOLDER}/moesync.toml tables\n\n\
             Two reports have tables in ./{FOLDER}/reports/tables. With DuckDB:\n\n{QUERY}\n",
            by_report(&stored.partitions, shell.look(&ctx.config)),
            table::count(&stored.partitions),
        )
    })?;
    if options.keep_running {
        drop(ctx);
        print(&format!("\nRunning as a daemon. Status page: http://{page}/. Stop with Ctrl-C.\n"))?;
        let progress: Arc<dyn Progress> = Arc::new(());
        daemon::run(|| config::load(&path, std::iter::empty()), Arc::clone(&shell.clock), progress).await?;
    }
    emulator.shutdown().await;
    Ok(if summary.is_complete() { Completion::Done } else { Completion::Incomplete })
}

/// The report of the account that has tables, besides the statistics.
const WITH_TABLES: &str = "Daily campaigns";

/// A query of its tables, for a shell.
const QUERY: &str = "\
duckdb -c \"SELECT date, count(*) AS campaigns, sum(sent) AS sent
  FROM read_parquet(
    'moesync-demo/reports/tables/demo/daily-campaigns/sms/*/*.parquet',
    union_by_name = true)
  GROUP BY date ORDER BY date\"";

/// A line for each report: what is stored of it.
fn by_report(partitions: &[PartitionStatus], look: Look) -> String {
    let mut reports: BTreeMap<&str, Vec<&PartitionStatus>> = BTreeMap::new();
    for partition in partitions.iter().filter(|partition| partition.state == State::Stored) {
        reports.entry(&partition.report).or_default().push(partition);
    }
    let mut rows = look.table(["REPORT", "SOURCE", "STORED", "FIRST", "LAST", "SIZE"]);
    for (report, stored) in reports {
        let dates = || stored.iter().map(|partition| partition.date);
        rows.add_row([
            report.to_owned(),
            stored[0].source.to_string(),
            stored.len().to_string(),
            dates().min().unwrap_or_default().to_string(),
            dates().max().unwrap_or_default().to_string(),
            table::size(stored.iter().filter_map(|partition| partition.size).sum()),
        ]);
    }
    rows.text()
}

/// Keeps a second demo from deleting the ledger of one that runs.
fn lock_folder() -> Result<File> {
    let failed = |error: io::Error| CommandError::Failed(format!("could not write to ./{FOLDER}: {error}"));
    fs::create_dir_all(FOLDER).map_err(failed)?;
    let lock = File::options().create(true).append(true).open(Path::new(FOLDER).join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(CommandError::Failed(format!(
            "another `moesync demo` runs in ./{FOLDER}; stop it first, or start this one in another folder"
        ))),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The default address of the status page, or another one if that is in use.
fn free_address() -> SocketAddr {
    let usual = SocketAddr::from(([127, 0, 0, 1], 8787));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let free = [usual, any].into_iter().find_map(|address| TcpListener::bind(address).ok()?.local_addr().ok());
    free.unwrap_or(usual)
}

/// Deletes the ledger of an earlier demo, so that dates between two demos do not count as missed. Stored objects are
/// adopted.
fn delete_ledger() -> io::Result<()> {
    for name in ["moesync.db", "moesync.db-wal", "moesync.db-shm"] {
        match fs::remove_file(Path::new(FOLDER).join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Writes the configuration and the key file that a user of this account would write.
fn write(shell: &Shell, account: &Account, base_url: &Url, page: SocketAddr, path: &Path) -> io::Result<()> {
    fs::create_dir_all(FOLDER)?;
    for (name, secret) in [("secret-key", &account.secret_key), ("api-key", &account.api_key)] {
        let file = Path::new(FOLDER).join(name);
        if file.exists() {
            fs::remove_file(&file)?;
        }
        fs::write(&file, secret.expose_secret())?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    }

    let now = shell.clock.now().to_zoned(TimeZone::UTC);
    let today = now.date();
    let week_ago = today.saturating_sub(6.days());
    let mut text = format!(
        "# Written by `moesync demo`. The base URL is that of its MoEngage emulator.\n\
         [ledger]\nurl = \"sqlite://./{FOLDER}/moesync.db\"\n\n\
         [web]\nlisten = \"{page}\"\n\n\
         [[workspaces]]\nname = \"demo\"\napp_id = \"{}\"\nbase_url = \"{base_url}\"\ntimezone = \"UTC\"\n\
         secret_key_file = \"./{FOLDER}/secret-key\"\napi_key_file = \"./{FOLDER}/api-key\"\n\n\
         [[destinations]]\nname = \"disk\"\nurl = \"file://./{FOLDER}/reports\"\n",
        account.app_id
    );
    // Without a buffer, seven dates are available at any time of day: a date is due when the one of a week ago expires.
    for report in &account.reports {
        let name = match (report.source, &report.schedule) {
            (SourceKind::CampaignReport, _) => format!("name = \"{}\"\n", report.name),
            // Until today's report is generated, the last seven dates start a day earlier.
            (_, Schedule::Daily { at }) if now.time() < *at => {
                format!("start = \"{}\"\n", week_ago.saturating_sub(1.days()))
            }
            _ => format!("start = \"{week_ago}\"\n"),
        };
        text += &format!(
            "\n[[reports]]\nworkspace = \"demo\"\nsource = \"{}\"\nid = \"{}\"\n{name}destination = \"disk\"\n\
             schedule = {}\nbuffer = \"0s\"\n",
            report.source,
            report.name.to_lowercase().replace(" - ", "-").replace(' ', "-"),
            schedule(&report.schedule)
        );
        if report.name == WITH_TABLES {
            text += "tables = \"parquet\"\n";
        }
    }
    // Data that MoEngage serves only live: today's listings, and a week of statistics.
    for source in [SourceKind::Campaigns, SourceKind::CampaignMeta, SourceKind::Executions, SourceKind::CampaignStats] {
        text += &format!(
            "\n[[reports]]\nworkspace = \"demo\"\nsource = \"{source}\"\ndestination = \"disk\"\n\
             schedule = {{ every = \"day\", at = \"00:00\" }}\nbuffer = \"0s\"\nstart = \"{}\"\n",
            if source.is_live_listing() { today } else { week_ago }
        );
    }
    text += "tables = \"parquet\"\nshape = \"rows\"\nmetric_type = \"TOTAL\"\nattribution_type = \"CLICK_THROUGH\"\n";
    fs::write(path, text)
}

/// A schedule as it is written in the configuration.
fn schedule(schedule: &Schedule) -> String {
    let time = |at: &jiff::civil::Time| at.strftime("%H:%M").to_string();
    match schedule {
        Schedule::Daily { at } => format!("{{ every = \"day\", at = \"{}\" }}", time(at)),
        Schedule::Weekly { on, at } => {
            let days: Vec<_> = on.iter().map(|day| format!("\"{day:?}\"").to_lowercase()).collect();
            format!("{{ every = \"week\", on = [{}], at = \"{}\" }}", days.join(", "), time(at))
        }
        Schedule::Monthly { on: MonthDay::Last, at } => {
            format!("{{ every = \"month\", on = \"last\", at = \"{}\" }}", time(at))
        }
        Schedule::Monthly { on: MonthDay::Day(day), at } => {
            format!("{{ every = \"month\", on = {day}, at = \"{}\" }}", time(at))
        }
        Schedule::Once { date, at } => {
            let at = at.as_ref().map(|at| format!(", at = \"{}\"", time(at))).unwrap_or_default();
            format!("{{ once = \"{date}\"{at} }}")
        }
    }
}
