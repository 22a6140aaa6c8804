-- Tells this database from all others: the mark that its contents bear.
ALTER TABLE state ADD COLUMN identity TEXT NOT NULL DEFAULT '';

UPDATE state SET identity = lower(hex(randomblob(16)));
