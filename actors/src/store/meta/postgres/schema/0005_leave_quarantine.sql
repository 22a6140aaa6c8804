-- Takes an object out of quarantine: it is what it was before. False when it was not there.
CREATE FUNCTION s3dedup.lift_quarantine(p_valid_until TIMESTAMPTZ, p_digest BYTEA, p_generation BIGINT)
RETURNS BOOLEAN LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_digest(p_digest);
    DELETE FROM s3dedup.quarantined q WHERE q.digest = p_digest AND q.generation = p_generation;
    RETURN FOUND;
END $$;

-- Condemns an object in quarantine whose content has the object p_instead. False, and nothing changed, otherwise.
CREATE FUNCTION s3dedup.condemn_quarantined(
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
