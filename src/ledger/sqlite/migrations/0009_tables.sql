-- The reports whose tables are made, and in which format; which process makes them now, with a token that recording checks;
-- how many rows they have, and the newest date.
CREATE TABLE report_tables (
    workspace TEXT NOT NULL,
    report    TEXT NOT NULL,
    format    TEXT NOT NULL,
    holder    TEXT,
    token     INTEGER NOT NULL DEFAULT 0,
    made_rows INTEGER NOT NULL DEFAULT 0,
    newest    TEXT,
    PRIMARY KEY (workspace, report)
) STRICT;

-- The state of a stored partition's tables; NULL if none are made of its report.
ALTER TABLE partitions ADD COLUMN tables TEXT;

CREATE INDEX partitions_tables_due ON partitions (workspace, report, date) WHERE tables IN ('pending', 'failed');
CREATE INDEX partitions_tables_failed ON partitions (workspace, report, date) WHERE tables = 'failed';

-- The last attempt to make the tables of a partition. `sha256`: of the object that it read. `objects`: a JSON list of the
-- tables' objects at the destination; NULL from when an attempt begins until it is recorded. `remake`: 1 if tables that are
-- there already are made again. `number` orders what was made. Instants are milliseconds since 1970-01-01 UTC.
CREATE TABLE partition_tables (
    partition_id    INTEGER PRIMARY KEY REFERENCES partitions (id) ON DELETE CASCADE,
    sha256          TEXT,
    objects         TEXT,
    left_alone      TEXT NOT NULL DEFAULT '[]',
    made_rows       INTEGER NOT NULL DEFAULT 0,
    remake          INTEGER NOT NULL DEFAULT 0,
    failures        INTEGER NOT NULL DEFAULT 0,
    message         TEXT,
    finished_at     INTEGER,
    next_attempt_at INTEGER,
    number          INTEGER UNIQUE
) STRICT;

-- What changed in the schemas of tables, as JSON.
CREATE TABLE schema_changes (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace  TEXT NOT NULL,
    report     TEXT NOT NULL,
    name       TEXT NOT NULL,
    date       TEXT NOT NULL,
    difference TEXT NOT NULL,
    UNIQUE (workspace, report, name, date, difference)
) STRICT;

-- Up to which number a target was notified of tables, and up to which id of changes of schemas.
ALTER TABLE targets ADD COLUMN tables_read INTEGER NOT NULL DEFAULT 0;
ALTER TABLE targets ADD COLUMN changes_read INTEGER NOT NULL DEFAULT 0;
