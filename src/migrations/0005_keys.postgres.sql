CREATE FUNCTION set_aside_for_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE key_terms SET held = held + NEW.amount WHERE account = NEW.spender;
    RETURN NULL;
END $$;

CREATE TRIGGER holds_set_aside_for_key AFTER INSERT ON holds
FOR EACH ROW WHEN (NEW.state = 'open' AND NEW.spender IS NOT NULL) EXECUTE FUNCTION set_aside_for_key();

CREATE FUNCTION bill_hold_to_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE key_terms SET held = held - NEW.amount, spent = spent + NEW.charged,
        requests = requests + CASE WHEN NEW.charged > 0 THEN 1 ELSE 0 END,
        used = NEW.charged + CASE WHEN NEW.ended_at >= resets_at THEN 0 ELSE used END,
        resets_at = CASE WHEN NEW.ended_at < resets_at THEN resets_at
            WHEN reset = 'daily' THEN (NEW.ended_at / 86400000 + 1) * 86400000
            -- The first of January 1970 was a Thursday.
            WHEN reset = 'weekly' THEN ((NEW.ended_at / 86400000 + 3) / 7 * 7 + 4) * 86400000
            WHEN reset = 'monthly' THEN CAST(EXTRACT(EPOCH FROM date_trunc('month',
                to_timestamp(NEW.ended_at / 1000) AT TIME ZONE 'UTC') + INTERVAL '1 month') AS BIGINT) * 1000
            END
        WHERE account = NEW.spender;
    RETURN NULL;
END $$;

-- Its name puts it before holds_are_booked: the row of a key is locked before that of its account,
-- as it is where holds are placed.
CREATE TRIGGER holds_are_billed_to_key AFTER UPDATE OF state ON holds
FOR EACH ROW WHEN (OLD.state = 'open' AND NEW.state <> 'open' AND NEW.spender IS NOT NULL) EXECUTE FUNCTION bill_hold_to_key();
