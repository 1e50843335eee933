-- How requests to models went, for the status page. slot: spans of 16 minutes since the Unix epoch.
-- served: answered in full. failed: by the fault of the node or of an upstream. Every process adds its own;
-- what is older than a week is pruned.
CREATE TABLE model_traffic (
    model   TEXT    NOT NULL,
    slot    INTEGER NOT NULL,
    served  INTEGER NOT NULL,
    failed  INTEGER NOT NULL,
    PRIMARY KEY (model, slot)
) STRICT;

CREATE INDEX model_traffic_by_slot ON model_traffic (slot);
