DROP TRIGGER transfers_are_immutable;

UPDATE transfers SET previous =
    (SELECT MIN(o.id) FROM transfers o WHERE o.debit = transfers.debit AND o.id > transfers.id AND o.id < 0)
    WHERE id < 0;

CREATE TRIGGER transfers_are_immutable BEFORE UPDATE ON transfers
BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END;

UPDATE accounts SET last_charge = (SELECT MIN(id) FROM transfers t WHERE t.debit = accounts.id AND t.id < 0);

DROP INDEX transfers_by_debit;
DROP INDEX transfers_by_credit;

DROP TRIGGER holds_are_booked;

CREATE TRIGGER holds_are_booked AFTER UPDATE OF state ON holds WHEN OLD.state = 'open' AND NEW.state <> 'open'
BEGIN
    INSERT INTO transfers (id, debit, credit, amount, kind, reference, created_at, previous)
        SELECT -NEW.id, NEW.account, h.id, NEW.charged, 'charge', NEW.request, NEW.ended_at, a.last_charge
        FROM accounts h, accounts a
        WHERE h.kind = 'income' AND h.mint = '' AND h.unit = '' AND h.key_hash IS NULL AND NEW.charged > 0
        AND a.id = NEW.account;
    UPDATE accounts SET posted = posted + NEW.charged
        WHERE kind = 'income' AND mint = '' AND unit = '' AND key_hash IS NULL AND NEW.charged > 0;
    UPDATE accounts SET posted = posted - NEW.charged, held = held - NEW.amount,
        spent = spent + NEW.charged, requests = requests + (NEW.charged > 0),
        last_charge = CASE WHEN NEW.charged > 0 THEN -NEW.id ELSE last_charge END WHERE id = NEW.account;
END;
