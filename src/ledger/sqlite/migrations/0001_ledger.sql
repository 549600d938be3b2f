-- Instants are milliseconds since 1970-01-01 UTC; dates are YYYY-MM-DD; sizes are bytes.

CREATE TABLE reports (
    workspace       TEXT NOT NULL,
    report          TEXT NOT NULL,
    planned_through INTEGER NOT NULL,
    PRIMARY KEY (workspace, report)
) STRICT;

CREATE TABLE partitions (
    id              INTEGER PRIMARY KEY,
    workspace       TEXT NOT NULL,
    report          TEXT NOT NULL,
    date            TEXT NOT NULL,
    source          TEXT NOT NULL,
    generated_at    INTEGER NOT NULL,
    due_at          INTEGER NOT NULL,
    expires_at      INTEGER,
    settled         TEXT NOT NULL DEFAULT 'open' CHECK (settled IN ('open', 'stored', 'absent', 'lost')),
    outcome         TEXT,
    attempts        INTEGER NOT NULL DEFAULT 0,
    streak          INTEGER NOT NULL DEFAULT 0,
    repeats         INTEGER NOT NULL DEFAULT 0,
    last_attempt_at INTEGER,
    next_attempt_at INTEGER,
    seen            INTEGER NOT NULL DEFAULT 0,
    denied_at       INTEGER,
    message         TEXT,
    object_key      TEXT,
    size            INTEGER,
    sha256          TEXT,
    stored_at       INTEGER,
    UNIQUE (workspace, report, date),
    CHECK (settled <> 'stored' OR (object_key IS NOT NULL AND size IS NOT NULL AND sha256 IS NOT NULL AND stored_at IS NOT NULL))
) STRICT;

CREATE INDEX partitions_open ON partitions (settled) WHERE settled = 'open';

CREATE TABLE attempts (
    id           INTEGER PRIMARY KEY,
    partition_id INTEGER NOT NULL REFERENCES partitions (id) ON DELETE CASCADE,
    started_at   INTEGER NOT NULL,
    finished_at  INTEGER NOT NULL,
    outcome      TEXT NOT NULL,
    http_status  INTEGER,
    message      TEXT NOT NULL,
    vendor_date  INTEGER,
    size         INTEGER,
    sha256       TEXT,
    request_id   TEXT
) STRICT;

CREATE INDEX attempts_partition ON attempts (partition_id, id);

-- Who works on a partition now. A row of a holder that has died is void: see ledger/holder.rs.
CREATE TABLE claims (
    partition_id INTEGER PRIMARY KEY REFERENCES partitions (id) ON DELETE CASCADE,
    holder       TEXT NOT NULL,
    token        INTEGER NOT NULL
) STRICT;

CREATE TABLE holds (
    workspace TEXT PRIMARY KEY,
    outcome   TEXT NOT NULL,
    since     INTEGER NOT NULL,
    until     INTEGER NOT NULL,
    is_asked  INTEGER NOT NULL
) STRICT;
