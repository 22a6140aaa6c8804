-- Whether an object can have this generation.
CREATE FUNCTION s3dedup.is_given(p_generation BIGINT) RETURNS BOOLEAN LANGUAGE sql IMMUTABLE AS $$
    SELECT p_generation BETWEEN 0 AND 1099511627776
$$;

-- Whether a content or an object can have this size.
CREATE FUNCTION s3dedup.is_size(p_size BIGINT) RETURNS BOOLEAN LANGUAGE sql IMMUTABLE AS $$
    SELECT p_size BETWEEN 0 AND 2251799813685248
$$;

-- Contents whose rows can be read.
CREATE VIEW s3dedup.legible AS
    SELECT c.digest, r.generation, r.stored_size, r.suspect_since
    FROM s3dedup.contents c JOIN s3dedup.representations r ON r.digest = c.digest
    WHERE r.kind = 'whole' AND r.encoding = 'gzip' AND s3dedup.is_given(r.generation) AND r.key_depth BETWEEN 0 AND 8
        AND s3dedup.is_size(c.logical_size) AND s3dedup.is_size(r.stored_size) AND octet_length(r.stored_hash) = 32;

-- Of these, those that an upload may rely on: nobody found their objects missing or damaged.
CREATE VIEW s3dedup.known AS SELECT l.digest FROM s3dedup.legible l WHERE l.suspect_since IS NULL;
