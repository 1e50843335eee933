-- What requests cost at the upstreams, by the id of their hold, which sorts by time: a row more is written at the end of
-- the table, and no index has to be. A probe has an id of its own. created_at is in the id, too (its milliseconds are
-- the bits from 21 on).
CREATE TABLE outlays_by_id (
    id          INTEGER NOT NULL PRIMARY KEY,
    upstream    TEXT    NOT NULL,
    model       TEXT    NOT NULL,
    nano_usd    INTEGER,
    msat        INTEGER,
    charged     INTEGER NOT NULL,
    attempts    TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

INSERT INTO outlays_by_id (id, upstream, model, nano_usd, msat, charged, attempts, created_at)
    SELECT h.id, o.upstream, o.model, o.nano_usd, o.msat, o.charged, o.attempts, o.created_at
    FROM outlays o JOIN (SELECT request, MAX(id) AS id FROM holds GROUP BY request) h ON h.request = o.request;

INSERT INTO outlays_by_id (id, upstream, model, nano_usd, msat, charged, attempts, created_at)
    SELECT p.created_at * 2097152 + p.place % 2097152, p.upstream, p.model, p.nano_usd, p.msat, p.charged, p.attempts, p.created_at
    FROM (SELECT o.*, ROW_NUMBER() OVER (ORDER BY o.created_at) AS place FROM outlays o WHERE o.request LIKE 'probe-%') p
    WHERE p.created_at > 0
    ON CONFLICT (id) DO NOTHING;

DROP TABLE outlays;
ALTER TABLE outlays_by_id RENAME TO outlays;
