//! The state of a running emulator: its accounts, its clock, and what earlier requests changed.
//!
//! This file must not know any API: each API reads and changes its own part.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use jiff::Timestamp;

use super::{
    Account, EmulatorClock, Options, archives::Archives, library::Library, listings::Listings, rates::Rates,
    recipe::Recipe, request_log::RequestLog, rules::Rules,
};

/// The state that all connections share.
pub(super) struct Vendor {
    pub(super) accounts: Vec<Account>,
    pub(super) archives: Archives,
    pub(super) rules: Rules,
    /// The number of requests for each published file, by app id and file name.
    pub(super) asked: Mutex<HashMap<(String, String), u32>>,
    /// The archives that the storage serves, by token.
    pub(super) handed_over: Mutex<HashMap<String, Recipe>>,
    pub(super) rates: Rates,
    pub(super) listings: Listings,
    pub(super) log: RequestLog,
    seed: u64,
    /// The number of restatements of statistics.
    restated: AtomicU32,
    clock: EmulatorClock,
}

impl fmt::Debug for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vendor").field("accounts", &self.accounts).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Vendor {
    pub(super) fn new(options: Options) -> Vendor {
        Vendor {
            accounts: options.accounts,
            archives: Archives::new(options.seed),
            rules: Rules::new(options.faults),
            asked: Mutex::default(),
            handed_over: Mutex::default(),
            rates: Rates::default(),
            listings: Listings::default(),
            seed: options.seed,
            restated: AtomicU32::new(0),
            clock: options.clock,
            log: RequestLog::default(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The campaigns of `account`.
    pub(super) fn library<'a>(&self, account: &'a Account) -> Library<'a> {
        Library { seed: self.seed, app_id: &account.app_id, campaigns: &account.campaigns }
    }

    /// The number of restatements of statistics.
    pub(super) fn restated(&self) -> u32 {
        self.restated.load(Ordering::Relaxed)
    }

    pub(super) fn restate(&self) {
        self.restated.fetch_add(1, Ordering::Relaxed);
    }
}
