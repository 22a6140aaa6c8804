-- The content that the old server is being told of a name, or was told without an answer: it may have it in a version of its own.
ALTER TABLE s3dedup.marks ADD COLUMN telling BYTEA;
