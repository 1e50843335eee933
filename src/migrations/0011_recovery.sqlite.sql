-- What a request used and cost stays, whatever becomes of its key.
CREATE TRIGGER holds_are_kept BEFORE DELETE ON holds
BEGIN SELECT RAISE(ABORT, 'holds are kept'); END;
