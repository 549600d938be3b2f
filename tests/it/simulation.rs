//! The daemon in virtual time: its loop, workers, attempts, recovery and alarms on a ledger in memory, between a vendor and
//! two stores that fail by a seed. An oracle looks every three hours, and after nine days without faults.
//!
//! | part | faults |
//! |---|---|
//! | vendor, for minutes to days or in one answer | 400, 404, 410, 401, 403, 429 with and without `Retry-After` (0, seconds, a year), 5xx, no connection, no answer, a redirect to a storage that refuses; a page, JSON or nothing instead of an archive; a body that is cut, lost, not whole, stalls or has a flipped bit; a `Date` wrong by hours or days |
//! | publication | late by minutes to days, never, other content later |
//! | stores, for minutes to days or in one request | every request fails, writing is forbidden, no answer, minutes for each request, done but the reply is lost; a store that ignores `If-None-Match` |
//! | process | killed at any await, stopped, away for seconds to days, with its ledger or without |
//! | local clock | an hour or eight days ahead or behind |
//!
//! Not here, but in tests with real processes: fsync and full disks, PostgreSQL and several replicas, TLS and proxies,
//! keys that are replaced, archives of more than one part, JSON APIs, notifications.
//!
//! A run follows from its seed. `MOESYNC_SEED=7 cargo test --test it -- one_seed --nocapture` prints the trace of one;
//! `MOESYNC_RUNS=230 make simulate` simulates ten thousand weeks.

mod chance;
mod clock;
mod oracle;
mod store;
mod trace;
mod vendor;
mod weather;
mod world;

use std::{env, fmt::Write as _};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Weeks with faults in a run. Nine days without follow.
const WEEKS: u32 = 10;

/// Runs of each of the four tests: together a thousand weeks.
const RUNS: u64 = 23;

/// Lines of the trace before the first violation that a failure prints.
const CONTEXT: usize = 40;

fn variable(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Keeps this thread, and those that it starts, on one processor, a different one for each `number`. The loop and the thread
/// of its ledger take turns: on two processors, waking each other takes most of the time.
fn stay_on_one_processor(number: u64) {
    let allowed = sched_getaffinity(None).unwrap();
    let processors: Vec<_> = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)).collect();
    let mut one = CpuSet::new();
    one.set(processors[number as usize % processors.len()]);
    sched_setaffinity(None, &one).unwrap();
}

/// Runs every `step`th seed from `first` on. `MOESYNC_RUNS` changes how many.
fn simulate(first: u64, step: u64) {
    stay_on_one_processor(first);
    let runs = variable("MOESYNC_RUNS").unwrap_or(RUNS);
    for seed in (0..runs).map(|run| first + run * step) {
        let run = world::run(seed, WEEKS);
        assert!(run.objects > 0, "seed {seed} stored nothing");
        if let Some(first) = run.violations.first() {
            let at = run.trace.iter().position(|line| line.contains("VIOLATION")).unwrap_or(run.trace.len());
            let before = run.trace[at.saturating_sub(CONTEXT)..at].join("\n");
            let more = run.violations.iter().skip(1).fold(String::new(), |mut text, violation| {
                write!(text, "\n  {violation}").unwrap();
                text
            });
            panic!("{before}\nseed {seed}: {first}{more}\nMOESYNC_SEED={seed} repeats this run");
        }
    }
}

#[test]
fn weeks_of_faults_1() {
    simulate(1, 4);
}

#[test]
fn weeks_of_faults_2() {
    simulate(2, 4);
}

#[test]
fn weeks_of_faults_3() {
    simulate(3, 4);
}

#[test]
fn weeks_of_faults_4() {
    simulate(4, 4);
}

#[test]
fn one_seed() {
    let Some(seed) = variable("MOESYNC_SEED") else { return };
    let run = world::run(seed, WEEKS);
    println!("{}", run.trace.join("\n"));
    println!("seed {seed}: {} requests, {} objects", run.requests, run.objects);
    assert!(run.violations.is_empty(), "seed {seed}: {:#?}", run.violations);
}

#[test]
fn the_same_seed_has_the_same_trace() {
    let [first, second] = [(); 2].map(|()| world::run(1000, 3).trace);
    let difference = first.iter().zip(&second).find(|(first, second)| first != second);
    assert_eq!(difference, None);
    assert_eq!(first.len(), second.len());
}
