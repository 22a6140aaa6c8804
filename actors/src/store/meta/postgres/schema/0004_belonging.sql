-- Tells this database from all others: the mark that its contents bear.
ALTER TABLE s3dedup.state ADD COLUMN identity TEXT NOT NULL DEFAULT '';

UPDATE s3dedup.state SET identity = replace(gen_random_uuid()::text, '-', '');
