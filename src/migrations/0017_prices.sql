-- What each source of prices said last. address: the digest of its URL, which etag belongs to. list: JSON;
-- empty while it never answered.
CREATE TABLE price_sources (
    name        TEXT    NOT NULL PRIMARY KEY,
    address     TEXT    NOT NULL,
    etag        TEXT    NOT NULL,
    digest      TEXT    NOT NULL,
    list        TEXT    NOT NULL,
    notes       TEXT    NOT NULL,
    trouble     TEXT    NOT NULL,
    checked_at  INTEGER NOT NULL,
    changed_at  INTEGER
) STRICT;

-- Models that are offered because a source lists them, at the prices that are in force. entry: as in a
-- list of models.
CREATE TABLE synced_models (
    id          TEXT    NOT NULL PRIMARY KEY,
    source      TEXT    NOT NULL,
    entry       TEXT    NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

-- What the operator has decided about a model, wherever its prices come from. refused: the digest of the
-- change that was refused.
CREATE TABLE model_choices (
    id          TEXT    NOT NULL PRIMARY KEY,
    is_off      INTEGER NOT NULL,
    -- Sold, and not listed.
    is_hidden   INTEGER NOT NULL,
    below_cost  INTEGER NOT NULL,
    refused     TEXT    NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

-- Counts the changes of the three, so that every process notices them, and none writes over another's.
CREATE TABLE price_revision (
    id        INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    revision  INTEGER NOT NULL
) STRICT;
INSERT INTO price_revision (id, revision) VALUES (1, 0);
