//! Which partitions are synchronized when, and each of them from claim to record.
//!
//! | file | subject |
//! |---|---|
//! | `start` | makes a context from a configuration |
//! | `pass`, `daemon_loop` | one pass, and the loop of the daemon |
//! | `replan` | the plans of both |
//! | `workers`, `queue` | which attempts may start, and their tasks; the partitions that wait for a slot |
//! | `attempt` | one partition from claim to record: the order of the steps |
//! | `look`, `open`, `fetch`, `place`, `record` | the steps |
//! | `replace` | places content that restates |
//! | `quarantine` | keeps content that does not verify |
//! | `work` | what the steps share |
//! | `snapshot`, `spool` | a listing read page by page, and the file that collects it |
//! | `incoming`, `manifest` | content while it is received, and what is written about it |
//! | `log` | the log lines of attempts and of held workspaces |
//! | `recover`, `rebuild` | what dead processes left, and objects that are not in the ledger |
//! | `inspect` | stored objects re-read against their manifests |
//! | `frame` | the deadline of an attempt, and what the attempt waits for |
//! | `supervise` | panics of tasks |
//! | `planned`, `process_status`, `pulse` | published: the last plan, alarms about the process, whether its loop runs |
//! | `derive` | the tables of stored partitions; `load` has the number of downloads that they give way to |
//! | `context` | what all of them work with; `secrets`, `server_clocks`, `pace`, `clock` are parts of it |

mod attempt;
mod clock;
mod context;
mod daemon_loop;
mod derive;
mod duty;
mod fetch;
mod frame;
mod incoming;
mod inspect;
mod load;
mod log;
mod look;
mod manifest;
mod open;
mod pace;
mod pass;
mod place;
mod planned;
mod process_status;
mod pulse;
mod quarantine;
mod queue;
mod rebuild;
mod record;
mod recover;
mod replace;
mod replan;
mod secrets;
mod server_clocks;
mod snapshot;
mod spool;
mod start;
mod supervise;
mod work;
mod workers;

pub(crate) use clock::until;
pub use clock::{Clock, SystemClock};
pub use context::{Context, OpenReport, Progress};
pub use daemon_loop::{LoopCommand, continuously};
pub use derive::{
    TablesSummary, derive_continuously, derive_once, inspect_tables, note_table_reports, tables_again, tables_of_again,
};
pub use inspect::{Damage, Inspected, ObjectRepair, inspect, repair};
pub use manifest::archive_limits;
pub use pass::{Selection, Summary, once};
pub use planned::{Planned, Publication};
pub use process_status::{LoadedConfiguration, ProcessStatus};
pub use pulse::Pulse;
pub use recover::{recover, recover_and_pass, recover_continuously};
pub use replan::refreshed_plan;
pub use secrets::Secrets;
pub use server_clocks::reported_skew;
pub use start::{
    Edges, StartError, assemble, open_ledger, open_ledger_read_only, open_reports, reload, start, start_offline,
};
pub use supervise::{report as report_panic, supervised};
pub use workers::DRAINING;
