-- 1 if a person has seen that the partition is lost.
ALTER TABLE partitions ADD COLUMN acknowledged INTEGER NOT NULL DEFAULT 0;

CREATE INDEX partitions_unseen_loss ON partitions (workspace, report, date) WHERE settled = 'lost' AND acknowledged = 0;
