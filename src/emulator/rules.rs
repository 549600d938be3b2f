//! The rules in force: they decide which fault applies to a request.

use std::sync::Mutex;

use jiff::SignedDuration;

use super::faults::{Fault, RedirectTo, Rule};
use crate::{config::SourceKind, lock::lock};

/// The kind of response that a request gets without a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponseKind {
    Archive,
    /// An archive from the storage, which redirects no request to itself.
    StoredArchive,
    /// The page of JSON with that number.
    Page(u64),
    Neither,
}

/// The rules in force, each with its number of matching requests.
#[derive(Debug)]
pub(super) struct Rules(Mutex<Vec<(Rule, u64)>>);

/// The faults that apply to one request.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// The fault, which is never [`Fault::WrongDate`].
    pub(super) fault: Option<Fault>,
    /// Added to the `Date` header.
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

    /// Decides and counts the faults that apply to a request for the decoded `path` of `api`.
    pub(super) fn apply(&self, path: &str, api: Option<SourceKind>, ordinary: ResponseKind) -> Applied {
        let mut applied = Applied::default();
        for (rule, met) in lock(&self.0).iter_mut() {
            let taken = match rule.fault {
                Fault::WrongDate { .. } => applied.date_offset.is_some(),
                _ => applied.fault.is_some(),
            };
            let meets = rule.path_contains.as_ref().is_none_or(|part| path.contains(part))
                && (rule.api.is_none() || rule.api == api)
                && rule.page.is_none_or(|page| ordinary == ResponseKind::Page(page))
                && fits(&rule.fault, ordinary);
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
                Fault::WrongDate { offset } => applied.date_offset = Some(*offset),
                fault => applied.fault = Some(fault.clone()),
            }
        }
        applied
    }
}

/// Whether `fault` can apply to a request whose ordinary response is `ordinary`.
fn fits(fault: &Fault, ordinary: ResponseKind) -> bool {
    match fault {
        Fault::Truncate { .. }
        | Fault::Slow { .. }
        | Fault::Stall
        | Fault::ResetMidBody { .. }
        | Fault::BitFlip { .. }
        | Fault::ContentEncoding(_) => ordinary != ResponseKind::Neither,
        Fault::Redirect { to: RedirectTo::Storage, .. } => ordinary == ResponseKind::Archive,
        Fault::Repeat | Fault::Shrink => matches!(ordinary, ResponseKind::Page(2..)),
        Fault::Hide { .. } | Fault::ExtraTotal { .. } | Fault::OddJson(_) => matches!(ordinary, ResponseKind::Page(_)),
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
