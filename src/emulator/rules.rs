//! The rules in force: which fault strikes a request.

use std::sync::Mutex;

use jiff::SignedDuration;

use super::faults::{Fault, RedirectTo, Rule};
use crate::{config::SourceKind, lock::lock};

/// The kind of answer that a request gets without a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gets {
    Archive,
    /// An archive from the storage, which redirects no request to itself.
    StoredArchive,
    /// The page of JSON with that number.
    Page(u64),
    Neither,
}

/// The rules in force, with how often each has met its requests.
#[derive(Debug)]
pub(super) struct Rules(Mutex<Vec<(Rule, u64)>>);

/// The faults that strike one request.
#[derive(Debug, Default)]
pub(super) struct Struck {
    /// The fault, which is never [`Fault::WrongDate`].
    pub(super) fault: Option<Fault>,
    /// Is added to the `Date` header.
    pub(super) date_offset: Option<SignedDuration>,
}

impl Rules {
    pub(super) fn new(rules: Vec<Rule>) -> Rules {
        Rules(Mutex::new(rules.into_iter().map(|rule| (rule, 0)).collect()))
    }

    pub(super) fn add(&self, rule: Rule) {
        lock(&self.0).push((rule, 0));
    }

    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }

    /// Decides and counts the faults that strike a request for the decoded `path` of `api`.
    pub(super) fn strike(&self, path: &str, api: Option<SourceKind>, gets: Gets) -> Struck {
        let mut struck = Struck::default();
        for (rule, met) in lock(&self.0).iter_mut() {
            let taken = match rule.fault {
                Fault::WrongDate { .. } => struck.date_offset.is_some(),
                _ => struck.fault.is_some(),
            };
            let meets = rule.path_contains.as_ref().is_none_or(|part| path.contains(part))
                && (rule.api.is_none() || rule.api == api)
                && rule.page.is_none_or(|page| gets == Gets::Page(page))
                && fits(&rule.fault, gets);
            if taken || !meets {
                continue;
            }
            *met += 1;
            let skip = u64::from(rule.skip);
            let last = rule.times.map_or(u64::MAX, |times| skip + u64::from(times));
            if *met <= skip || *met > last {
                continue;
            }
            match &rule.fault {
                Fault::WrongDate { offset } => struck.date_offset = Some(*offset),
                fault => struck.fault = Some(fault.clone()),
            }
        }
        struck
    }
}

/// Whether `fault` can strike a request that would be given `gets`.
fn fits(fault: &Fault, gets: Gets) -> bool {
    match fault {
        Fault::Truncate { .. }
        | Fault::Slow { .. }
        | Fault::Stall
        | Fault::ResetMidBody { .. }
        | Fault::BitFlip { .. }
        | Fault::ContentEncoding(_) => gets != Gets::Neither,
        Fault::Redirect { to: RedirectTo::Storage, .. } => gets == Gets::Archive,
        Fault::Repeat | Fault::Shrink => matches!(gets, Gets::Page(2..)),
        Fault::Hide { .. } | Fault::ExtraTotal { .. } | Fault::OddJson(_) => matches!(gets, Gets::Page(_)),
        Fault::Status { .. }
        | Fault::Html
        | Fault::JsonError
        | Fault::Empty
        | Fault::Reset
        | Fault::NotYet
        | Fault::Redirect { to: RedirectTo::Url(_), .. }
        | Fault::RateLimited { .. }
        | Fault::Firewall { .. }
        | Fault::Unauthorized
        | Fault::WrongDate { .. } => true,
    }
}
