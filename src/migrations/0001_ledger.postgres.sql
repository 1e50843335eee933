CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '% is append-only or has ended', TG_TABLE_NAME; END $$;

CREATE TRIGGER transfers_are_immutable BEFORE UPDATE OR DELETE ON transfers
FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TRIGGER holds_end_once BEFORE UPDATE ON holds
FOR EACH ROW WHEN (OLD.state <> 'open') EXECUTE FUNCTION refuse_change();

CREATE FUNCTION set_aside() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts SET held = held + NEW.amount WHERE id = NEW.account;
    RETURN NULL;
END $$;

CREATE TRIGGER holds_set_aside AFTER INSERT ON holds
FOR EACH ROW WHEN (NEW.state = 'open') EXECUTE FUNCTION set_aside();

CREATE FUNCTION book_hold() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE income BIGINT;
BEGIN
    IF NEW.charged > 0 THEN
        UPDATE accounts SET posted = posted + NEW.charged
            WHERE kind = 'income' AND mint = '' AND unit = '' AND key_hash IS NULL RETURNING id INTO STRICT income;
        INSERT INTO transfers (id, debit, credit, amount, kind, reference, created_at)
            VALUES (-NEW.id, NEW.account, income, NEW.charged, 'charge', NEW.request, NEW.ended_at);
    END IF;
    UPDATE accounts SET posted = posted - NEW.charged, held = held - NEW.amount, spent = spent + NEW.charged,
        requests = requests + CASE WHEN NEW.charged > 0 THEN 1 ELSE 0 END WHERE id = NEW.account;
    RETURN NULL;
END $$;

CREATE TRIGGER holds_are_booked AFTER UPDATE OF state ON holds
FOR EACH ROW WHEN (OLD.state = 'open' AND NEW.state <> 'open') EXECUTE FUNCTION book_hold();
