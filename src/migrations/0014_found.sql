-- Whose money a voucher gives away: the income (NULL), or what a recovery found for clients whom the
-- restored copy does not know. There it goes back to when the voucher is revoked or expires.
ALTER TABLE vouchers ADD COLUMN paid_by INTEGER REFERENCES accounts (id);
