CREATE TRIGGER transfers_are_immutable BEFORE UPDATE ON transfers
BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END;

CREATE TRIGGER transfers_are_kept BEFORE DELETE ON transfers
BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END;

CREATE TRIGGER holds_end_once BEFORE UPDATE ON holds WHEN OLD.state <> 'open'
BEGIN SELECT RAISE(ABORT, 'the hold has ended'); END;

CREATE TRIGGER holds_set_aside AFTER INSERT ON holds WHEN NEW.state = 'open'
BEGIN
    UPDATE accounts SET held = held + NEW.amount WHERE id = NEW.account;
END;

CREATE TRIGGER holds_are_booked AFTER UPDATE OF state ON holds WHEN OLD.state = 'open' AND NEW.state <> 'open'
BEGIN
    UPDATE accounts SET posted = posted + NEW.charged
        WHERE kind = 'income' AND mint = '' AND unit = '' AND key_hash IS NULL AND NEW.charged > 0;
    UPDATE accounts SET posted = posted - NEW.charged, held = held - NEW.amount,
        spent = spent + NEW.charged, requests = requests + (NEW.charged > 0) WHERE id = NEW.account;
    INSERT INTO transfers (id, debit, credit, amount, kind, reference, created_at)
        SELECT -NEW.id, NEW.account, id, NEW.charged, 'charge', NEW.request, NEW.ended_at FROM accounts
        WHERE kind = 'income' AND mint = '' AND unit = '' AND key_hash IS NULL AND NEW.charged > 0;
END;
