//! `moesync sign`: prints the signature of a file name, and a curl command that fetches the file.

use clap::Args;
use secrecy::ExposeSecret;

use super::{
    CommandError, Completion, Result,
    dates::{WrittenDate, date, today},
    scope::{Scope, known},
    shell::Shell,
};
use crate::{
    config::{Config, SourceKind, Workspace},
    moengage, signature,
    sync::Secrets,
    words::Signed,
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The workspace whose key signs. Required with --filename if there are several.
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// The report with this id.
    #[arg(long, value_name = "ID", requires = "date", required_unless_present = "filename")]
    report: Option<String>,
    /// The date in the file's name.
    #[arg(long, value_name = "DATE", value_parser = date, allow_hyphen_values = true, requires = "report")]
    date: Option<WrittenDate>,
    /// The file's name instead of a report and date, unescaped, such as `Report_test_20261121.zip`.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["report", "date"])]
    filename: Option<String>,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let Options { workspace, report, date, filename } = options;
    let scope = Scope { workspace, report };
    let (workspace, source, base_url, filename) = match (filename, date) {
        (Some(filename), _) if filename.is_empty() => {
            return Err(CommandError::Usage("--filename is empty; name a file".into()));
        }
        (Some(filename), _) => {
            let workspace = workspace_of(&config, scope.workspace.as_deref())?;
            // The form of the name shows which API serves it.
            let is_dump = filename
                .strip_suffix(".zip")
                .is_some_and(|day| day.len() == 8 && day.bytes().all(|b| b.is_ascii_digit()));
            let source = if is_dump { SourceKind::DailyDump } else { SourceKind::CampaignReport };
            // A report of this kind may have a base URL of its own.
            let base_url = config
                .reports
                .iter()
                .find(|report| report.workspace.name == workspace.name && report.source.kind() == source)
                .map_or(&workspace.base_url, |report| &report.base_url);
            (workspace.clone(), source, base_url.clone(), filename)
        }
        (None, Some(date)) => {
            let report = scope.one(&config)?;
            let source = report.source.kind();
            if !source.is_archive() {
                return Err(CommandError::Usage(format!(
                    "report `{}` is of the source {source}, whose requests have no signature but a password",
                    report.id.name()
                )));
            }
            let date = date.on(today(&scope, &config, shell.clock.now()));
            ((*report.workspace).clone(), source, report.base_url.clone(), report.file_name(date))
        }
        (None, None) => {
            return Err(CommandError::Usage("name a file with --report ID --date DATE, or --filename".into()));
        }
    };
    let secret = Secrets::default().secret_key(&workspace).await.map_err(CommandError::Usage)?;
    let curl = moengage::curl_line(source, &base_url, &workspace.app_id, &filename, &secret)
        .ok_or_else(|| CommandError::Usage(format!("`{filename}` is not the name of an archive")))?;
    let signed = Signed {
        signature: signature::sign(&workspace.app_id, &filename, &secret).expose_secret().to_owned(),
        curl: curl.expose_secret().to_owned(),
    };
    shell.print(&signed, |signed| format!("{}\n{}\n", signed.signature, signed.curl))?;
    Ok(Completion::Done)
}

/// The workspace called `name`, or the only one.
fn workspace_of<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Workspace> {
    let names = || config.workspaces.iter().map(|known| known.name.as_str());
    if let Some(name) = name {
        known("workspace", name, names())?;
    }
    match config.workspaces.iter().filter(|known| name.is_none_or(|name| name == known.name)).collect::<Vec<_>>()[..] {
        [only] => Ok(only),
        _ => {
            let names: Vec<_> = names().collect();
            Err(CommandError::Usage(format!(
                "there are several workspaces ({}); name one with --workspace",
                names.join(", ")
            )))
        }
    }
}
