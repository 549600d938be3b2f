//! The work: which partitions are synchronized when, and each of them from claim to record.
//!
//! One file a subject, from the top down:
//!
//! | file | subject |
//! |---|---|
//! | `start` | wiring: from a configuration to a context |
//! | `pass` | one pass and the daemon's loop: which partitions, when, how many |
//! | `workers` | which attempts may start, and their tasks |
//! | `attempt` | one partition from claim to record: the order of the steps |
//! | `refresh` | the same for a stored partition whose numbers restate |
//! | `steps` | look, open, fetch and verify, place: each step alone |
//! | `log` | the log lines of attempts and of held workspaces |
//! | `recover`, `rebuild` | what dead processes left, and objects that are not in the ledger |
//! | `inspect` | stored objects re-read against their manifests |
//! | `manifest` | the contents of a manifest |
//! | `incoming` | an archive or a snapshot while it is received |
//! | `snapshot`, `spool` | a listing read page by page, and the file that collects it |
//! | `frame` | the deadline of an attempt, and what the attempt waits on |
//! | `supervise` | panics of tasks |
//! | `planned`, `process_status`, `pulse` | published: the last plan, what is wrong with the process, whether its loop runs |
//! | `context`, `pace`, `clock`, `lock` | what all of them work with: destinations, secrets, request rates, the clock |
//!
//! Tables derived from archives will be a file `derive`, a step after the record.

mod attempt;
mod clock;
mod context;
mod frame;
mod incoming;
mod inspect;
mod log;
mod manifest;
mod pace;
mod pass;
mod planned;
mod process_status;
mod pulse;
mod rebuild;
mod recover;
mod refresh;
mod snapshot;
mod spool;
mod start;
mod steps;
mod supervise;
mod workers;

pub use attempt::{Done, sync_one};
pub use clock::{Clock, SystemClock};
pub(crate) use clock::{jitter, until};
pub use context::{Context, OpenReport, Progress, Secrets};
pub use frame::Frame;
pub use inspect::{Damage, Inspected, Repair, inspect, repair};
pub use manifest::archive_limits;
pub use pass::{Command, Selection, Summary, continuously, once};
pub use planned::{Planned, Publication};
pub use process_status::ProcessStatus;
pub use pulse::Pulse;
pub use recover::{recover, recover_continuously};
pub use start::{StartError, open_ledger_read_only, open_reports, reload, start};
pub use supervise::{report as report_panic, supervised};
