-- The journal of everything that crosses to a mint: written before the act, with all that is
-- needed to finish or undo it. See `wallet::journal` for the states.
CREATE TABLE operations (
    id          TEXT    NOT NULL PRIMARY KEY,
    kind        TEXT    NOT NULL CHECK (kind IN ('redeem', 'change', 'refund')),
    state       TEXT    NOT NULL CHECK (state IN ('planned', 'acting', 'done', 'refused')),
    account     INTEGER NOT NULL REFERENCES accounts (id),
    mint        TEXT    NOT NULL,
    unit        TEXT    NOT NULL,
    -- redeem: what was credited; change and refund: what is owed. In msat.
    amount      INTEGER NOT NULL,
    -- redeem: keyed hash of the token, so that one token has one operation.
    token_hash  TEXT    UNIQUE,
    -- The swap, as `wallet::swap` stores it; empty until one is needed.
    plan        TEXT    NOT NULL DEFAULT '',
    -- change and refund: the token that was made. redeem: why it was refused.
    result      TEXT    NOT NULL DEFAULT '',
    owner       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX operations_unfinished ON operations (updated_at) WHERE state IN ('planned', 'acting');
CREATE INDEX operations_by_account ON operations (account, created_at);

-- One row per secret of every token that was accepted: the same proof is never credited twice,
-- however it is encoded or combined with others.
CREATE TABLE claimed_secrets (
    secret_hash TEXT    NOT NULL PRIMARY KEY,
    operation   TEXT    NOT NULL REFERENCES operations (id)
) STRICT;

CREATE INDEX claimed_secrets_by_operation ON claimed_secrets (operation);
