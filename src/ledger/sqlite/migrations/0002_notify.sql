-- Instants are milliseconds since 1970-01-01 UTC; durations are seconds.

-- Who is told, and since when: up to which attempt its news, its pings and its summaries go, and when it had the last of
-- those.
CREATE TABLE targets (
    name                TEXT PRIMARY KEY,
    since               INTEGER NOT NULL,
    attempts_read       INTEGER NOT NULL,
    attempts_pinged     INTEGER NOT NULL,
    attempts_summarized INTEGER NOT NULL,
    summarized_at       INTEGER NOT NULL
) STRICT;

-- The alarms that a target knows of and that are not over.
CREATE TABLE told (
    target  TEXT NOT NULL,
    alarm   TEXT NOT NULL,
    subject TEXT NOT NULL,
    since   INTEGER NOT NULL,
    told_as TEXT NOT NULL,
    within  INTEGER,
    PRIMARY KEY (target, alarm, subject)
) STRICT;

-- Events that have not arrived yet. `alarms` is a JSON list of the alarms that the target knows by it: `told.alarm`, a blank
-- and `told.subject` of each.
CREATE TABLE outbox (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    target          TEXT NOT NULL,
    event           TEXT NOT NULL,
    alarms          TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    tried_at        INTEGER,
    next_attempt_at INTEGER NOT NULL
) STRICT;

CREATE INDEX outbox_target ON outbox (target, id);

-- The reports of which something that is in danger is being fetched, and since when.
CREATE TABLE fetching (
    workspace TEXT NOT NULL,
    report    TEXT NOT NULL,
    since     INTEGER NOT NULL,
    PRIMARY KEY (workspace, report)
) STRICT;

CREATE INDEX partitions_lost ON partitions (settled) WHERE settled = 'lost';
