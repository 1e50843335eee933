-- What became of a token that was made: '' while nobody knows, 'collected' once the mint said that it
-- was spent, 'sweeping' while it is taken back, 'swept' then, and 'left' where the mint's fee would eat
-- it. Of a swept one the text is forgotten.
ALTER TABLE operations ADD COLUMN fate TEXT NOT NULL DEFAULT ''
    CHECK (fate IN ('', 'collected', 'sweeping', 'swept', 'left'));

-- Of a sweep: the operation whose token it takes back.
ALTER TABLE operations ADD COLUMN takes_back TEXT REFERENCES operations (id);

CREATE INDEX operations_unclaimed ON operations (updated_at)
    WHERE state = 'done' AND fate = '' AND kind IN ('change', 'refund');
