CREATE TRIGGER holds_set_aside_for_key AFTER INSERT ON holds WHEN NEW.state = 'open' AND NEW.spender IS NOT NULL
BEGIN
    UPDATE key_terms SET held = held + NEW.amount WHERE account = NEW.spender;
END;

CREATE TRIGGER holds_are_billed_to_key AFTER UPDATE OF state ON holds
WHEN OLD.state = 'open' AND NEW.state <> 'open' AND NEW.spender IS NOT NULL
BEGIN
    UPDATE key_terms SET held = held - NEW.amount, spent = spent + NEW.charged, requests = requests + (NEW.charged > 0),
        used = NEW.charged + CASE WHEN NEW.ended_at >= resets_at THEN 0 ELSE used END,
        resets_at = CASE WHEN NEW.ended_at < resets_at THEN resets_at
            WHEN reset = 'daily' THEN (NEW.ended_at / 86400000 + 1) * 86400000
            -- The first of January 1970 was a Thursday.
            WHEN reset = 'weekly' THEN ((NEW.ended_at / 86400000 + 3) / 7 * 7 + 4) * 86400000
            WHEN reset = 'monthly' THEN CAST(strftime('%s', NEW.ended_at / 1000, 'unixepoch', 'start of month', '+1 month') AS INTEGER) * 1000
            END
        WHERE account = NEW.spender;
END;
