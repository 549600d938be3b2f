//! The options that limit a command to a workspace or report.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use clap::Args;

use super::{CommandError, Result};
use crate::{
    config::{Config, Report},
    report::ReportId,
    sync::Selection,
};

/// The workspace or report that a command is limited to; everything by default.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Scope {
    /// Only this workspace.
    #[arg(long, value_name = "NAME")]
    pub(super) workspace: Option<String>,
    /// Only the report with this id.
    #[arg(long, value_name = "ID")]
    pub(super) report: Option<String>,
}

impl Scope {
    /// The selection. Fails if a name is not configured.
    pub(super) fn selection(&self, config: &Config) -> Result<Selection> {
        self.known_workspace(config)?;
        if self.report.is_some() {
            self.one(config)?;
        }
        Ok(Selection { workspace: self.workspace.clone(), report: self.report.clone(), partitions: None })
    }

    /// Whether a report is meant.
    pub(super) fn covers(&self, id: &ReportId) -> bool {
        self.workspace.as_ref().is_none_or(|name| name == id.workspace())
            && self.report.as_ref().is_none_or(|name| name == id.name())
    }

    /// The one report whose workspaces are looked up in the ledger; all reports if a name may be misspelt, and others are
    /// suggested.
    pub(super) fn name_to_look_up<'a>(&'a self, config: &Config) -> Option<&'a str> {
        let name = self.report.as_deref()?;
        config.reports.iter().any(|report| self.covers(&report.id)).then_some(name)
    }

    /// Refuses a report or workspace that is neither configured nor recorded, and a report that is in several workspaces.
    /// Returns the workspace of the report, or the one that is named.
    pub(super) fn check_recorded(&self, config: &Config, recorded: &[ReportId]) -> Result<Option<String>> {
        let ids: BTreeSet<&ReportId> = config.reports.iter().map(|report| &report.id).chain(recorded).collect();
        if let Some(workspace) = &self.workspace {
            let configured = config.workspaces.iter().map(|workspace| workspace.name.as_str());
            known("workspace", workspace, configured.chain(ids.iter().map(|id| id.workspace())))?;
        }
        let Some(report) = &self.report else { return Ok(self.workspace.clone()) };
        let in_workspace: Vec<_> =
            ids.iter().filter(|id| self.workspace.as_ref().is_none_or(|name| *name == id.workspace())).collect();
        known("report", report, in_workspace.iter().map(|id| id.name()))?;
        let workspaces: Vec<_> =
            in_workspace.iter().filter(|id| id.name() == *report).map(|id| id.workspace()).collect();
        if workspaces.len() > 1 {
            return Err(ambiguous(report, &workspaces));
        }
        Ok(workspaces.first().map(|&workspace| workspace.to_owned()))
    }

    fn known_workspace(&self, config: &Config) -> Result<()> {
        let names = config.workspaces.iter().map(|known| known.name.as_str());
        self.workspace.as_ref().map_or(Ok(()), |workspace| known("workspace", workspace, names))
    }

    /// The configured report that the options name.
    pub(super) fn one(&self, config: &Config) -> Result<Arc<Report>> {
        self.known_workspace(config)?;
        let Some(id) = &self.report else {
            return Err(CommandError::Usage("no report is named; name one with --report ID".into()));
        };
        let in_workspace =
            |report: &&Arc<Report>| self.workspace.as_ref().is_none_or(|name| *name == report.workspace.name);
        let found: Vec<_> =
            config.reports.iter().filter(in_workspace).filter(|report| report.id.name() == *id).collect();
        match found.as_slice() {
            [report] => Ok(Arc::clone(report)),
            [] => {
                known("report", id, config.reports.iter().filter(in_workspace).map(|report| report.id.name()))?;
                Err(CommandError::Usage(format!("no report has the id `{id}`")))
            }
            several => {
                let names: Vec<_> = several.iter().map(|report| report.workspace.name.as_str()).collect();
                Err(ambiguous(id, &names))
            }
        }
    }
}

fn ambiguous(report: &str, workspaces: &[&str]) -> CommandError {
    CommandError::Usage(format!(
        "report `{report}` is in several workspaces ({}); name one with --workspace",
        workspaces.join(", ")
    ))
}

/// Fails if `name` is not one of `names`, and suggests the nearest.
pub(super) fn known<'a>(what: &str, name: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let names: BTreeSet<&str> = names.collect();
    if names.contains(name) {
        return Ok(());
    }
    let nearest = names
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    let hint = match nearest {
        Some((_, nearest)) => format!("did you mean `{nearest}`?"),
        None => format!("configured: {}", Vec::from_iter(names).join(", ")),
    };
    Err(CommandError::Usage(format!("no {what} is called `{name}`; {hint}")))
}

/// The reports of `config` by their id.
pub(super) fn configured(config: &Config) -> HashMap<ReportId, Arc<Report>> {
    config.reports.iter().map(|report| (report.id.clone(), Arc::clone(report))).collect()
}
