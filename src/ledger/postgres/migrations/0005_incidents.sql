-- The alarms that a process has raised about itself, and that have not ended. A row of a holder that has died is void.
CREATE TABLE incidents (
    holder  TEXT COLLATE "C" NOT NULL,
    alarm   TEXT COLLATE "C" NOT NULL,
    message TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (holder, alarm)
);
