-- The charges of an account, newest first, as a chain: an index over them would have its pages all over, one to be
-- written for almost every request. Both are ids of transfers.
ALTER TABLE accounts ADD COLUMN last_charge INTEGER;
ALTER TABLE transfers ADD COLUMN previous INTEGER;

-- Nobody looks for the open holds of one account; those of an owner are few.
DROP INDEX holds_open_by_account;
