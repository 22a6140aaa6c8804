-- The content that the old server is being told of a name, or was told without an answer: it may have it in a version of its own.
ALTER TABLE s3dedup.marks ADD COLUMN telling BYTEA;

-- The caller, who has the mark, is about to tell the old server of a content, which may take the time p_lease; whether it has
-- the mark still.
CREATE FUNCTION s3dedup.begin_telling(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest_hash BYTEA, p_claim BIGINT, p_digest BYTEA, p_lease BIGINT
) RETURNS BOOLEAN LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    UPDATE s3dedup.marks m SET telling = p_digest, claimed_until = s3dedup.milliseconds_now() + p_lease
        WHERE m.namespace = p_namespace AND m.name = p_name AND m.rest_hash = p_rest_hash AND m.claim = p_claim;
    RETURN FOUND;
END $$;

-- What was told is known to be there, also when the name was written since.
CREATE OR REPLACE FUNCTION s3dedup.settle_mark(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest_hash BYTEA, p_claim BIGINT, p_seq BIGINT
) RETURNS TEXT LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    DELETE FROM s3dedup.marks m
        WHERE m.namespace = p_namespace AND m.name = p_name AND m.rest_hash = p_rest_hash
            AND m.claim = p_claim AND m.seq = p_seq;
    IF FOUND THEN
        RETURN 'settled';
    END IF;
    UPDATE s3dedup.marks m
        SET claim = NULL, claimed_until = 0, next_at = s3dedup.milliseconds_now(), telling = NULL
        WHERE m.namespace = p_namespace AND m.name = p_name AND m.rest_hash = p_rest_hash AND m.claim = p_claim;
    RETURN CASE WHEN FOUND THEN 'changed' ELSE 'lost' END;
END $$;
