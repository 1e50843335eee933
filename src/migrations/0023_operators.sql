-- Who acts on the operator's side, and what they did.
ALTER TABLE sessions ADD COLUMN actor TEXT NOT NULL DEFAULT 'password';

-- For programs: only a hash of each is kept.
CREATE TABLE admin_tokens (
    id          TEXT    NOT NULL PRIMARY KEY,
    token_hash  TEXT    NOT NULL UNIQUE,
    name        TEXT    NOT NULL,
    -- Words separated by spaces: read, manage, money.
    scopes      TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    used_at     INTEGER
) STRICT;

-- Every change that an operator made. It is only added to.
CREATE TABLE admin_trail (
    id       TEXT    NOT NULL PRIMARY KEY,
    at       INTEGER NOT NULL,
    actor    TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    -- JSON: what was asked for, what was there before.
    detail   TEXT    NOT NULL
) STRICT;
CREATE INDEX admin_trail_by_time ON admin_trail (at);
