-- Figures that every transaction keeps up to date which changes a partition or adds an attempt, so that no reader counts
-- over the history. Instants are milliseconds since 1970-01-01 UTC; sizes are bytes.

-- Every report with a partition in the ledger, once for each source that it ever had. `newest_stored` is a generation time; `newest_lost` the end of an attempt.
CREATE TABLE report_figures (
    workspace     TEXT NOT NULL,
    report        TEXT NOT NULL,
    source        TEXT NOT NULL,
    stored        INTEGER NOT NULL DEFAULT 0,
    absent        INTEGER NOT NULL DEFAULT 0,
    lost          INTEGER NOT NULL DEFAULT 0,
    stored_bytes  INTEGER NOT NULL DEFAULT 0,
    newest_stored INTEGER,
    newest_lost   INTEGER,
    PRIMARY KEY (workspace, report, source)
) STRICT;

INSERT INTO report_figures (workspace, report, source, stored, absent, lost, stored_bytes, newest_stored, newest_lost)
SELECT workspace, report, source,
       count(*) FILTER (WHERE settled = 'stored'), count(*) FILTER (WHERE settled = 'absent'),
       count(*) FILTER (WHERE settled = 'lost'), coalesce(sum(size) FILTER (WHERE settled = 'stored'), 0),
       max(generated_at) FILTER (WHERE settled = 'stored'), max(last_attempt_at) FILTER (WHERE settled = 'lost')
FROM partitions GROUP BY workspace, report, source;

-- Attempts that were ever recorded, also those that are deleted since. `within_N` took no longer than N seconds.
CREATE TABLE attempt_figures (
    workspace    TEXT NOT NULL,
    report       TEXT NOT NULL,
    outcome      TEXT NOT NULL,
    attempts     INTEGER NOT NULL,
    milliseconds INTEGER NOT NULL,
    within_1     INTEGER NOT NULL,
    within_5     INTEGER NOT NULL,
    within_15    INTEGER NOT NULL,
    within_60    INTEGER NOT NULL,
    within_300   INTEGER NOT NULL,
    within_900   INTEGER NOT NULL,
    within_1800  INTEGER NOT NULL,
    within_3600  INTEGER NOT NULL,
    PRIMARY KEY (workspace, report, outcome)
) STRICT;

-- A clock that was set back during an attempt makes it end before it began.
INSERT INTO attempt_figures (workspace, report, outcome, attempts, milliseconds, within_1, within_5, within_15, within_60,
                             within_300, within_900, within_1800, within_3600)
SELECT workspace, report, outcome, count(*), sum(took),
       count(*) FILTER (WHERE took <= 1000), count(*) FILTER (WHERE took <= 5000),
       count(*) FILTER (WHERE took <= 15000), count(*) FILTER (WHERE took <= 60000),
       count(*) FILTER (WHERE took <= 300000), count(*) FILTER (WHERE took <= 900000),
       count(*) FILTER (WHERE took <= 1800000), count(*) FILTER (WHERE took <= 3600000)
FROM (SELECT p.workspace, p.report, a.outcome,
             CASE WHEN a.finished_at > a.started_at THEN a.finished_at - a.started_at ELSE 0 END AS took
      FROM attempts a JOIN partitions p ON p.id = a.partition_id) AS durations
GROUP BY workspace, report, outcome;

-- What planning can meet again of a report: what was generated after it was last planned.
CREATE INDEX partitions_generated ON partitions (workspace, report, generated_at);
-- Stored partitions whose replacement was left half done.
CREATE INDEX partitions_half_done ON partitions (workspace, report) WHERE settled = 'stored' AND outcome = 'store_failed';
-- Old attempts, which are deleted.
CREATE INDEX attempts_finished ON attempts (finished_at);
