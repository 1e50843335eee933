-- When a key was last used is its last hold. SQLite has the row's id in every index.
DROP INDEX holds_by_spender;
CREATE INDEX holds_by_spender ON holds (spender, id) WHERE spender IS NOT NULL;
