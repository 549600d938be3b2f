//! `moesync init`: asks for what is needed, tries it against MoEngage, and writes the configuration and the key file.

use std::{
    fs::{self, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use jiff::tz::TimeZone;
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    CommandError, Completion, Result,
    answers::{Answers, ReportAnswer, SCHEDULES},
    ask::{ask, ask_secret, can_ask, say},
    online,
    shell::{Shell, print},
};
use crate::{
    config::{Config, Source, secret_in_file},
    moengage, shell_word,
    sync::archive_limits,
    telemetry::Chain,
    temporary::folder_of,
    words::CheckResult,
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Name of the workspace, of your choice.
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// MoEngage's workspace id (APP ID).
    #[arg(long, value_name = "ID")]
    app_id: Option<String>,
    /// The data centre: the number in the dashboard's address.
    #[arg(long, value_name = "NUMBER", conflicts_with = "base_url")]
    data_center: Option<String>,
    /// Address of the API instead of a data centre's, such as that of `moesync emulate`.
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// The workspace's time zone in MoEngage, such as Europe/Berlin.
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// File with the API key, which the configuration then names; `-` is standard input, and the key is written to a file.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Where reports are stored: a folder, or s3://, gs:// or az:// with bucket and prefix.
    #[arg(long, value_name = "FOLDER|URL")]
    destination: Option<String>,
    /// A report's name, exactly as in the dashboard; may be repeated.
    #[arg(long = "report", value_name = "NAME")]
    reports: Vec<String>,
    /// When it is generated: "day 09:30", "week monday 09:30", "month 1 09:30" or "month last 09:30". Given once, it is that of
    /// all reports.
    #[arg(long = "schedule", value_name = "WHEN")]
    schedules: Vec<String>,
    /// Asks nothing: every answer is an option. Fails if MoEngage does not have a report.
    #[arg(long)]
    non_interactive: bool,
}

/// The name of the file with the key, beside the configuration.
const KEY_FILE: &str = "secret-key";

/// The API key, and the file that has it already.
struct Key {
    secret: SecretString,
    existing: Option<PathBuf>,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let path = shell.config.clone().unwrap_or_else(|| "./moesync.toml".into());
    let key_path = path.with_file_name(KEY_FILE);
    let writes_key = options.key_file.as_ref().is_none_or(|file| file == Path::new("-"));
    let written = [Some(&path), Some(&key_path).filter(|_| writes_key)].into_iter().flatten();
    if let Some(existing) = written.into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(CommandError::Usage(format!(
            "{} exists, and init overwrites nothing; remove it, or name another configuration with --config",
            existing.display()
        )));
    }
    // Before any question: its answers would be lost.
    let folder = folder_of(&path);
    tempfile::tempfile_in(folder).map_err(|error| {
        CommandError::Failed(format!("could not write to the folder {}: {error}", folder.display()))
    })?;
    if !options.non_interactive && !can_ask() {
        return Err(CommandError::Usage(
            "the questions need a terminal; give the answers as options, with --non-interactive".into(),
        ));
    }
    let name = path.display().to_string();
    let (answers, key) = match options.non_interactive {
        true => given(shell, &name, &key_path, options).await?,
        false => asked(shell, &name, &key_path, options).await?,
    };
    let text = answers.text().map_err(CommandError::Usage)?;
    let new_key = key.existing.is_none().then_some((key_path.as_path(), &key.secret));
    write(&path, &text, new_key)?;
    let option = |path: &PathBuf| format!(" --config {}", shell_word::word(&path.display().to_string()));
    let option = shell.config.as_ref().map(option).unwrap_or_default();
    let and_key = new_key.map(|(path, _)| format!(" and {}, which only you can read", path.display()));
    print(&format!(
        "wrote {name}{}\n\nnext:\n\
         \x20 moesync{option} plan     shows what will be fetched, and when\n\
         \x20 moesync{option} sync     fetches what is due, then exits\n\
         \x20 moesync{option} run      the daemon: fetches every report when it is due\n",
        and_key.unwrap_or_default()
    ))?;
    Ok(Completion::Done)
}

/// The answers in the options, all of which must be valid.
async fn given(shell: &Shell, name: &str, key_path: &Path, options: Options) -> Result<(Answers, Key)> {
    let missing = |option: &str| CommandError::Usage(format!("{option} is missing, which --non-interactive needs"));
    let required = |value: Option<String>, option| value.ok_or_else(|| missing(option));
    let api = match (options.data_center, options.base_url) {
        (_, Some(url)) => ("base_url", url),
        (Some(data_center), None) => ("data_center", data_center),
        (None, None) => return Err(missing("--data-center or --base-url")),
    };
    if options.reports.is_empty() {
        return Err(missing("--report"));
    }
    let schedules = match options.schedules.as_slice() {
        [] => return Err(missing("--schedule")),
        [one] => vec![one.clone(); options.reports.len()],
        several if several.len() == options.reports.len() => several.to_vec(),
        several => {
            return Err(CommandError::Usage(format!(
                "{} reports and {} schedules; give one schedule for each, in the same order, or one for all",
                options.reports.len(),
                several.len()
            )));
        }
    };
    let key = read_key(&options.key_file.ok_or_else(|| missing("--key-file"))?)?;
    let reports = options.reports.into_iter().zip(schedules);
    let answers = Answers {
        workspace: options.workspace.unwrap_or(Answers::default().workspace),
        app_id: required(options.app_id, "--app-id")?,
        api,
        timezone: required(options.timezone, "--timezone")?,
        key_file: key.existing.as_deref().unwrap_or(key_path).display().to_string(),
        destination: options.destination.unwrap_or(Answers::default().destination),
        reports: reports.map(|(name, schedule)| ReportAnswer { name, schedule }).collect(),
    };
    let config = answers.check(name).map_err(|mistakes| CommandError::Usage(mistakes.replace('\n', "\nerror: ")))?;
    for index in 0..config.reports.len() {
        let (is_there, found) = try_report(shell, &config, index, &key.secret).await?;
        let report = config.reports[index].name.as_str();
        match is_there {
            true => say(&format!("{report}: {found}\n"))?,
            false => return Err(CommandError::Failed(format!("{report}: {found}; nothing was written"))),
        }
    }
    Ok((answers, key))
}

/// The key in `file`, under the rules by which `run` reads it, or on standard input.
fn read_key(file: &Path) -> Result<Key> {
    if file != Path::new("-") {
        let secret = secret_in_file(file, false).map_err(|problem| CommandError::Usage(problem.to_string()))?;
        return Ok(Key { secret, existing: Some(file.to_owned()) });
    }
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| CommandError::Usage(format!("could not read the key from standard input: {error}")))?;
    match text.trim() {
        "" => Err(CommandError::Usage("the key on standard input is empty".into())),
        key => Ok(Key { secret: key.into(), existing: None }),
    }
}

/// The answers to questions, each of which is asked again until it is valid. What an option answers is not asked.
async fn asked(shell: &Shell, name: &str, key_path: &Path, options: Options) -> Result<(Answers, Key)> {
    say("An answer in brackets is used where you enter nothing. Ctrl-C ends without writing anything.\n\n")?;
    let mut answers = Answers { key_file: key_path.display().to_string(), ..Answers::default() };
    let mut dialog = Dialog { name, answers: &mut answers };
    let default = Answers::default();
    dialog
        .question(
            "Name of the workspace, of your choice",
            Some(&default.workspace),
            options.workspace,
            |all, answer| {
                all.workspace = answer;
            },
        )
        .await?;
    let where_is = "Workspace id, also called APP ID (in MoEngage: Settings > Account > APIs)";
    dialog.question(where_is, None, options.app_id, |all, answer| all.app_id = answer).await?;
    match options.base_url {
        Some(url) => {
            let address = "Address of the API";
            dialog.question(address, None, Some(url), |all, answer| all.api = ("base_url", answer)).await?;
        }
        None => {
            let number = "Data centre: the number in the dashboard's address, such as 01";
            dialog.question(number, None, options.data_center, |all, answer| all.api = ("data_center", answer)).await?;
        }
    }
    let here = TimeZone::try_system().ok().and_then(|zone| zone.iana_name().map(str::to_owned));
    let here = here.unwrap_or_else(|| "UTC".to_owned());
    let zone = "Time zone of the workspace in MoEngage";
    dialog.question(zone, Some(&here), options.timezone, |all, answer| all.timezone = answer).await?;
    let place = "Where reports are stored: a folder, or s3://BUCKET/PREFIX, gs://…, az://…";
    dialog
        .question(place, Some(&default.destination), options.destination, |all, answer| all.destination = answer)
        .await?;
    let ask_key = "API key, labelled Campaign report under Settings > Account > APIs (not shown)";
    let mut key = match &options.key_file {
        Some(file) => read_key(file)?,
        None => Key { secret: ask_secret(ask_key).await?, existing: None },
    };
    if let Some(file) = &key.existing {
        dialog.answers.key_file = file.display().to_string();
    }

    let mut names = options.reports.into_iter();
    let mut schedules = options.schedules.into_iter();
    loop {
        let index = dialog.answers.reports.len();
        if !dialog.report(names.next(), schedules.next()).await? {
            return Ok((answers, key));
        }
        loop {
            say("  asking MoEngage for its dates of the last seven days … ")?;
            let config = dialog.answers.check(name).map_err(CommandError::Usage)?;
            let (is_there, found) = try_report(shell, &config, index, &key.secret).await?;
            say(&format!("{found}\n"))?;
            if is_there {
                break;
            }
            match ask("  What is wrong: its name, the key, or nothing (keep it)? name/key/nothing", Some("name"))
                .await?
                .as_str()
            {
                "nothing" => break,
                "key" => {
                    key = Key { secret: ask_secret(ask_key).await?, existing: None };
                    dialog.answers.key_file = key_path.display().to_string();
                }
                _ => {
                    dialog.answers.reports.truncate(index);
                    dialog.report(None, None).await?;
                }
            }
        }
    }
}

struct Dialog<'a> {
    /// Of the configuration.
    name: &'a str,
    answers: &'a mut Answers,
}

impl Dialog<'_> {
    /// Asks until the answer is valid. `given` is the first answer.
    async fn question(
        &mut self,
        question: &str,
        default: Option<&str>,
        mut given: Option<String>,
        set: impl Fn(&mut Answers, String),
    ) -> Result<()> {
        loop {
            let answer = match given.take() {
                Some(answer) => answer,
                None => ask(question, default).await?,
            };
            let mut changed = self.answers.clone();
            set(&mut changed, answer);
            match changed.check(self.name) {
                Ok(_) => {
                    *self.answers = changed;
                    return Ok(());
                }
                Err(mistake) => say(&format!("  {mistake}\n"))?,
            }
        }
    }

    /// Asks for a report. `false` if there is no other one.
    async fn report(&mut self, name: Option<String>, schedule: Option<String>) -> Result<bool> {
        let name = match (name, self.answers.reports.is_empty()) {
            (None, false) => match ask("Name of another report, or nothing", Some("")).await? {
                none if none.is_empty() => return Ok(false),
                name => Some(name),
            },
            (name, _) => name,
        };
        let default = "day 09:30";
        let question = "Name of a campaign report, exactly as in the dashboard";
        let add = |all: &mut Answers, name| all.reports.push(ReportAnswer { name, schedule: default.to_owned() });
        self.question(question, None, name, add).await?;
        let question = format!("  When MoEngage generates it: {SCHEDULES}");
        let set = |all: &mut Answers, answer| {
            all.reports.iter_mut().last().into_iter().for_each(|last| last.schedule.clone_from(&answer))
        };
        self.question(&question, Some(default), schedule, set).await?;
        Ok(true)
    }
}

/// Whether MoEngage has the report under this name and accepts the key, and what it answers.
async fn try_report(shell: &Shell, config: &Config, index: usize, key: &SecretString) -> Result<(bool, String)> {
    let client = moengage::Client::new(&config.network, &config.limits)
        .map_err(|error| CommandError::Failed(Chain(&error).to_string()))?;
    let report = &config.reports[index];
    let Source::Archive(archive) = &report.source else { return Ok((true, String::new())) };
    let limits = archive_limits(&config.limits, report.source.kind());
    let (result, found) = online::answers(shell, &client, limits, report, archive, key).await;
    Ok((result != CheckResult::Error, found))
}

/// Writes the key first, then the configuration. Neither is there in part, and neither replaces a file.
fn write(path: &Path, text: &str, key: Option<(&Path, &SecretString)>) -> Result<()> {
    if let Some((key_path, secret)) = key {
        write_new(key_path, &format!("{}\n", secret.expose_secret()), 0o600)?;
    }
    write_new(path, text, 0o666).inspect_err(|_| {
        if let Some((key_path, _)) = key {
            // It was written just now.
            let _ = fs::remove_file(key_path);
        }
    })
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<()> {
    let failed = |error| CommandError::Failed(format!("could not write {}: {error}", path.display()));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".moesync-").permissions(Permissions::from_mode(mode));
    let mut file = builder.tempfile_in(folder_of(path)).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist_noclobber(path).map(drop).map_err(|error| failed(error.error))
}
