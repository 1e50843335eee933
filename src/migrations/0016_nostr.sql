-- What this node says of itself on Nostr: the newest event of each address, and the list of its relays.
-- An empty fingerprint: it says that it is down.
CREATE TABLE nostr_listings (
    address      TEXT    NOT NULL PRIMARY KEY,
    fingerprint  TEXT    NOT NULL,
    event_id     TEXT    NOT NULL,
    event        TEXT    NOT NULL,
    relay_list   TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL
) STRICT;

-- How each relay stands to such an address: the event that it said it has, and when to ask it again.
CREATE TABLE nostr_relays (
    address   TEXT    NOT NULL,
    url       TEXT    NOT NULL,
    event_id  TEXT    NOT NULL,
    ok_at     INTEGER,
    failures  INTEGER NOT NULL,
    retry_at  INTEGER NOT NULL,
    said      TEXT    NOT NULL,
    PRIMARY KEY (address, url)
) STRICT;

-- What others say of themselves: the newest event of each address. Those that name no URL stay for a
-- while, so that an older event is not taken for the newest.
CREATE TABLE nostr_providers (
    address     TEXT    NOT NULL PRIMARY KEY,
    pubkey      TEXT    NOT NULL,
    event_id    TEXT    NOT NULL,
    event       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    listed      INTEGER NOT NULL,
    first_seen  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL,
    probed_at   INTEGER,
    healthy_at  INTEGER,
    status      INTEGER,
    endpoint    TEXT,
    answer      TEXT
) STRICT;
CREATE INDEX nostr_providers_by_key ON nostr_providers (pubkey);

-- What others say of nodes: recommendations (38000) and reviews (38425), the newest of each address.
CREATE TABLE nostr_opinions (
    address     TEXT    NOT NULL PRIMARY KEY,
    kind        INTEGER NOT NULL,
    author      TEXT    NOT NULL,
    event_id    TEXT    NOT NULL,
    about       TEXT    NOT NULL,
    labels      TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX nostr_opinions_by_subject ON nostr_opinions (about);
