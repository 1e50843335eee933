-- The APIs behind the node. origin: who described it; what the environment says goes before what the
-- operator stored under the same name. spec: an entry of UPSTREAMS without its secrets, which are sealed.
CREATE TABLE upstreams (
    name        TEXT    NOT NULL,
    origin      TEXT    NOT NULL CHECK (origin IN ('environment', 'operator')),
    position    INTEGER NOT NULL,
    spec        TEXT    NOT NULL,
    sealed      TEXT    NOT NULL,
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (name, origin)
) STRICT;

-- What a request (holds.request), or a probe, cost the operator, beside what its client was charged. nano_usd
-- and msat are absent where it is not known. attempts: JSON, one entry for each upstream that was asked.
CREATE TABLE outlays (
    request     TEXT    NOT NULL PRIMARY KEY,
    upstream    TEXT    NOT NULL,
    model       TEXT    NOT NULL,
    nano_usd    INTEGER,
    msat        INTEGER,
    charged     INTEGER NOT NULL,
    attempts    TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX outlays_by_age ON outlays (created_at);

-- The same in sums, for spend caps. day: days since the Unix epoch.
CREATE TABLE upstream_days (
    upstream    TEXT    NOT NULL,
    day         INTEGER NOT NULL,
    requests    INTEGER NOT NULL,
    nano_usd    INTEGER NOT NULL,
    PRIMARY KEY (upstream, day)
) STRICT;
