-- What is wrong, one row for each kind and whom it is about ('' for the node as a whole).
-- since: when the present spell began. told_at: when a note about it was last written, about its end too.
-- is_told: the operator was told of this spell, and not of its end. ended_at: absent while it goes on.
-- turn: counted up by each change, so that of several processes one makes it.
CREATE TABLE alarms (
    kind      TEXT    NOT NULL,
    subject   TEXT    NOT NULL,
    said      TEXT    NOT NULL,
    since     INTEGER NOT NULL,
    told_at   INTEGER,
    is_told   INTEGER NOT NULL,
    ended_at  INTEGER,
    turn      INTEGER NOT NULL,
    PRIMARY KEY (kind, subject)
) STRICT;

-- Which process sees it, and when it last did. An alarm goes on as long as one of them does.
CREATE TABLE alarm_sightings (
    kind     TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    node     TEXT    NOT NULL,
    seen_at  INTEGER NOT NULL,
    PRIMARY KEY (kind, subject, node)
) STRICT;

-- What is to be told to each target, and what came of it. event: what goes to relays, made before any of
-- them hears it. retry_at: not before that; while somebody tells it, when others may.
CREATE TABLE alarm_notes (
    id        TEXT    NOT NULL,
    target    TEXT    NOT NULL,
    what      TEXT    NOT NULL,
    kind      TEXT    NOT NULL,
    subject   TEXT    NOT NULL,
    said      TEXT    NOT NULL,
    since     INTEGER NOT NULL,
    made_at   INTEGER NOT NULL,
    event     TEXT    NOT NULL,
    attempts  INTEGER NOT NULL,
    retry_at  INTEGER NOT NULL,
    outcome   TEXT    NOT NULL,
    done_at   INTEGER,
    PRIMARY KEY (id, target)
) STRICT;
CREATE INDEX alarm_notes_to_tell ON alarm_notes (target, done_at, made_at);

-- The last payout of a mint.
CREATE INDEX operations_payouts_by_mint ON operations (mint, unit, created_at) WHERE kind = 'payout';
