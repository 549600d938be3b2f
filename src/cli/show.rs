//! `moesync config show`: the configuration in force, and where each value comes from.

use std::fmt::Write;

use clap::Subcommand;

use super::{
    Completion, Result,
    shell::{Shell, environment},
    table,
};
use crate::{
    config::{self, Origin, Setting},
    words::{SettingInForce, SettingOrigin, Settings},
};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Shows every setting in force, and the file, variable or default that it comes from. Secrets are redacted.
    Show,
}

/// Column of the origins; longer lines are followed by theirs.
const COLUMN: usize = 46;

pub(super) fn run(shell: &Shell, action: &Action) -> Result {
    let Action::Show = action;
    let path = config::locate(shell.config.as_deref())?;
    let settings = config::effective(&path, environment())?;
    let settings = Settings { settings: settings.into_iter().map(in_force).collect() };
    shell.print(&settings, show)?;
    Ok(Completion::Done)
}

fn in_force(Setting { key, value, origin }: Setting) -> SettingInForce {
    let setting = |from| SettingInForce { key, value, from, file: None, line: None, variable: None };
    match origin {
        Origin::File { file, line } => SettingInForce { file: Some(file), line, ..setting(SettingOrigin::File) },
        Origin::Environment { variable } => {
            SettingInForce { variable: Some(variable), ..setting(SettingOrigin::Environment) }
        }
        Origin::Default => setting(SettingOrigin::Default),
    }
}

/// The settings as TOML, with their origins as comments.
fn show(result: &Settings) -> String {
    let mut text = String::new();
    let mut current = "";
    for SettingInForce { key, value, file, line, variable, .. } in &result.settings {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        if table != current {
            let space = if text.is_empty() { "" } else { "\n" };
            let _ = match table.split_once('[') {
                Some((list, _)) => writeln!(text, "{space}[[{list}]]"),
                None => writeln!(text, "{space}[{table}]"),
            };
            current = table;
        }
        // TOML has no null, and no setting is one.
        let value = toml::Value::try_from(value).map(|value| value.to_string()).unwrap_or_default();
        let origin = match (file, line, variable) {
            (Some(file), Some(line), _) => format!("{file}:{line}"),
            (Some(file), None, _) => file.clone(),
            (None, _, Some(variable)) => variable.clone(),
            (None, _, None) => "default".to_owned(),
        };
        let setting = format!("{name} = {value}");
        let _ = writeln!(text, "{setting:<COLUMN$}  # {}", table::printable(&origin));
    }
    text
}
