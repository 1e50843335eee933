CREATE TRIGGER price_sheets_are_immutable BEFORE UPDATE OR DELETE ON price_sheets
FOR EACH ROW EXECUTE FUNCTION refuse_change();
