CREATE TRIGGER vouchers_end_once BEFORE UPDATE ON vouchers WHEN OLD.state <> 'open'
BEGIN SELECT RAISE(ABORT, 'the voucher has ended'); END;
