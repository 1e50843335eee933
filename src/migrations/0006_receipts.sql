-- What is kept of a request beside its money, as JSON: model, usage, prices, cost. Written by the
-- statement that ends the hold. Never what was asked or answered.
ALTER TABLE holds ADD COLUMN receipt TEXT NOT NULL DEFAULT '';

CREATE INDEX holds_by_request ON holds (request);
