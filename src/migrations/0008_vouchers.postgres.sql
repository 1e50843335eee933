CREATE TRIGGER vouchers_end_once BEFORE UPDATE ON vouchers
FOR EACH ROW WHEN (OLD.state <> 'open') EXECUTE FUNCTION refuse_change();
