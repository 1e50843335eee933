CREATE TRIGGER price_sheets_are_immutable BEFORE UPDATE ON price_sheets
BEGIN SELECT RAISE(ABORT, 'price sheets are append-only'); END;

CREATE TRIGGER price_sheets_are_kept BEFORE DELETE ON price_sheets
BEGIN SELECT RAISE(ABORT, 'price sheets are append-only'); END;
