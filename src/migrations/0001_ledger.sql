-- The ledger. Written once for both databases: INTEGER becomes BIGINT and STRICT goes away on
-- PostgreSQL. Amounts are msat; times are milliseconds since the Unix epoch.

-- posted: the sum of all transfers into (+) and out of (−) the account. Liabilities and income are
-- positive, the ecash at a mint is negative, so that all accounts together are always zero.
-- held: the sum of the account's open holds. available = posted − held.
CREATE TABLE accounts (
    id          INTEGER NOT NULL PRIMARY KEY,
    kind        TEXT    NOT NULL CHECK (kind IN ('mint', 'key', 'token', 'change', 'income', 'mint_fees')),
    key_hash    TEXT    UNIQUE,
    mint        TEXT    NOT NULL DEFAULT '',
    unit        TEXT    NOT NULL DEFAULT '',
    posted      INTEGER NOT NULL DEFAULT 0,
    held        INTEGER NOT NULL DEFAULT 0,
    spent       INTEGER NOT NULL DEFAULT 0,
    requests    INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    CHECK (held >= 0),
    CHECK (CASE kind WHEN 'mint' THEN posted <= 0 WHEN 'mint_fees' THEN posted <= 0 ELSE posted >= held END)
) STRICT;

CREATE UNIQUE INDEX accounts_house ON accounts (kind, mint, unit) WHERE key_hash IS NULL;
CREATE INDEX accounts_by_kind ON accounts (kind, created_at);

-- Append-only: every movement of money is one row.
CREATE TABLE transfers (
    id          INTEGER NOT NULL PRIMARY KEY,
    debit       INTEGER NOT NULL REFERENCES accounts (id),
    credit      INTEGER NOT NULL REFERENCES accounts (id),
    amount      INTEGER NOT NULL CHECK (amount > 0),
    kind        TEXT    NOT NULL,
    reference   TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    CHECK (debit <> credit)
) STRICT;

CREATE INDEX transfers_by_debit ON transfers (debit);
CREATE INDEX transfers_by_credit ON transfers (credit);

-- Money set aside for one request. Ends exactly once. Triggers carry both ends of its life over to
-- the accounts, so that placing a hold is one statement, ending it another, and neither can be done
-- by halves. The transfer of a charge has the negated id of its hold.
CREATE TABLE holds (
    id          INTEGER NOT NULL PRIMARY KEY,
    account     INTEGER NOT NULL REFERENCES accounts (id),
    amount      INTEGER NOT NULL CHECK (amount > 0),
    request     TEXT    NOT NULL,
    owner       TEXT    NOT NULL,
    state       TEXT    NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'captured', 'released')),
    charged     INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    CHECK (charged >= 0 AND charged <= amount)
) STRICT;

CREATE INDEX holds_open_by_account ON holds (account) WHERE state = 'open';
CREATE INDEX holds_open_by_owner ON holds (owner) WHERE state = 'open';

-- Node processes that share this database; the one not seen for a while is dead.
CREATE TABLE nodes (
    id          TEXT    NOT NULL PRIMARY KEY,
    seen_at     INTEGER NOT NULL
) STRICT;

CREATE TABLE settings (
    name        TEXT    NOT NULL PRIMARY KEY,
    value       TEXT    NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
