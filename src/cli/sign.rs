//! `moesync sign`: prints the signature of a file name, and a curl command that fetches the file.

use clap::Args;
use secrecy::ExposeSecret;

use super::{CommandError, Completion, Result, scope::known, shell::Shell};
use crate::{config::SourceKind, moengage, signature, sync::Secrets, words::Signed};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The workspace whose key signs.
    #[arg(long, value_name = "NAME")]
    workspace: String,
    /// The file's name, unescaped, such as `Report_test_20261121.zip`.
    #[arg(long, value_name = "NAME")]
    filename: String,
}

pub(super) async fn run(shell: &Shell, options: Options) -> Result {
    let config = shell.config()?;
    let Options { workspace, filename } = options;
    known("workspace", &workspace, config.workspaces.iter().map(|known| known.name.as_str()))?;
    let workspace = config
        .workspaces
        .iter()
        .find(|known| known.name == workspace)
        .ok_or_else(|| CommandError::Usage(format!("no workspace is called `{workspace}`")))?;
    let secret = Secrets::default().secret_key(workspace).await.map_err(CommandError::Usage)?;
    // The form of the name shows which API serves it.
    let is_dump =
        filename.strip_suffix(".zip").is_some_and(|day| day.len() == 8 && day.bytes().all(|b| b.is_ascii_digit()));
    let source = if is_dump { SourceKind::DailyDump } else { SourceKind::CampaignReport };
    // A report of this kind may have a base URL of its own.
    let base_url = config
        .reports
        .iter()
        .find(|report| report.workspace.name == workspace.name && report.source.kind() == source)
        .map_or(&workspace.base_url, |report| &report.base_url);
    let curl = moengage::curl_line(source, base_url, &workspace.app_id, &filename, &secret)
        .ok_or_else(|| CommandError::Usage(format!("`{filename}` is not the name of an archive")))?;
    let signed = Signed {
        signature: signature::sign(&workspace.app_id, &filename, &secret).expose_secret().to_owned(),
        curl: curl.expose_secret().to_owned(),
    };
    shell.print(&signed, |signed| format!("{}\n{}\n", signed.signature, signed.curl))?;
    Ok(Completion::Done)
}
