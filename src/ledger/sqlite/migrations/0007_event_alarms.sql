-- The alarms that a target knows by an event which waits: `told.alarm`, a blank and `told.subject` of each.
CREATE TABLE event_alarms (
    event INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
    alarm TEXT NOT NULL,
    PRIMARY KEY (event, alarm)
) STRICT;

CREATE INDEX event_alarms_alarm ON event_alarms (alarm, event);

INSERT INTO event_alarms (event, alarm) SELECT DISTINCT outbox.id, value FROM outbox, json_each(outbox.alarms);

ALTER TABLE outbox DROP COLUMN alarms;
