-- When the next request of an account to an API may be sent, by the server's clock, for all processes of the ledger.
CREATE TABLE rates (
    account     TEXT COLLATE "C" NOT NULL,
    source      TEXT COLLATE "C" NOT NULL,
    free_at     BIGINT NOT NULL,
    rests_until BIGINT NOT NULL,
    PRIMARY KEY (account, source)
);

-- Work that one process of the ledger does at a time, and which process that is.
CREATE TABLE duties (
    name   TEXT COLLATE "C" PRIMARY KEY,
    holder TEXT COLLATE "C" NOT NULL
);
