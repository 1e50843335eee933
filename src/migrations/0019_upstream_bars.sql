-- Upstreams that are not asked until the operator says so, because they refuse the operator's account.
-- identity: keyed hash of address and key; another one is a new beginning. generation: counted up by each
-- clearing, so that every process notices, and what a process saw before it counts no more. bar, since:
-- why, and from when on (ms since the Unix epoch); absent where nothing is held against it.
CREATE TABLE upstream_bars (
    name        TEXT    NOT NULL PRIMARY KEY,
    identity    TEXT    NOT NULL,
    generation  INTEGER NOT NULL,
    bar         TEXT,
    since       INTEGER
) STRICT;
