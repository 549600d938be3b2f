-- Distinguishes an attempt from others with the same outcome. Before this column decisions were made by how the message begins.
ALTER TABLE attempts ADD COLUMN remark TEXT;
ALTER TABLE partitions ADD COLUMN remark TEXT;

UPDATE attempts SET remark = 'other_content'
WHERE outcome = 'stored' AND substr(message, 1, 13) = 'other content';

UPDATE attempts SET remark = 'damaged_wrapper'
WHERE outcome = 'corrupt' AND substr(message, 1, 59) = 'the gzip that the server packed the archive into is damaged';

UPDATE partitions SET remark = (
    SELECT remark FROM attempts WHERE partition_id = partitions.id ORDER BY id DESC LIMIT 1
);
