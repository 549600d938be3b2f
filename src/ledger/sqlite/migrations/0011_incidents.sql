-- The alarms that a process has raised about itself, and that have not ended. A row of a holder that has died is void.
CREATE TABLE incidents (
    holder  TEXT NOT NULL,
    alarm   TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (holder, alarm)
) STRICT;
