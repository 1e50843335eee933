-- When a session was opened, and whether on a page or by a program: the one's is no good to the other.
ALTER TABLE sessions ADD COLUMN created_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN via TEXT NOT NULL DEFAULT 'page';

-- Signed logins (NIP-98) that were used, for as long as somebody could use them again.
CREATE TABLE login_events (
    id         TEXT    NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT;
