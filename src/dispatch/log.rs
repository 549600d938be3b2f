//! The log as a target that every configuration has: an alarm is logged once when it begins, worsens and ends.
//!
//! The ledger records what was logged, as for any target, so a restart logs nothing twice. Problems of the process are logged
//! where they occur, because the ledger may be the cause.

use std::collections::BTreeMap;

use tracing::{error, info};

use super::evaluate::{self, Evaluation};
use crate::{
    alarm::{AlarmKey, AlarmStatus, Subject},
    alarm_kind::AlarmKind,
    event::Content,
    ledger::LedgerError,
    sync::Context,
};

/// Logs each alarm that began, worsened or ended.
pub(super) async fn write(ctx: &Context, evaluation: &Evaluation) -> Result<(), LedgerError> {
    let is_logged = |(kind, subject): &AlarmKey| *subject != Subject::default() || *kind == AlarmKind::Clock;
    let alarms: BTreeMap<AlarmKey, AlarmStatus> = evaluation
        .all
        .iter()
        .filter(|(key, _)| is_logged(key))
        .map(|(key, status)| (key.clone(), status.clone()))
        .collect();
    let mut contents = Vec::new();
    evaluate::record_changes(ctx, evaluate::LOG, &alarms, evaluation, |changes| {
        contents = Content::of_changes(&changes, evaluation.now);
        Vec::new()
    })
    .await?;
    for (content, _) in &contents {
        log(content);
    }
    Ok(())
}

fn log(content: &Content) {
    let (phase, data) = match content {
        Content::AlarmBegan(data) => ("began", data),
        Content::AlarmWorsened(data) => ("worsened", data),
        Content::AlarmEnded(data) => ("ended", data),
        Content::Stored(_)
        | Content::Tables(_)
        | Content::SchemaChanged(_)
        | Content::Summary(_)
        | Content::Test(_) => return,
    };
    let alarm = data.alarm.as_str();
    let destination = data.destination.as_deref();
    let nearest = data.nearest.as_ref();
    let workspace = data.workspace.as_deref().or(nearest.map(|nearest| nearest.workspace.as_str()));
    let report = nearest.map(|nearest| nearest.report.as_str());
    let date = nearest.map(|nearest| nearest.date.to_string());
    let (partitions, message) = (data.partitions, &data.message);
    match content {
        Content::AlarmEnded(_) => info!(alarm, phase, workspace, destination, "{message}"),
        _ => error!(
            alarm,
            phase,
            workspace,
            destination,
            report,
            date,
            partitions,
            within_seconds = data.within_seconds,
            advice = data.advice(),
            "{message}"
        ),
    }
}
