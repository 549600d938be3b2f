-- 1 where the end of a partition had passed when a person first asked for it: what is denied then is absent, not lost.
ALTER TABLE partitions ADD COLUMN asked_late INTEGER NOT NULL DEFAULT 0;

-- 1 from the moment at which the object of a stored partition is about to be replaced: if the holder dies, the refresh was
-- left half done.
ALTER TABLE claims ADD COLUMN replaces INTEGER NOT NULL DEFAULT 0;

-- What shows that a workspace works: when an archive of it last came whole, by MoEngage's clock, which agreed with ours.
CREATE TABLE workspaces (
    workspace       TEXT PRIMARY KEY,
    archive_seen_at INTEGER NOT NULL
) STRICT;

INSERT INTO workspaces (workspace, archive_seen_at)
SELECT p.workspace, max(a.vendor_date)
FROM attempts a JOIN partitions p ON p.id = a.partition_id
WHERE p.source IN ('campaign_report', 'daily_dump') AND a.outcome = 'stored' AND a.http_status = 200
  AND a.vendor_date BETWEEN a.started_at - 60000 AND a.finished_at + 60000
GROUP BY p.workspace;
