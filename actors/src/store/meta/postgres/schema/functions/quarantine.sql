-- Objects that nobody may use or delete.

-- Puts an object into quarantine. A content whose object it is gets another one with its next upload.
CREATE OR REPLACE FUNCTION s3dedup.quarantine(
    p_valid_until TIMESTAMPTZ, p_digest BYTEA, p_generation BIGINT, p_key_depth INTEGER, p_reason TEXT
) RETURNS VOID LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_digest(p_digest);
    INSERT INTO s3dedup.quarantined (digest, generation, key_depth, reason, quarantined_at)
        VALUES (p_digest, p_generation, p_key_depth, p_reason, s3dedup.seconds_now()) ON CONFLICT DO NOTHING;
    UPDATE s3dedup.representations r SET suspect_since = s3dedup.seconds_now()
        WHERE r.digest = p_digest AND r.generation = p_generation AND r.suspect_since IS NULL;
    UPDATE s3dedup.state s SET generation_floor = p_generation + 1
        WHERE s.id = 1 AND s.generation_floor <= p_generation;
    PERFORM s3dedup.end_write(p_valid_until);
END $$;

-- Takes an object out of quarantine, and for good again: it is what it was before. False when it was not there.
CREATE OR REPLACE FUNCTION s3dedup.lift_quarantine(p_valid_until TIMESTAMPTZ, p_digest BYTEA, p_generation BIGINT)
RETURNS BOOLEAN LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_lifted BIGINT;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_digest(p_digest);
    UPDATE s3dedup.representations r SET suspect_since = NULL
        WHERE r.digest = p_digest AND r.generation = p_generation AND r.suspect_since IS NOT NULL;
    DELETE FROM s3dedup.quarantined q WHERE q.digest = p_digest AND q.generation = p_generation;
    GET DIAGNOSTICS v_lifted = ROW_COUNT;
    PERFORM s3dedup.end_write(p_valid_until);
    RETURN v_lifted > 0;
END $$;

-- Condemns an object in quarantine whose content has the object p_instead. False, and nothing changed, otherwise.
CREATE OR REPLACE FUNCTION s3dedup.condemn_quarantined(
    p_valid_until TIMESTAMPTZ, p_digest BYTEA, p_generation BIGINT, p_instead BIGINT
) RETURNS BOOLEAN LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_key_depth INTEGER;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_digest(p_digest);
    IF p_instead = p_generation OR EXISTS (SELECT 1 FROM s3dedup.quarantined q
            WHERE q.digest = p_digest AND q.generation = p_instead) OR NOT EXISTS (
            SELECT 1 FROM s3dedup.contents c JOIN s3dedup.representations r ON r.digest = c.digest
            WHERE r.digest = p_digest AND r.generation = p_instead) THEN
        RETURN false;
    END IF;
    DELETE FROM s3dedup.quarantined q WHERE q.digest = p_digest AND q.generation = p_generation
        RETURNING q.key_depth INTO v_key_depth;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO s3dedup.condemned (digest, generation, key_depth, condemned_at)
        VALUES (p_digest, p_generation, v_key_depth, s3dedup.seconds_now()) ON CONFLICT DO NOTHING;
    PERFORM s3dedup.end_write(p_valid_until);
    RETURN true;
END $$;
