-- Since when a content's object is known to be missing or damaged: the next upload of the content takes its place.
ALTER TABLE representations ADD COLUMN suspect_since INTEGER;

UPDATE representations SET suspect_since = (
    SELECT q.quarantined_at FROM quarantined q
    WHERE q.digest = representations.digest AND q.generation = representations.generation
);
