ALTER TABLE transfers DISABLE TRIGGER transfers_are_immutable;

UPDATE transfers SET previous = c.previous
    FROM (SELECT id, LAG(id) OVER (PARTITION BY debit ORDER BY id DESC) AS previous FROM transfers WHERE id < 0) c
    WHERE c.id = transfers.id;

ALTER TABLE transfers ENABLE TRIGGER transfers_are_immutable;

UPDATE accounts SET last_charge = (SELECT MIN(id) FROM transfers t WHERE t.debit = accounts.id AND t.id < 0);

DROP INDEX transfers_by_debit;
DROP INDEX transfers_by_credit;

CREATE OR REPLACE FUNCTION book_hold() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE income BIGINT; before BIGINT;
BEGIN
    IF NEW.charged > 0 THEN
        UPDATE accounts SET posted = posted + NEW.charged
            WHERE kind = 'income' AND mint = '' AND unit = '' AND key_hash IS NULL RETURNING id INTO STRICT income;
        SELECT last_charge INTO STRICT before FROM accounts WHERE id = NEW.account FOR UPDATE;
        INSERT INTO transfers (id, debit, credit, amount, kind, reference, created_at, previous)
            VALUES (-NEW.id, NEW.account, income, NEW.charged, 'charge', NEW.request, NEW.ended_at, before);
    END IF;
    UPDATE accounts SET posted = posted - NEW.charged, held = held - NEW.amount, spent = spent + NEW.charged,
        requests = requests + CASE WHEN NEW.charged > 0 THEN 1 ELSE 0 END,
        last_charge = CASE WHEN NEW.charged > 0 THEN -NEW.id ELSE last_charge END WHERE id = NEW.account;
    RETURN NULL;
END $$;
