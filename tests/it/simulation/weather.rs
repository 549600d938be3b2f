//! Which faults strike when, by the seed.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::chance::Chance;

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);
pub const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// What goes wrong at the vendor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum VendorFault {
    /// The key is refused.
    Refuses(u16),
    /// Every file is denied, as a firewall does.
    Denies(u16),
    /// 429, perhaps with `Retry-After` in seconds.
    Limits(Option<u64>),
    /// 5xx.
    Fails(u16),
    /// No connection.
    Unreachable,
    /// A connection, and no answer.
    Silent,
    /// 200 with a page for people.
    Html,
    /// 200 with an error in JSON.
    JsonError,
    /// 200 with nothing.
    Empty,
    /// The body ends before its announced end.
    Cut,
    /// The connection is lost within the body.
    Reset,
    /// A body without a length that is not whole.
    Short,
    /// A bit of the table's data is not the vendor's.
    Flipped,
    /// The body stops, and does not end.
    Stalls,
    /// A redirect to a storage that refuses.
    ForbiddenElsewhere,
    /// The `Date` is wrong by this.
    OddDate(SignedDuration),
}

/// What goes wrong at a store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StoreFault {
    /// Every request fails.
    Fails,
    /// Writing is forbidden.
    Forbids,
    /// No answer until it is over.
    Silent,
    /// Each request takes minutes.
    Slow,
    /// What was asked is done, and the answer is lost.
    LosesReplies,
}

/// How the daemon ends, and what it finds when it starts again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stop {
    /// At any await, instead of at a signal.
    pub is_kill: bool,
    pub loses_ledger: bool,
}

#[derive(Debug, Clone)]
pub struct Window<T> {
    pub from: Timestamp,
    pub to: Timestamp,
    pub what: T,
}

/// All that is ordained for one run.
#[derive(Debug)]
pub struct Weather {
    pub vendor: BTreeMap<&'static str, Vec<Window<VendorFault>>>,
    pub stores: BTreeMap<&'static str, Vec<Window<StoreFault>>>,
    pub stops: Vec<Window<Stop>>,
    /// By how much the local clock is ahead.
    pub clock: Vec<Window<SignedDuration>>,
}

/// The fault at `now`: the last that began.
pub fn at<T>(windows: &[Window<T>], now: Timestamp) -> Option<&Window<T>> {
    windows.iter().rfind(|window| window.from <= now && now < window.to)
}

impl Weather {
    /// The faults of `weeks` weeks from `epoch` on.
    pub fn of(
        chance: Chance,
        epoch: Timestamp,
        weeks: u32,
        workspaces: &[&'static str],
        stores: &[&'static str],
    ) -> Self {
        let vendor = |name: &&'static str| {
            let chance = chance.of("vendor").of(name);
            (*name, windows(chance, epoch, weeks, (0.4, 9 * DAY), vendor_fault))
        };
        let store = |name: &&'static str| {
            let chance = chance.of("store").of(name);
            (*name, windows(chance, epoch, weeks, (0.25, 4 * DAY), store_fault))
        };
        let stop = |chance: Chance| Stop { is_kill: chance.happens(0.7), loses_ledger: chance.nth(1).happens(0.15) };
        Self {
            vendor: workspaces.iter().map(vendor).collect(),
            stores: stores.iter().map(store).collect(),
            stops: apart(windows(chance.of("stops"), epoch, weeks, (0.4, 6 * DAY), stop)),
            clock: apart(windows(chance.of("clock"), epoch, weeks, (0.1, DAY), clock_error)),
        }
    }
}

/// Up to two windows a week, each with the `probability`; most are short, few are `longest`.
fn windows<T>(
    chance: Chance,
    epoch: Timestamp,
    weeks: u32,
    (probability, longest): (f64, Duration),
    what: impl Fn(Chance) -> T,
) -> Vec<Window<T>> {
    let mut windows = Vec::new();
    for number in 0..2 * u64::from(weeks) {
        let chance = chance.nth(number);
        if !chance.of("whether").happens(probability) {
            continue;
        }
        let from = epoch + (WEEK / 2) * number as u32 + (WEEK / 2).mul_f64(chance.of("from").unit());
        let is_long = chance.of("long").happens(0.08);
        let length =
            if is_long { chance.of("for").between(DAY, longest) } else { chance.of("for").between(MINUTE / 6, DAY) };
        windows.push(Window { from, to: from + length, what: what(chance.of("what")) });
    }
    windows.sort_by_key(|window| window.from);
    windows
}

/// Without those that begin before the one before them has ended by an hour.
fn apart<T>(windows: Vec<Window<T>>) -> Vec<Window<T>> {
    let mut kept: Vec<Window<T>> = Vec::new();
    for window in windows {
        if kept.last().is_none_or(|last| last.to + HOUR < window.from) {
            kept.push(window);
        }
    }
    kept
}

pub fn vendor_fault(chance: Chance) -> VendorFault {
    let detail = chance.of("detail");
    match chance.below(16) {
        0 => VendorFault::Refuses(detail.pick(&[401, 403])),
        1 => VendorFault::Denies(detail.pick(&[400, 404, 410])),
        2 => VendorFault::Limits(detail.pick(&[None, Some(0), Some(900), Some(3600), Some(40_000), Some(31_536_000)])),
        3 | 4 => VendorFault::Fails(detail.pick(&[500, 502, 503, 504])),
        5 => VendorFault::Unreachable,
        6 => VendorFault::Silent,
        7 => VendorFault::Html,
        8 => VendorFault::JsonError,
        9 => VendorFault::Empty,
        10 => VendorFault::Cut,
        11 => VendorFault::Reset,
        12 => VendorFault::Short,
        13 => VendorFault::Flipped,
        14 => detail.pick(&[VendorFault::Stalls, VendorFault::ForbiddenElsewhere]),
        _ => VendorFault::OddDate(SignedDuration::from_hours(detail.pick(&[-200, -30, -1, 1, 20, 200]))),
    }
}

pub fn store_fault(chance: Chance) -> StoreFault {
    use StoreFault::*;
    chance.pick(&[Fails, Fails, Forbids, Silent, Slow, LosesReplies])
}

fn clock_error(chance: Chance) -> SignedDuration {
    SignedDuration::from_hours(chance.pick(&[-192, -1, 1, 192]))
}
