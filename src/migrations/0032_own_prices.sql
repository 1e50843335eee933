-- What the operator says of a model over what its source says. own_prices: a JSON object of prices by name, in USD
-- for one unit, as text; own_names: a JSON array of further names that it is served under.
ALTER TABLE model_choices ADD COLUMN own_prices TEXT NOT NULL DEFAULT '{}';
ALTER TABLE model_choices ADD COLUMN own_names TEXT NOT NULL DEFAULT '[]';
