-- One-time codes that the operator gives away. A code is kept as its keyed hash; `hint`, its first and
-- last letters, tells one from another. The money waits on `account`: a key's account, whose key
-- derives from the code and is nobody's before the voucher is redeemed.
CREATE TABLE vouchers (
    id           INTEGER NOT NULL PRIMARY KEY,
    code_hash    TEXT    NOT NULL UNIQUE,
    hint         TEXT    NOT NULL,
    account      INTEGER NOT NULL UNIQUE REFERENCES accounts (id),
    amount       INTEGER NOT NULL CHECK (amount > 0),
    -- One form, or one call of the command, is one batch: sent twice, it issues once.
    batch        TEXT    NOT NULL,
    place        INTEGER NOT NULL,
    note         TEXT    NOT NULL DEFAULT '',
    state        TEXT    NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'redeemed', 'revoked', 'expired')),
    -- In ms; without it the voucher never expires.
    expires_at   INTEGER,
    -- Whose money it became: `account` itself, where it made a key.
    redeemed_by  INTEGER REFERENCES accounts (id),
    created_at   INTEGER NOT NULL,
    ended_at     INTEGER,
    UNIQUE (batch, place),
    CHECK ((state = 'open') = (ended_at IS NULL)),
    CHECK ((state = 'redeemed') = (redeemed_by IS NOT NULL))
) STRICT;

CREATE INDEX vouchers_expiring ON vouchers (expires_at) WHERE state = 'open' AND expires_at IS NOT NULL;
