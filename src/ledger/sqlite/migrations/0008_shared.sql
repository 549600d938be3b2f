-- When the next request of an account to an API may be sent, for all processes of the ledger.
CREATE TABLE rates (
    account     TEXT NOT NULL,
    source      TEXT NOT NULL,
    free_at     INTEGER NOT NULL,
    rests_until INTEGER NOT NULL,
    PRIMARY KEY (account, source)
) STRICT;

-- Work that one process of the ledger does at a time, and which process that is.
CREATE TABLE duties (
    name   TEXT PRIMARY KEY,
    holder TEXT NOT NULL
) STRICT;
