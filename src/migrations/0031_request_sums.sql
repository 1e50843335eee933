-- How requests went, in sums that stay when the requests themselves are forgotten. span: a UTC hour, a UTC day, or
-- all time. start: when it begins, in ms since the Unix epoch (ever: 0). A request counts for when it began. model:
-- an id of the price list, '_other', or '_none' where it failed before its model was known. upstream: '' where none
-- was asked. Of requests: served in full; ended by whose fault; tokens (input with cached ones); msat charged, and
-- what the upstreams took (cost in msat, nano_usd), where that is known (unpriced: charged, and it is not); ms until
-- the first content of streams, and until the end, with how many of each. Every process adds its own.
CREATE TABLE request_sums (
    span             TEXT    NOT NULL CHECK (span IN ('hour', 'day', 'ever')),
    start            INTEGER NOT NULL,
    model            TEXT    NOT NULL,
    upstream         TEXT    NOT NULL,
    requests         INTEGER NOT NULL,
    served           INTEGER NOT NULL,
    client_errors    INTEGER NOT NULL,
    payment_errors   INTEGER NOT NULL,
    upstream_errors  INTEGER NOT NULL,
    node_errors      INTEGER NOT NULL,
    clients_gone     INTEGER NOT NULL,
    charged_requests INTEGER NOT NULL,
    input_tokens     INTEGER NOT NULL,
    cached_tokens    INTEGER NOT NULL,
    output_tokens    INTEGER NOT NULL,
    charged_msat     INTEGER NOT NULL,
    cost_msat        INTEGER NOT NULL,
    nano_usd         INTEGER NOT NULL,
    unpriced         INTEGER NOT NULL,
    first_ms         INTEGER NOT NULL,
    firsts           INTEGER NOT NULL,
    took_ms          INTEGER NOT NULL,
    tooks            INTEGER NOT NULL,
    PRIMARY KEY (span, start, model, upstream)
) STRICT;

-- In which hours a model or an upstream was asked at all.
CREATE INDEX request_sums_by_model ON request_sums (span, model, start);
CREATE INDEX request_sums_by_upstream ON request_sums (span, upstream, start);

-- Change that nobody claimed and that became income. No charge is in it.
CREATE INDEX transfers_unclaimed ON transfers (amount) WHERE kind = 'unclaimed';
