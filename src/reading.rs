//! Stored objects and tables, read at their destinations: listed, copied, compared.
//!
//! These files read what is stored, so that they work without a ledger. They must not write to a destination, nor know how
//! results are printed.

mod copy;
mod dialect;
mod reconcile;
mod statements;
mod stored;
mod tables;

use std::sync::Arc;

use jiff::civil::Date;

pub use self::{
    copy::{Copied, CopyError, Part, copy, unpack},
    dialect::Engine,
    reconcile::{ReconcileError, ReconcileParties, reconcile},
    statements::{Unreadable, engine_name, statements},
    stored::{Lookup, Stored, describe, find, find_key, keys},
    tables::{Table, TableError, TablePart, tables, with_rows},
};
use crate::{
    config::{Config, Location},
    store::{Budget, Destination, StoreError},
    sync::{OpenReport, Selection},
};

/// Dates of partitions, both ends included; all by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dates {
    /// The first date.
    pub from: Option<Date>,
    /// The last date.
    pub to: Option<Date>,
}

impl Dates {
    /// One date.
    pub fn only(date: Date) -> Self {
        Self { from: Some(date), to: Some(date) }
    }

    /// Whether `date` is one of them.
    pub fn contain(&self, date: Date) -> bool {
        self.from.is_none_or(|from| from <= date) && self.to.is_none_or(|to| date <= to)
    }

    /// The only date, if there is one.
    fn single(&self) -> Option<Date> {
        self.from.filter(|from| self.to == Some(*from))
    }
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory does not exist. Nothing was stored in it, or its disk is not mounted.
    #[error("{place}: the folder {folder} does not exist; nothing was stored there yet, or its disk is not mounted")]
    NoFolder {
        /// The destination in the configuration.
        place: String,
        /// The folder.
        folder: String,
    },
    /// An option of the destination is invalid, or the directory cannot be read.
    #[error("{place}: {reason}")]
    Destination {
        /// The destination in the configuration.
        place: String,
        /// The cause.
        reason: Box<StoreError>,
    },
}

/// The reports that `selection` covers, each with its destination. Creates nothing.
///
/// # Errors
///
/// A destination cannot be opened.
pub fn open(config: &Config, selection: &Selection) -> Result<Vec<OpenReport>, OpenError> {
    let mut opened: Vec<Destination> = Vec::new();
    let mut reports = Vec::new();
    for report in config.reports.iter().filter(|report| selection.covers_report(&report.id)) {
        let settings = &report.destination;
        let known = opened.iter().find(|destination| destination.name() == settings.name).cloned();
        let destination = match (known, &settings.location) {
            (Some(known), _) => known,
            (None, Location::Directory(folder)) if !folder.is_dir() => {
                let (place, folder) = (settings.place.clone(), folder.display().to_string());
                return Err(OpenError::NoFolder { place, folder });
            }
            (None, _) => {
                let destination = Destination::open(settings, Budget::new(), "reader").map_err(|error| {
                    OpenError::Destination { place: settings.place.clone(), reason: Box::new(error) }
                })?;
                opened.push(destination.clone());
                destination
            }
        };
        reports.push(OpenReport { report: Arc::clone(report), destination });
    }
    Ok(reports)
}
