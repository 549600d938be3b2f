-- Bytes that were received completely, and attempts that found other content at the partition's key.
ALTER TABLE attempt_figures ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempt_figures ADD COLUMN other_content INTEGER NOT NULL DEFAULT 0;

UPDATE attempt_figures SET
    bytes = (SELECT coalesce(sum(a.size), 0) FROM attempts a JOIN partitions p ON p.id = a.partition_id
             WHERE p.workspace = attempt_figures.workspace AND p.report = attempt_figures.report
               AND a.outcome = attempt_figures.outcome),
    other_content = (SELECT count(*) FROM attempts a JOIN partitions p ON p.id = a.partition_id
             WHERE p.workspace = attempt_figures.workspace AND p.report = attempt_figures.report
               AND a.outcome = attempt_figures.outcome AND a.remark = 'other_content');
