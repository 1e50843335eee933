-- Requests with an Idempotency-Key. id: keyed hash of who pays and the key; fingerprint: keyed hash
-- of what was asked. The outcome is sealed with a key that only the payer's credential completes.
CREATE TABLE replays (
    id          TEXT    NOT NULL PRIMARY KEY,
    fingerprint TEXT    NOT NULL,
    request     TEXT    NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('running', 'kept', 'not_kept')),
    owner       TEXT    NOT NULL,
    outcome     TEXT    NOT NULL DEFAULT '',
    created_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX replays_by_age ON replays (created_at);
