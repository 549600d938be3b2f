-- The reports whose objects from before this ledger began are known to it. Until then how far a report is planned says
-- nothing of how far it was planned before.
CREATE TABLE recovered (
    workspace TEXT NOT NULL,
    report    TEXT NOT NULL,
    PRIMARY KEY (workspace, report)
) STRICT;

INSERT INTO recovered (workspace, report) SELECT workspace, report FROM reports;

-- How sending to a target goes: how many sends in a row have failed, when the last one did, and before which times nothing,
-- or no alarm, is sent. Instants are milliseconds since 1970-01-01 UTC.
ALTER TABLE targets ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
ALTER TABLE targets ADD COLUMN failed_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE targets ADD COLUMN next_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE targets ADD COLUMN next_alarm_at INTEGER NOT NULL DEFAULT 0;

ALTER TABLE outbox ADD COLUMN is_alarm INTEGER NOT NULL DEFAULT 0;
UPDATE outbox SET is_alarm = 1 WHERE alarms <> '[]';
