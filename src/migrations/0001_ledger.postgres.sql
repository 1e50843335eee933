CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '% is append-only or has ended', TG_TABLE_NAME; END $$;

CREATE TRIGGER transfers_are_immutable BEFORE UPDATE OR DELETE ON transfers
FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TRIGGER holds_end_once BEFORE UPDATE ON holds
FOR EACH ROW WHEN (OLD.state <> 'open') EXECUTE FUNCTION refuse_change();
