-- Coins of a mint and unit are exchanged by one operation at a time, whichever process it belongs to.
CREATE UNIQUE INDEX operations_one_sweep ON operations (mint, unit)
    WHERE kind = 'sweep' AND takes_back IS NULL AND state IN ('planned', 'acting', 'unknown');
