-- The trail is read newest first, also of one actor or one kind of act alone.
CREATE INDEX admin_trail_by_actor ON admin_trail (actor, id);
CREATE INDEX admin_trail_by_action ON admin_trail (action, id);

-- Settings that the operator set beside the environment, which wins. value: as it would be written there.
CREATE TABLE told_settings (
    name        TEXT    NOT NULL PRIMARY KEY,
    value       TEXT    NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

-- What the operator has to say to everybody. body: Markdown. It is shown from starts_at until ends_at.
CREATE TABLE announcements (
    id          TEXT    NOT NULL PRIMARY KEY,
    title       TEXT    NOT NULL,
    body        TEXT    NOT NULL,
    level       TEXT    NOT NULL CHECK (level IN ('info', 'warning', 'critical')),
    starts_at   INTEGER NOT NULL,
    ends_at     INTEGER,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX announcements_by_start ON announcements (starts_at);
