-- One journal for everything that crosses to a mint, a Lightning address or a client. See
-- `wallet::journal` for the states.
CREATE TABLE journal (
    id           TEXT    NOT NULL PRIMARY KEY,
    kind         TEXT    NOT NULL CHECK (kind IN
        ('redeem', 'topup', 'change', 'refund', 'expiry', 'payout', 'sweep')),
    state        TEXT    NOT NULL CHECK (state IN ('planned', 'acting', 'unknown', 'done', 'failed')),
    account      INTEGER NOT NULL REFERENCES accounts (id),
    mint         TEXT    NOT NULL,
    unit         TEXT    NOT NULL,
    -- Coming in: what is credited. Going out: what is owed. In msat.
    amount       INTEGER NOT NULL CHECK (amount >= 0),
    -- redeem: keyed hash of the token, so that one token has one operation.
    token_hash   TEXT    UNIQUE,
    -- Where money goes that does not become a token: a Lightning address or an LNURL.
    recipient    TEXT    NOT NULL DEFAULT '',
    -- Of the Lightning invoice, where there is one.
    payment_hash TEXT    NOT NULL DEFAULT '',
    -- The act, as `wallet` stores it; empty until there is one.
    plan         TEXT    NOT NULL DEFAULT '',
    -- What came of it: the token that was made, the proof of a payment, or why it failed.
    result       TEXT    NOT NULL DEFAULT '',
    owner        TEXT    NOT NULL,
    -- The lease: until then whoever owns the row is at work, or waits before the next attempt.
    due_at       INTEGER NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;

INSERT INTO journal (id, kind, state, account, mint, unit, amount, token_hash, plan, result, owner, due_at, created_at, updated_at)
SELECT id, kind, CASE state WHEN 'refused' THEN 'failed' ELSE state END, account, mint, unit, amount, token_hash,
    plan, result, owner, updated_at, created_at, updated_at FROM operations;

CREATE TABLE claims (
    secret_hash TEXT    NOT NULL PRIMARY KEY,
    operation   TEXT    NOT NULL REFERENCES journal (id)
) STRICT;

INSERT INTO claims (secret_hash, operation) SELECT secret_hash, operation FROM claimed_secrets;

DROP TABLE claimed_secrets;
DROP TABLE operations;
ALTER TABLE journal RENAME TO operations;
ALTER TABLE claims RENAME TO claimed_secrets;

CREATE INDEX operations_open ON operations (due_at) WHERE state IN ('planned', 'acting', 'unknown');
CREATE INDEX operations_by_account ON operations (account, created_at);
CREATE INDEX operations_by_payment_hash ON operations (payment_hash) WHERE payment_hash <> '';
CREATE INDEX claimed_secrets_by_operation ON claimed_secrets (operation);
