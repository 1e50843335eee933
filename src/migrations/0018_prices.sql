-- The numbers that charges were reckoned by, each set of them once, under the hash of its text (JSON):
-- prices of a model with all that raises or lowers them, and rates of bitcoin with their sources. What is
-- kept of a request (holds.receipt) names them. Never changed, never removed.
CREATE TABLE price_sheets (
    id          TEXT    NOT NULL PRIMARY KEY,
    content     TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

-- What some keys pay instead of the price list: a factor on every price. Decimals are text; patterns of
-- model names are JSON lists. below_cost: it may sell for less than the upstream takes.
CREATE TABLE price_profiles (
    name         TEXT    NOT NULL PRIMARY KEY,
    multiplier   TEXT    NOT NULL,
    only_models  TEXT    NOT NULL,
    not_models   TEXT    NOT NULL,
    below_cost   INTEGER NOT NULL CHECK (below_cost IN (0, 1)),
    updated_at   INTEGER NOT NULL
) STRICT;

-- A factor on the prices of some hours. starts and ends: minutes of the day at utc_offset (minutes), the
-- second not included; days: bit 0 is Monday, and counts for where the window starts.
CREATE TABLE price_windows (
    name         TEXT    NOT NULL PRIMARY KEY,
    multiplier   TEXT    NOT NULL,
    starts       INTEGER NOT NULL CHECK (starts >= 0 AND starts < 1440),
    ends         INTEGER NOT NULL CHECK (ends >= 0 AND ends < 1440),
    days         INTEGER NOT NULL CHECK (days > 0 AND days < 128),
    utc_offset   INTEGER NOT NULL CHECK (utc_offset > -1440 AND utc_offset < 1440),
    only_models  TEXT    NOT NULL,
    not_models   TEXT    NOT NULL,
    below_cost   INTEGER NOT NULL CHECK (below_cost IN (0, 1)),
    updated_at   INTEGER NOT NULL
) STRICT;

-- A child key without one of its own has its parent's.
ALTER TABLE key_terms ADD COLUMN profile TEXT REFERENCES price_profiles (name);

CREATE INDEX key_terms_by_profile ON key_terms (profile) WHERE profile IS NOT NULL;
