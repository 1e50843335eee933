-- The terms of a key: whose money it spends, how much of it, how long, and where it goes back to.
-- A key without a row here spends its own balance without limit.
CREATE TABLE key_terms (
    account         INTEGER NOT NULL PRIMARY KEY REFERENCES accounts (id),
    -- A child key has a parent, whose money it spends; it never has any of its own.
    parent          INTEGER REFERENCES accounts (id),
    -- Most that may be spent in a window, in msat; without a reset period, ever.
    cap             INTEGER CHECK (cap >= 0),
    reset           TEXT CHECK (reset IN ('daily', 'weekly', 'monthly')),
    -- When the window ends, in ms: from then on `used` counts as nothing. A trigger opens the next
    -- window at the first charge in it, at midnight UTC of a day, a Monday, or a first of the month.
    resets_at       INTEGER,
    used            INTEGER NOT NULL DEFAULT 0,
    -- Open holds, and all that was ever charged, of this key: carried over from `holds` by triggers.
    held            INTEGER NOT NULL DEFAULT 0,
    spent           INTEGER NOT NULL DEFAULT 0,
    requests        INTEGER NOT NULL DEFAULT 0,
    -- Unix seconds from which on the key is refused.
    valid_until     INTEGER CHECK (valid_until >= 0),
    -- Lightning address or LNURL that the balance is paid to after `expires_at`, in Unix seconds.
    refund_address  TEXT,
    expires_at      INTEGER,
    CHECK (parent <> account),
    CHECK (held >= 0),
    CHECK (used >= 0 AND used <= spent),
    CHECK ((reset IS NULL) = (resets_at IS NULL)),
    CHECK ((refund_address IS NULL) = (expires_at IS NULL)),
    CHECK (parent IS NULL OR refund_address IS NULL)
) STRICT;

CREATE INDEX key_terms_by_parent ON key_terms (parent) WHERE parent IS NOT NULL;
CREATE INDEX key_terms_by_expiry ON key_terms (expires_at) WHERE expires_at IS NOT NULL;

-- The key that was presented, where it has terms; `account` is whose money it is.
ALTER TABLE holds ADD COLUMN spender INTEGER REFERENCES accounts (id);

CREATE INDEX holds_by_spender ON holds (spender) WHERE spender IS NOT NULL;

-- The history of a key, without its charges, whose transfers have negative ids.
CREATE INDEX transfers_out ON transfers (debit, id) WHERE id > 0;
CREATE INDEX transfers_in ON transfers (credit, id) WHERE id > 0;
