-- Since when a content's object is known to be missing or damaged: the next upload of the content takes its place.
ALTER TABLE s3dedup.representations ADD COLUMN suspect_since BIGINT;

UPDATE s3dedup.representations r SET suspect_since = q.quarantined_at FROM s3dedup.quarantined q
    WHERE q.digest = r.digest AND q.generation = r.generation;
