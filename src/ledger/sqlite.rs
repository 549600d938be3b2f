//! The ledger in SQLite: one file, write-ahead log, one writer at a time.
//!
//! This file owns the SQL. Everything read is checked, because a ledger can be edited, half restored or damaged.
//!
//! The connection lives on a thread of its own, and each errand there costs more than the statement that it is for. So
//! statements that follow each other whatever their results go together, in one query.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, civil};
use sqlx::{
    Connection as _, Row, Sqlite, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};

use super::{Claim, Claimed, LedgerError, holder, holder::Holder, identity};
use crate::{
    alarm_kind::AlarmKind,
    config::SourceKind,
    outcome::{Attempt, Outcome, RecordedAttempt, Remark, StoredObject},
    partition::{Entry, Settled},
    plan::{LedgerView, MARK_TOLERANCE, Plan},
    report::{Partition, PartitionId, ReportId},
    retry::Hold,
};

mod notices;

pub use notices::{Delivery, StoredNews, Summarized, Waiting};

type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// Queries about one partition.
trait BindId<'q> {
    /// Binds workspace, report and date, in this order.
    fn bind_id(self, id: &'q PartitionId) -> Self;
}

impl<'q> BindId<'q> for Query<'q> {
    fn bind_id(self, id: &'q PartitionId) -> Self {
        self.bind(id.workspace()).bind(id.report.name()).bind(id.date.to_string())
    }
}

impl<'q, T> BindId<'q> for sqlx::query::QueryScalar<'q, Sqlite, T, SqliteArguments> {
    fn bind_id(self, id: &'q PartitionId) -> Self {
        self.bind(id.workspace()).bind(id.report.name()).bind(id.date.to_string())
    }
}

static MIGRATIONS: Migrator = sqlx::migrate!("src/ledger/migrations");

/// How long a writer waits for another process to finish its transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a ledger at rest is opened for reading before it counts as one that is written to.
const OPENINGS: usize = 3;

/// How often, and after which pause, a reader looks again whether another process has brought the schema up to date.
const MIGRATION_LOOKS: u32 = 40;
const MIGRATION_PAUSE: Duration = Duration::from_millis(50);

/// An open ledger. Clones share it.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(super) pool: SqlitePool,
    path: Arc<PathBuf>,
    identity: Option<(u64, u64)>,
    holder: Option<Arc<Holder>>,
    /// Where it is read as a file that no process writes.
    rest: Option<Rest>,
}

/// A ledger that no process has open for writing: it has no journal beside it, and the file alone holds everything. It
/// is read as it is, because SQLite would make files of its own beside it, or fail where it may not.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rest {
    size: u64,
    modified: Option<SystemTime>,
}

impl Rest {
    fn of(path: &Path) -> Option<Self> {
        let has_journal = PathBuf::from(format!("{}-wal", path.display())).exists();
        let metadata = fs::metadata(path).ok().filter(|_| !has_journal)?;
        Some(Self { size: metadata.len(), modified: metadata.modified().ok() })
    }

    /// Whether no process has begun to write to it since.
    fn lasts(&self, path: &Path) -> bool {
        Self::of(path).as_ref() == Some(self)
    }
}

impl Ledger {
    /// Opens or creates; says whether there was a ledger already.
    pub(super) async fn open(path: &Path, holder: &str) -> Result<(Self, bool), LedgerError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A power cut may take the last transactions, never the file's soundness: the objects whose records
            // went are found again by their manifests. In return nothing waits for the disk at each record.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        let pool = connect(path, options).await?;
        let prepared = async {
            let existed = has_table(path, &pool, "partitions").await?;
            if existed {
                refuse_newer_schema(path, &pool).await?;
            }
            check_soundness(path, &pool).await?;
            refuse_unknown_words(path, &pool).await?;
            MIGRATIONS.run(&pool).await.map_err(|error| migration_error(path, error))?;
            Ok(existed)
        };
        let existed = match prepared.await {
            Ok(existed) => existed,
            Err(error) => {
                // SQLite removes its journal by name: not to happen once a new ledger has that name.
                pool.close().await;
                return Err(error);
            }
        };
        let holder = Holder::announce(path, holder).map_err(|source| LedgerError::File {
            message: format!("could not announce this process beside the ledger {}", path.display()),
            source: Some(source),
        })?;
        let (identity, path) = (identity(path), Arc::new(path.to_owned()));
        let ledger = Self { pool, identity, path, holder: Some(Arc::new(holder)), rest: None };
        // Pages can be sound and their content nonsense: better found now than at every reading.
        let read = async {
            ledger.entries().await?;
            ledger.view(Timestamp::UNIX_EPOCH).await
        };
        if let Err(error) = read.await {
            ledger.close().await;
            return Err(error);
        }
        Ok((ledger, existed))
    }

    /// Opens for reading; `None` when nothing was ever recorded.
    pub(super) async fn open_read_only(path: &Path) -> Result<Option<Self>, LedgerError> {
        for _ in 1..OPENINGS {
            let rest = Rest::of(path);
            let opened = Self::open_read_only_once(path, rest.clone()).await;
            if rest.is_none_or(|rest| rest.lasts(path)) {
                return opened;
            }
            // A process began to write meanwhile: what was found may be half of each.
        }
        Self::open_read_only_once(path, None).await
    }

    async fn open_read_only_once(path: &Path, rest: Option<Rest>) -> Result<Option<Self>, LedgerError> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
        let pool = connect(path, options.immutable(rest.is_some())).await?;
        let ledger = Self { pool, identity: identity(path), path: Arc::new(path.to_owned()), holder: None, rest };
        // Its maker has not come further yet, or never will.
        if !has_table(path, &ledger.pool, "partitions").await? {
            return Ok(None);
        }
        let mut version = refuse_newer_schema(path, &ledger.pool).await?;
        // Where a process writes, it may be bringing the schema up to date: each migration is a transaction of its own.
        for _ in 0..MIGRATION_LOOKS {
            if version == newest_migration() || ledger.rest.is_some() {
                break;
            }
            tokio::time::sleep(MIGRATION_PAUSE).await;
            version = refuse_newer_schema(path, &ledger.pool).await?;
        }
        if version != newest_migration() {
            return Err(LedgerError::File {
                message: format!(
                    "the ledger {} was made by an older version of moesync; `moesync sync` or `moesync run` bring it up \
                     to date",
                    path.display(),
                ),
                source: None,
            });
        }
        Ok(Some(ledger))
    }

    /// Closes it for all clones. The last process to do so leaves one file without a journal, which can be copied, and
    /// read by who may not write beside it.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Where the ledger is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another process works with this ledger.
    pub fn is_shared(&self) -> bool {
        holder::others_live(&self.path, self.holder_name())
    }

    /// Whether the holder called `name` of this ledger still lives.
    pub fn is_alive(&self, name: &str) -> bool {
        holder::is_alive(&self.path, name)
    }

    /// # Errors
    ///
    /// [`LedgerError::Replaced`] when the file was deleted or replaced while open: writes would be lost.
    pub fn check_in_place(&self) -> Result<(), LedgerError> {
        if identity(&self.path) == self.identity {
            Ok(())
        } else {
            Err(LedgerError::Replaced { path: self.path.to_path_buf() })
        }
    }

    /// What a plan at `present` depends on: everything open, and whatever planning could come upon again.
    pub async fn view(&self, present: Timestamp) -> Result<LedgerView, LedgerError> {
        let mut view = LedgerView::default();
        let reports = self.read("SELECT workspace, report, planned_through FROM reports").await?;
        for row in reports {
            let id = ReportId::new(&self.text(&row, "workspace")?, &self.text(&row, "report")?);
            view.planned_through.insert(id, self.instant(&row, "planned_through")?);
        }
        let holds = self.read("SELECT workspace, outcome, since, until, is_asked FROM holds").await?;
        for row in holds {
            view.holds.insert(self.text(&row, "workspace")?, self.hold(&row)?);
        }
        let latest_mark = present.checked_add(MARK_TOLERANCE).unwrap_or(Timestamp::MAX);
        let partitions = sqlx::query(
            "SELECT p.* FROM partitions p LEFT JOIN reports r USING (workspace, report)
             WHERE p.settled = 'open' OR p.source = 'campaign_stats' OR r.planned_through IS NULL OR p.generated_at > r.planned_through
                OR r.planned_through > ?",
        )
        .bind(latest_mark.as_millisecond())
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.error("read", error))?;
        view.entries = partitions.iter().map(|row| self.entry(row)).collect::<Result<_, _>>()?;
        Ok(view)
    }

    /// Every partition, in the order of report and date.
    pub async fn entries(&self) -> Result<Vec<Entry>, LedgerError> {
        let rows = self.read("SELECT * FROM partitions ORDER BY workspace, report, date").await?;
        rows.iter().map(|row| self.entry(row)).collect()
    }

    /// One partition.
    pub async fn entry_of(&self, id: &PartitionId) -> Result<Option<Entry>, LedgerError> {
        let row = sqlx::query("SELECT * FROM partitions WHERE workspace = ? AND report = ? AND date = ?")
            .bind_id(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.error("read", error))?;
        row.map(|row| self.entry(&row)).transpose()
    }

    /// A partition's history, oldest first.
    pub async fn attempts(&self, id: &PartitionId) -> Result<Vec<RecordedAttempt>, LedgerError> {
        let rows = sqlx::query(
            "SELECT a.* FROM attempts a JOIN partitions p ON p.id = a.partition_id
             WHERE p.workspace = ? AND p.report = ? AND p.date = ? ORDER BY a.id",
        )
        .bind_id(id)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.error("read", error))?;
        rows.iter().map(|row| self.attempt(row)).collect()
    }

    /// Records the partitions that `plan` found and how far it went. How far it went counts only for reports of which that
    /// is still as in `view`, which it was made from: recovery may have set one back meanwhile.
    pub async fn extend(&self, plan: &Plan, view: &LedgerView) -> Result<(), LedgerError> {
        if plan.new.is_empty() && plan.planned_through.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        for entry in &plan.new {
            self.insert(&mut transaction, &entry.partition, entry.asked_late).await?;
        }
        for (id, through) in &plan.planned_through {
            self.set_planned_through(&mut transaction, id, view.planned_through.get(id).copied(), *through).await?;
        }
        transaction.commit().await.map_err(|error| self.error("write", error))
    }

    /// The reports whose objects from before this ledger began are known to it, as far as they could be read.
    pub async fn recovered(&self) -> Result<HashSet<ReportId>, LedgerError> {
        let rows = self.read("SELECT workspace, report FROM recovered").await?;
        let of = |row| Ok(ReportId::new(&self.text(row, "workspace")?, &self.text(row, "report")?));
        rows.iter().map(of).collect()
    }

    /// Notes that the objects of `report` from before this ledger began are known to it. The first time, the report
    /// counts as planned no further than `mark`: until its objects were known, planning could not see how far it had
    /// been planned. Nor could it see what an earlier process was to fetch: what was generated after the newest of
    /// those objects was not asked for late, and opens again where it has ended as absent for that. Returns how many
    /// partitions that were.
    pub async fn note_recovered(&self, report: &ReportId, mark: Option<Timestamp>) -> Result<u64, LedgerError> {
        let failed = |error| self.error("write", error);
        let mut transaction = self.begin().await?;
        let noted = sqlx::query("INSERT INTO recovered (workspace, report) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(report.workspace())
            .bind(report.name())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        if noted.rows_affected() == 0 {
            return Ok(0);
        }
        if let Some(mark) = mark {
            sqlx::query(
                "INSERT INTO reports (workspace, report, planned_through) VALUES (?, ?, ?)
                 ON CONFLICT (workspace, report) DO UPDATE
                 SET planned_through = min(planned_through, excluded.planned_through)",
            )
            .bind(report.workspace())
            .bind(report.name())
            .bind(mark.as_millisecond())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        }
        // What was found and not fetched is from before this ledger: MoEngage gave no status for it.
        let corrected = sqlx::query(
            "UPDATE partitions SET asked_late = 0,
                    next_attempt_at = CASE settled WHEN 'absent' THEN NULL ELSE next_attempt_at END,
                    settled = CASE settled WHEN 'absent' THEN 'open' ELSE settled END
             WHERE workspace = ?1 AND report = ?2 AND asked_late AND settled IN ('open', 'absent')
               AND generated_at > (
                   SELECT max(p.generated_at) FROM partitions p
                   WHERE p.workspace = ?1 AND p.report = ?2 AND p.settled = 'stored' AND NOT EXISTS
                       (SELECT 1 FROM attempts a
                        WHERE a.partition_id = p.id AND a.outcome = 'stored' AND a.http_status IS NOT NULL))",
        )
        .bind(report.workspace())
        .bind(report.name())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(corrected.rows_affected())
    }

    /// Records partitions asked for by hand; those that ended as absent or lost are opened again. Of one that the ledger
    /// knows already, when it was first asked for stays as it is.
    pub async fn reopen(&self, asked: &[Entry]) -> Result<(), LedgerError> {
        let mut transaction = self.begin().await?;
        for Entry { partition, asked_late, .. } in asked {
            self.insert(&mut transaction, partition, *asked_late).await?;
            sqlx::query(
                "UPDATE partitions SET settled = 'open', next_attempt_at = NULL
                 WHERE workspace = ? AND report = ? AND date = ? AND settled IN ('absent', 'lost')",
            )
            .bind_id(&partition.id)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.error("write", error))?;
        }
        transaction.commit().await.map_err(|error| self.error("write", error))
    }

    /// Opens a stored partition again whose object was found damaged or missing.
    pub async fn reopen_damaged(&self, id: &PartitionId, message: &str) -> Result<(), LedgerError> {
        let query = sqlx::query(
            "UPDATE partitions SET settled = 'open', outcome = 'corrupt', streak = 0, repeats = 1,
                    next_attempt_at = NULL, remark = NULL, message = ?
             WHERE workspace = ? AND report = ? AND date = ? AND settled = 'stored'",
        );
        self.change(query.bind(message).bind_id(id)).await
    }

    /// Records a partition whose object and manifest were found at the destination; says whether that was news.
    ///
    /// A partition that a live process has claimed is left to that one: it finds the object itself. The claim of a dead one
    /// ends.
    pub async fn adopt(
        &self,
        partition: &Partition,
        object: &StoredObject,
        attempts: u32,
    ) -> Result<bool, LedgerError> {
        let mut transaction = self.begin().await?;
        let holder: Option<String> = sqlx::query_scalar(
            "SELECT c.holder FROM claims c JOIN partitions p ON p.id = c.partition_id
             WHERE p.workspace = ? AND p.report = ? AND p.date = ?",
        )
        .bind_id(&partition.id)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(|error| self.error("read", error))?;
        if holder.is_some_and(|holder| self.is_alive(&holder)) {
            return Ok(false);
        }
        self.note_found(&mut transaction, partition, object).await?;
        self.insert(&mut transaction, partition, false).await?;
        let adopted = sqlx::query(
            "UPDATE partitions SET settled = 'stored', outcome = 'stored', attempts = max(attempts, ?), seen = 1,
                    next_attempt_at = NULL, remark = NULL, message = NULL, object_key = ?, size = ?, sha256 = ?, stored_at = ?
             WHERE workspace = ? AND report = ? AND date = ? AND settled <> 'stored'",
        )
        .bind(attempts)
        .bind(&object.key)
        .bind(to_integer(object.size))
        .bind(&object.sha256)
        .bind(object.stored_at.as_millisecond())
        .bind_id(&partition.id)
        .execute(&mut *transaction)
        .await
        .map_err(|error| self.error("write", error))?;
        let is_adopted = adopted.rows_affected() == 1;
        if is_adopted {
            sqlx::query(
                "DELETE FROM claims WHERE partition_id IN
                     (SELECT id FROM partitions WHERE workspace = ? AND report = ? AND date = ?)",
            )
            .bind_id(&partition.id)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.error("write", error))?;
        }
        transaction.commit().await.map_err(|error| self.error("write", error))?;
        Ok(is_adopted)
    }

    /// Asks for the right to work on a partition. This process's own claim is renewed: it is left behind when an
    /// attempt could not be recorded, and the process itself sees to it that it works on a partition once at a time.
    ///
    /// Only if it still stands as the caller believes: open, or stored and to be fetched again.
    pub async fn claim(&self, id: &PartitionId, believed: Settled) -> Result<Claimed, LedgerError> {
        // Read after it was claimed: no other process can record anything about it.
        let row = sqlx::query(
            "INSERT INTO claims (partition_id, holder, token)
             SELECT id, ?1, 1 FROM partitions WHERE workspace = ?2 AND report = ?3 AND date = ?4 AND settled = ?5
             ON CONFLICT (partition_id) DO UPDATE SET token = token + 1 WHERE holder = excluded.holder;
             SELECT p.*, c.holder, c.token, w.archive_seen_at FROM partitions p
             LEFT JOIN claims c ON c.partition_id = p.id LEFT JOIN workspaces w ON w.workspace = p.workspace
             WHERE p.workspace = ?2 AND p.report = ?3 AND p.date = ?4",
        )
        .bind(self.holder_name())
        .bind_id(id)
        .bind(settled_word(believed))
        .fetch_optional(&self.pool)
        .await
        .map_err(|error| self.error("write", error))?;
        let Some(row) = row else { return Ok(Claimed::Settled) };
        let entry = self.entry(&row)?;
        if entry.settled != believed {
            return Ok(Claimed::Settled);
        }
        // Another process may have given it back just now; then it is there for the asking next time.
        let Some(holder) = self.get::<Option<String>>(&row, "holder")? else { return Ok(Claimed::Theirs) };
        let archive_seen_at = self.instant_or_null(&row, "archive_seen_at")?;
        let mut claim = Claim { entry, archive_seen_at, row: self.get(&row, "id")?, token: self.get(&row, "token")? };
        if holder != self.holder_name() {
            if self.is_alive(&holder) || !self.take_over(&claim, &holder).await? {
                return Ok(Claimed::Theirs);
            }
            claim.token += 1;
        }
        Ok(Claimed::Ours(Box::new(claim)))
    }

    /// Makes the claim of a dead holder ours, unless another process was quicker.
    async fn take_over(&self, claim: &Claim, dead: &str) -> Result<bool, LedgerError> {
        let taken = sqlx::query(
            "UPDATE claims SET holder = ?, token = token + 1 WHERE partition_id = ? AND holder = ? AND token = ?",
        )
        .bind(self.holder_name())
        .bind(claim.row)
        .bind(dead)
        .bind(claim.token)
        .execute(&self.pool)
        .await
        .map_err(|error| self.error("write", error))?;
        Ok(taken.rows_affected() == 1)
    }

    /// Ends the claims of dead processes on stored partitions. Where one had begun to replace the object, notes that this
    /// was left half done. Returns how many of those there were.
    pub async fn note_interrupted(&self) -> Result<u64, LedgerError> {
        let claims = self
            .read(
                "SELECT c.partition_id, c.holder, c.replaces FROM claims c JOIN partitions p ON p.id = c.partition_id
                 WHERE p.settled = 'stored'",
            )
            .await?;
        let mut noted = 0;
        for claim in &claims {
            let (partition, holder): (i64, String) = (self.get(claim, "partition_id")?, self.text(claim, "holder")?);
            if holder == self.holder_name() || self.is_alive(&holder) {
                continue;
            }
            let is_half_done: bool = self.get(claim, "replaces")?;
            sqlx::query(
                "UPDATE partitions SET outcome = 'store_failed', streak = 0, repeats = 1, next_attempt_at = NULL,
                        remark = NULL, message = 'a process died while it replaced the object'
                 WHERE id = ?1 AND settled = 'stored'
                   AND EXISTS (SELECT 1 FROM claims WHERE partition_id = ?1 AND holder = ?2 AND replaces);
                 DELETE FROM claims WHERE partition_id = ?1 AND holder = ?2",
            )
            .bind(partition)
            .bind(&holder)
            .execute(&self.pool)
            .await
            .map_err(|error| self.error("write", error))?;
            noted += u64::from(is_half_done);
        }
        Ok(noted)
    }

    /// Gives back this process's claim on a partition, if it has one, without an attempt.
    pub async fn release(&self, id: &PartitionId) -> Result<(), LedgerError> {
        let query = sqlx::query(
            "DELETE FROM claims WHERE holder = ? AND partition_id IN
                 (SELECT id FROM partitions WHERE workspace = ? AND report = ? AND date = ?)",
        );
        self.change(query.bind(self.holder_name()).bind_id(id)).await
    }

    /// Whether the claim is still ours: asked before something is made final that cannot be undone.
    pub async fn is_ours(&self, claim: &Claim) -> Result<bool, LedgerError> {
        let holder: Option<String> =
            sqlx::query_scalar("SELECT holder FROM claims WHERE partition_id = ? AND token = ?")
                .bind(claim.row)
                .bind(claim.token)
                .fetch_optional(&self.pool)
                .await
                .map_err(|error| self.error("read", error))?;
        Ok(holder.as_deref() == Some(self.holder_name()))
    }

    /// Notes that the object of a stored partition is about to be replaced; says whether the claim is still ours.
    pub async fn begin_replacing(&self, claim: &Claim) -> Result<bool, LedgerError> {
        let begun = sqlx::query("UPDATE claims SET replaces = 1 WHERE partition_id = ? AND holder = ? AND token = ?")
            .bind(claim.row)
            .bind(self.holder_name())
            .bind(claim.token)
            .execute(&self.pool)
            .await
            .map_err(|error| self.error("write", error))?;
        Ok(begun.rows_affected() == 1)
    }

    /// Records an attempt, the partition `after` it, and the `hold` that it calls for, and ends the claim, in one
    /// transaction. Returns the hold that is now on the workspace, if the attempt calls for one: this one or a longer one.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Fenced`] when the claim has passed to another process; nothing is recorded then.
    pub async fn record(
        &self,
        claim: &Claim,
        attempt: &Attempt,
        after: &Entry,
        hold: Option<Hold>,
    ) -> Result<Option<Hold>, LedgerError> {
        let Partition { id, source, .. } = &after.partition;
        let workspace = id.workspace();
        let mut transaction = self.begin().await?;
        self.end_claim(&mut transaction, claim).await?;
        self.insert_attempt(&mut transaction, claim.row, attempt, after).await?;
        self.update_partition(&mut transaction, claim.row, after).await?;
        if attempt.is_authenticated() {
            // An answer about the file, to a request made after the hold began, shows that it is over.
            sqlx::query("DELETE FROM holds WHERE workspace = $1 AND since <= $2")
                .bind(workspace)
                .bind(attempt.started_at.as_millisecond())
                .execute(&mut *transaction)
                .await
                .map_err(|error| self.error("write", error))?;
        }
        if let Some(seen_at) = attempt.archive_seen_at(*source) {
            sqlx::query(
                "INSERT INTO workspaces (workspace, archive_seen_at) VALUES ($1, $2)
                 ON CONFLICT (workspace) DO UPDATE SET archive_seen_at = max(archive_seen_at, excluded.archive_seen_at)",
            )
            .bind(workspace)
            .bind(seen_at.as_millisecond())
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.error("write", error))?;
        }
        let hold = match hold {
            Some(hold) => Some(self.set_hold(&mut transaction, workspace, hold).await?),
            None => None,
        };
        transaction.commit().await.map_err(|error| self.error("write", error))?;
        Ok(hold)
    }

    async fn insert_attempt(
        &self,
        connection: &mut SqliteConnection,
        row: i64,
        attempt: &Attempt,
        after: &Entry,
    ) -> Result<(), LedgerError> {
        let evidence = attempt.evidence();
        sqlx::query(
            "INSERT INTO attempts (partition_id, started_at, finished_at, outcome, remark, message, http_status,
                                   vendor_date, request_id, size, sha256)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(row)
        .bind(attempt.started_at.as_millisecond())
        .bind(attempt.finished_at.as_millisecond())
        .bind(attempt.outcome().as_str())
        .bind(after.remark.map(Remark::as_str))
        .bind(after.message.as_deref().unwrap_or_default())
        .bind(evidence.http_status)
        .bind(evidence.vendor_date.map(Timestamp::as_millisecond))
        .bind(&evidence.request_id)
        .bind(attempt.received_bytes().map(to_integer))
        .bind(attempt.sha256())
        .execute(connection)
        .await
        .map(drop)
        .map_err(|error| self.error("write", error))
    }

    /// Writes everything but what never changes: which partition it is, and its instants.
    async fn update_partition(
        &self,
        connection: &mut SqliteConnection,
        row: i64,
        entry: &Entry,
    ) -> Result<(), LedgerError> {
        let object = entry.object.as_ref();
        sqlx::query(
            "UPDATE partitions SET settled = $2, outcome = $3, attempts = $4, streak = $5, repeats = $6,
                    last_attempt_at = $7, next_attempt_at = $8, seen = $9, denied_at = $10, asked_late = $11,
                    remark = $12, message = $13, object_key = $14, size = $15, sha256 = $16, stored_at = $17
             WHERE id = $1",
        )
        .bind(row)
        .bind(settled_word(entry.settled))
        .bind(entry.outcome.map(Outcome::as_str))
        .bind(entry.attempts)
        .bind(entry.streak)
        .bind(entry.repeats)
        .bind(entry.last_attempt_at.map(Timestamp::as_millisecond))
        .bind(entry.next_attempt_at.map(Timestamp::as_millisecond))
        .bind(entry.seen)
        .bind(entry.denied_at.map(Timestamp::as_millisecond))
        .bind(entry.asked_late)
        .bind(entry.remark.map(Remark::as_str))
        .bind(&entry.message)
        .bind(object.map(|object| &object.key))
        .bind(object.map(|object| to_integer(object.size)))
        .bind(object.map(|object| &object.sha256))
        .bind(object.map(|object| object.stored_at.as_millisecond()))
        .execute(connection)
        .await
        .map(drop)
        .map_err(|error| self.error("write", error))
    }

    async fn set_hold(
        &self,
        connection: &mut SqliteConnection,
        workspace: &str,
        hold: Hold,
    ) -> Result<Hold, LedgerError> {
        let before = sqlx::query("SELECT outcome, since, until, is_asked FROM holds WHERE workspace = ?")
            .bind(workspace)
            .fetch_optional(&mut *connection)
            .await
            .map_err(|error| self.error("read", error))?;
        let hold = hold.or_longer(before.map(|row| self.hold(&row)).transpose()?);
        sqlx::query(
            "INSERT INTO holds (workspace, outcome, since, until, is_asked) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (workspace) DO UPDATE
             SET outcome = excluded.outcome, since = excluded.since, until = excluded.until,
                 is_asked = excluded.is_asked",
        )
        .bind(workspace)
        .bind(hold.outcome.as_str())
        .bind(hold.since.as_millisecond())
        .bind(hold.until.as_millisecond())
        .bind(hold.is_asked)
        .execute(connection)
        .await
        .map_err(|error| self.error("write", error))?;
        Ok(hold)
    }

    async fn insert(
        &self,
        connection: &mut SqliteConnection,
        partition: &Partition,
        asked_late: bool,
    ) -> Result<(), LedgerError> {
        sqlx::query(
            "INSERT INTO partitions (workspace, report, date, source, generated_at, due_at, expires_at, asked_late)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (workspace, report, date) DO NOTHING",
        )
        .bind_id(&partition.id)
        .bind(partition.source.as_str())
        .bind(partition.generated_at.as_millisecond())
        .bind(partition.due_at.as_millisecond())
        .bind(partition.expires_at.map(Timestamp::as_millisecond))
        .bind(asked_late)
        .execute(connection)
        .await
        .map_err(|error| self.error("write", error))?;
        Ok(())
    }

    async fn set_planned_through(
        &self,
        connection: &mut SqliteConnection,
        id: &ReportId,
        before: Option<Timestamp>,
        through: Timestamp,
    ) -> Result<(), LedgerError> {
        sqlx::query(
            "INSERT INTO reports (workspace, report, planned_through) VALUES (?, ?, ?)
             ON CONFLICT (workspace, report) DO UPDATE
             SET planned_through = excluded.planned_through WHERE planned_through = ?",
        )
        .bind(id.workspace())
        .bind(id.name())
        .bind(through.as_millisecond())
        .bind(before.map(Timestamp::as_millisecond))
        .execute(connection)
        .await
        .map_err(|error| self.error("write", error))?;
        Ok(())
    }

    async fn end_claim(&self, connection: &mut SqliteConnection, claim: &Claim) -> Result<(), LedgerError> {
        let ended = sqlx::query("DELETE FROM claims WHERE partition_id = ? AND holder = ? AND token = ?")
            .bind(claim.row)
            .bind(self.holder_name())
            .bind(claim.token)
            .execute(connection)
            .await
            .map_err(|error| self.error("write", error))?;
        if ended.rows_affected() == 1 {
            Ok(())
        } else {
            Err(LedgerError::Fenced { what: claim.entry.partition.id.to_string() })
        }
    }

    fn holder_name(&self) -> &str {
        self.holder.as_deref().map_or("", Holder::name)
    }

    /// A transaction that has the write lock from its first moment, so that it never fails half way for being late.
    async fn begin(&self) -> Result<sqlx::Transaction<'_, sqlx::Sqlite>, LedgerError> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|error| self.error("write", error))
    }

    async fn read(&self, query: &'static str) -> Result<Vec<SqliteRow>, LedgerError> {
        sqlx::query(query).fetch_all(&self.pool).await.map_err(|error| self.error("read", error))
    }

    pub(super) fn error(&self, action: &'static str, source: sqlx::Error) -> LedgerError {
        self.unless_written(classify(&self.path, action, source))
    }

    pub(super) fn nonsense(&self, column: &str, value: &str) -> LedgerError {
        let reason = format!("{column} holds {value:?}");
        self.unless_written(LedgerError::Damaged { path: self.path.to_path_buf(), reason })
    }

    /// A file that is written to while it is read as one at rest looks damaged, and is not.
    fn unless_written(&self, error: LedgerError) -> LedgerError {
        match (&error, &self.rest) {
            (LedgerError::Damaged { .. }, Some(rest)) if !rest.lasts(&self.path) => LedgerError::File {
                message: format!(
                    "a process began to write to the ledger {} while it was read; run the command again",
                    self.path.display()
                ),
                source: None,
            },
            _ => error,
        }
    }

    /// The value that `word` stands for in `column`, which holds one of a fixed set of words.
    pub(super) fn known<T>(
        &self,
        column: &str,
        word: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, LedgerError> {
        parse(word).ok_or_else(|| unknown(&self.path, column, word))
    }

    pub(super) fn get<'r, T>(&self, row: &'r SqliteRow, column: &str) -> Result<T, LedgerError>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        row.try_get(column).map_err(|error| self.nonsense(column, &error.to_string()))
    }

    pub(super) fn text(&self, row: &SqliteRow, column: &str) -> Result<String, LedgerError> {
        self.get(row, column)
    }

    fn instant(&self, row: &SqliteRow, column: &str) -> Result<Timestamp, LedgerError> {
        self.instant_or_null(row, column)?.ok_or_else(|| self.nonsense(column, "null"))
    }

    pub(super) fn instant_or_null(&self, row: &SqliteRow, column: &str) -> Result<Option<Timestamp>, LedgerError> {
        self.get::<Option<i64>>(row, column)?
            .map(|value| Timestamp::from_millisecond(value).map_err(|_| self.nonsense(column, &value.to_string())))
            .transpose()
    }

    pub(super) fn natural<T: TryFrom<i64>>(&self, row: &SqliteRow, column: &str) -> Result<Option<T>, LedgerError> {
        self.get::<Option<i64>>(row, column)?
            .map(|value| T::try_from(value).map_err(|_| self.nonsense(column, &value.to_string())))
            .transpose()
    }

    pub(super) fn outcome(&self, row: &SqliteRow, column: &str) -> Result<Option<Outcome>, LedgerError> {
        self.get::<Option<String>>(row, column)?.map(|word| self.known(column, &word, Outcome::parse)).transpose()
    }

    fn remark(&self, row: &SqliteRow) -> Result<Option<Remark>, LedgerError> {
        self.get::<Option<String>>(row, "remark")?.map(|word| self.known("remark", &word, Remark::parse)).transpose()
    }

    pub(super) fn entry(&self, row: &SqliteRow) -> Result<Entry, LedgerError> {
        let date = self.text(row, "date")?;
        let source = self.text(row, "source")?;
        let settled = self.text(row, "settled")?;
        let settled = self.known("settled", &settled, settled_from)?;
        let object = match (self.get::<Option<String>>(row, "object_key")?, settled) {
            (Some(key), Settled::Stored) => Some(StoredObject {
                key,
                size: self.natural(row, "size")?.ok_or_else(|| self.nonsense("size", "null"))?,
                sha256: self.text(row, "sha256")?,
                stored_at: self.instant(row, "stored_at")?,
            }),
            _ => None,
        };
        Ok(Entry {
            partition: Partition {
                id: PartitionId {
                    report: ReportId::new(&self.text(row, "workspace")?, &self.text(row, "report")?),
                    date: date.parse::<civil::Date>().map_err(|_| self.nonsense("date", &date))?,
                },
                source: self.known("source", &source, SourceKind::parse)?,
                generated_at: self.instant(row, "generated_at")?,
                due_at: self.instant(row, "due_at")?,
                expires_at: self.instant_or_null(row, "expires_at")?,
            },
            settled,
            outcome: self.outcome(row, "outcome")?,
            attempts: self.natural(row, "attempts")?.unwrap_or(0),
            streak: self.natural(row, "streak")?.unwrap_or(0),
            repeats: self.natural(row, "repeats")?.unwrap_or(0),
            last_attempt_at: self.instant_or_null(row, "last_attempt_at")?,
            next_attempt_at: self.instant_or_null(row, "next_attempt_at")?,
            seen: self.get(row, "seen")?,
            denied_at: self.instant_or_null(row, "denied_at")?,
            asked_late: self.get(row, "asked_late")?,
            remark: self.remark(row)?,
            message: self.get(row, "message")?,
            object,
        })
    }

    fn hold(&self, row: &SqliteRow) -> Result<Hold, LedgerError> {
        Ok(Hold {
            outcome: self.outcome(row, "outcome")?.ok_or_else(|| self.nonsense("holds.outcome", "null"))?,
            since: self.instant(row, "since")?,
            until: self.instant(row, "until")?,
            is_asked: self.get(row, "is_asked")?,
        })
    }

    pub(super) fn attempt(&self, row: &SqliteRow) -> Result<RecordedAttempt, LedgerError> {
        Ok(RecordedAttempt {
            started_at: self.instant(row, "started_at")?,
            finished_at: self.instant(row, "finished_at")?,
            outcome: self.outcome(row, "outcome")?.ok_or_else(|| self.nonsense("attempts.outcome", "null"))?,
            remark: self.remark(row)?,
            message: self.text(row, "message")?,
            http_status: self.natural(row, "http_status")?,
            request_id: self.get(row, "request_id")?,
            size: self.natural(row, "size")?,
            sha256: self.get(row, "sha256")?,
        })
    }
}

/// One connection, for which the process's tasks queue: connections that want to write at the same time wait for each
/// other by sleeping, up to a tenth of a second at a time, though the other is done in less than a millisecond.
async fn connect(path: &Path, options: SqliteConnectOptions) -> Result<SqlitePool, LedgerError> {
    SqlitePoolOptions::new()
        .max_connections(1)
        // There is no network on which it could have been lost since.
        .test_before_acquire(false)
        // Nor anything to renew. The task that would do so can spin for ever once the pool is closed (sqlx 0.9.0).
        .idle_timeout(None)
        .max_lifetime(None)
        // On a full disk SQLite rolls back by itself. sqlx does not notice, and would refuse to begin ever after.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .connect_with(options)
        .await
        .map_err(|error| classify(path, "open", error))
}

/// A few pages of nonsense in the middle of a database go unnoticed until they are read: look at all of it first.
///
/// CHECK constraints are left out: one that lists words is also broken by a newer version, which is not damage.
async fn check_soundness(path: &Path, pool: &SqlitePool) -> Result<(), LedgerError> {
    let failed = |error| classify(path, "check", error);
    let mut connection = pool.acquire().await.map_err(failed)?;
    sqlx::query("PRAGMA ignore_check_constraints = ON").execute(&mut *connection).await.map_err(failed)?;
    let verdict: String =
        sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut *connection).await.map_err(failed)?;
    sqlx::query("PRAGMA ignore_check_constraints = OFF").execute(&mut *connection).await.map_err(failed)?;
    if verdict == "ok" { Ok(()) } else { Err(LedgerError::Damaged { path: path.to_owned(), reason: verdict }) }
}

async fn has_table(path: &Path, pool: &SqlitePool, name: &str) -> Result<bool, LedgerError> {
    sqlx::query_scalar("SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = ?")
        .bind(name)
        .fetch_one(pool)
        .await
        .map_err(|error| classify(path, "read", error))
}

async fn has_column(path: &Path, pool: &SqlitePool, table: &str, column: &str) -> Result<bool, LedgerError> {
    sqlx::query_scalar("SELECT count(*) > 0 FROM pragma_table_info($1) WHERE name = $2")
        .bind(table)
        .bind(column)
        .fetch_one(pool)
        .await
        .map_err(|error| classify(path, "read", error))
}

fn newest_migration() -> Option<i64> {
    MIGRATIONS.iter().map(|migration| migration.version).max()
}

/// Returns the ledger's version: its newest migration.
async fn refuse_newer_schema(path: &Path, pool: &SqlitePool) -> Result<Option<i64>, LedgerError> {
    if !has_table(path, pool, "_sqlx_migrations").await? {
        return Ok(None);
    }
    let version: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(pool)
        .await
        .map_err(|error| classify(path, "read", error))?;
    match version {
        Some(version) if Some(version) > newest_migration() => {
            Err(LedgerError::TooNew { path: path.to_owned(), found: format!("migration {version}") })
        }
        version => Ok(version),
    }
}

/// Whether a word is in a column's set.
type IsKnown = fn(&str) -> bool;

/// Every column that holds one of a fixed set of words: table, column, and which words it may hold.
const VOCABULARY: [(&str, &str, IsKnown); 9] = [
    ("partitions", "settled", |word| settled_from(word).is_some()),
    ("partitions", "source", |word| SourceKind::parse(word).is_some()),
    ("partitions", "outcome", |word| Outcome::parse(word).is_some()),
    ("partitions", "remark", |word| Remark::parse(word).is_some()),
    ("attempts", "outcome", |word| Outcome::parse(word).is_some()),
    ("attempts", "remark", |word| Remark::parse(word).is_some()),
    ("holds", "outcome", |word| Outcome::parse(word).is_some()),
    ("told", "alarm", |word| AlarmKind::parse(word).is_some()),
    ("told", "told_as", |word| AlarmKind::parse(word).is_some()),
];

/// A newer version may add a word without a migration. It must be met before anything is changed, not while work goes on.
async fn refuse_unknown_words(path: &Path, pool: &SqlitePool) -> Result<(), LedgerError> {
    for (table, column, is_known) in VOCABULARY {
        if !has_column(path, pool, table, column).await? {
            continue;
        }
        let query = format!("SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL");
        let words: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .fetch_all(pool)
            .await
            .map_err(|error| classify(path, "read", error))?;
        if let Some(word) = words.iter().find(|word| !is_known(word)) {
            return Err(unknown(path, &format!("{table}.{column}"), word));
        }
    }
    Ok(())
}

/// What is wrong where `text` stands in a column that holds one of a fixed set of words: if it is a word as moesync writes
/// them, a newer version wrote it; anything else is damage.
fn unknown(path: &Path, column: &str, text: &str) -> LedgerError {
    let is_word = (2..=40).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    match is_word {
        true => LedgerError::TooNew { path: path.to_owned(), found: format!("{column} holds the word `{text}`") },
        false => LedgerError::Damaged { path: path.to_owned(), reason: format!("{column} holds {text:?}") },
    }
}

fn migration_error(path: &Path, error: MigrateError) -> LedgerError {
    match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            LedgerError::TooNew { path: path.to_owned(), found: format!("migration {version}") }
        }
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
            classify(path, "bring up to date", source)
        }
        other => LedgerError::File {
            message: format!("could not bring the ledger {} up to date: {other}", path.display()),
            source: None,
        },
    }
}

/// SQLITE_CORRUPT and SQLITE_NOTADB mean a damaged file. SQLITE_READONLY_ROLLBACK is met by readers alone: whoever made
/// the ledger died before it had a write-ahead log. Everything else is a failure of the moment.
fn classify(path: &Path, action: &'static str, source: sqlx::Error) -> LedgerError {
    let code = source.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i64>().ok());
    if code == Some(776) {
        return LedgerError::File {
            message: format!(
                "the ledger {} was left unfinished by a process that died; `moesync sync` or `moesync run` finish it",
                path.display()
            ),
            source: None,
        };
    }
    match code.map(|code| code & 0xff) {
        Some(11 | 26) => LedgerError::Damaged { path: path.to_owned(), reason: source.to_string() },
        _ => LedgerError::Database { action, path: path.to_owned(), source },
    }
}

fn settled_word(settled: Settled) -> &'static str {
    match settled {
        Settled::Open => "open",
        Settled::Stored => "stored",
        Settled::Absent => "absent",
        Settled::Lost => "lost",
    }
}

fn settled_from(word: &str) -> Option<Settled> {
    [Settled::Open, Settled::Stored, Settled::Absent, Settled::Lost].into_iter().find(|s| settled_word(*s) == word)
}

/// SQLite's integers are signed; no object comes near the limit.
fn to_integer(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
