-- Sessions of the operator's pages. Only a hash of the cookie is kept.
CREATE TABLE sessions (
    id_hash     TEXT    NOT NULL PRIMARY KEY,
    csrf        TEXT    NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT;
