-- What a request used and cost stays, whatever becomes of its key.
CREATE TRIGGER holds_are_kept BEFORE DELETE ON holds
FOR EACH ROW EXECUTE FUNCTION refuse_change();
