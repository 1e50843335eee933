-- How far this database has come with each data directory. See `store::lineage`.
CREATE TABLE lineage (
    node        TEXT    NOT NULL PRIMARY KEY,
    epoch       INTEGER NOT NULL,
    -- Random, new with every epoch; that of the epoch before.
    stamp       TEXT    NOT NULL,
    previous    TEXT    NOT NULL
) STRICT;

-- Times when this database was found to be older than what had been done with it. See
-- `wallet::recovery`.
CREATE TABLE recoveries (
    id          TEXT    NOT NULL PRIMARY KEY,
    reason      TEXT    NOT NULL,
    began_at    INTEGER NOT NULL,
    -- NULL: no money moves yet.
    ended_at    INTEGER,
    -- What came of it, as JSON.
    report      TEXT    NOT NULL DEFAULT '',
    -- Who is at it, and until when nobody else is.
    owner       TEXT    NOT NULL DEFAULT '',
    due_at      INTEGER NOT NULL DEFAULT 0
) STRICT;
