-- What opens this node's listing (NIP-89), as JSON; empty: nothing.
ALTER TABLE nostr_listings ADD COLUMN handler TEXT NOT NULL DEFAULT '';

-- Other nodes of the network that were asked for their prices, and this one, whose address is empty.
CREATE TABLE rivals (
    address   TEXT    NOT NULL PRIMARY KEY,
    asked_at  INTEGER NOT NULL,
    trouble   TEXT    NOT NULL
) STRICT;

-- What they charge for models that this node sells, by this node's names: msat for a million tokens sent,
-- for a million received, and for a request.
CREATE TABLE rival_prices (
    address     TEXT    NOT NULL,
    model       TEXT    NOT NULL,
    prompt      INTEGER NOT NULL,
    completion  INTEGER NOT NULL,
    request     INTEGER NOT NULL,
    PRIMARY KEY (address, model)
) STRICT;
