-- blocked_at: since when, in ms, the operator lets the key spend nothing; its owner is still paid back. label: the
-- operator's name for the key.
ALTER TABLE key_terms ADD COLUMN blocked_at INTEGER;
ALTER TABLE key_terms ADD COLUMN label TEXT NOT NULL DEFAULT '';

CREATE INDEX key_terms_blocked ON key_terms (account) WHERE blocked_at IS NOT NULL;
CREATE INDEX key_terms_labelled ON key_terms (account, label) WHERE label <> '';

-- Money that the operator moved between the income and a key, in msat: negative where it was written off. The id
-- names the form, so that one form moves money once; it is the reference of the transfer.
CREATE TABLE adjustments (
    id          TEXT    NOT NULL PRIMARY KEY,
    account     INTEGER NOT NULL REFERENCES accounts (id),
    msat        INTEGER NOT NULL CHECK (msat <> 0),
    reason      TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX adjustments_by_account ON adjustments (account, created_at);

-- What went to the operator, newest first.
CREATE INDEX operations_payouts ON operations (created_at, id) WHERE kind = 'payout';
