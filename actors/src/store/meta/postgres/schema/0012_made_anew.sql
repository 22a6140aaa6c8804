-- As before, but rows that cannot be read are made anew: whoever repairs knows of no object there, or of the one that the row
-- still names. That one goes into quarantine, unless it is the good one.
CREATE OR REPLACE FUNCTION s3dedup.set_good_blob(
    p_valid_until TIMESTAMPTZ, p_digest BYTEA, p_logical_size BIGINT, p_generation BIGINT, p_key_depth INTEGER,
    p_encoding TEXT, p_stored_size BIGINT, p_stored_hash BYTEA, p_expected BIGINT, p_intent BIGINT, p_reason TEXT
) RETURNS TEXT LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_outcome TEXT;
    v_old     s3dedup.representations;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_digest(p_digest);
    SELECT * INTO v_old FROM s3dedup.representations r WHERE r.digest = p_digest
        AND EXISTS (SELECT 1 FROM s3dedup.contents c WHERE c.digest = p_digest)
        AND NOT EXISTS (SELECT 1 FROM s3dedup.legible l WHERE l.digest = p_digest);
    IF NOT FOUND OR coalesce(p_expected <> v_old.generation, false) THEN
        v_outcome := s3dedup.set_blob(
            p_valid_until, p_digest, p_logical_size, p_generation, p_key_depth, p_encoding, p_stored_size,
            p_stored_hash, p_expected, p_intent, p_reason);
        IF v_outcome = 'set' AND p_expected = p_generation THEN
            DELETE FROM s3dedup.quarantined q WHERE q.digest = p_digest AND q.generation = p_generation;
        END IF;
        -- Without p_expected nobody looked at it, unless it is a new row, which has no note.
        IF v_outcome = 'set' AND p_expected IS NOT NULL THEN
            UPDATE s3dedup.representations r SET suspect_since = NULL
                WHERE r.digest = p_digest AND r.generation = p_generation AND r.suspect_since IS NOT NULL;
        END IF;
        PERFORM s3dedup.end_write(p_valid_until);
        RETURN v_outcome;
    END IF;
    BEGIN
        DELETE FROM s3dedup.representations r WHERE r.digest = p_digest;
        IF v_old.generation = p_generation AND v_old.key_depth = p_key_depth THEN
            DELETE FROM s3dedup.quarantined q WHERE q.digest = p_digest AND q.generation = p_generation;
        ELSIF s3dedup.is_given(v_old.generation) AND v_old.key_depth BETWEEN 0 AND 8 THEN
            INSERT INTO s3dedup.quarantined (digest, generation, key_depth, reason, quarantined_at)
                VALUES (p_digest, v_old.generation, v_old.key_depth, p_reason, s3dedup.seconds_now())
                ON CONFLICT DO NOTHING;
            UPDATE s3dedup.state s SET generation_floor = v_old.generation + 1
                WHERE s.id = 1 AND s.generation_floor <= v_old.generation;
        END IF;
        -- A size that cannot be was never counted: the totals then have what is true already.
        UPDATE s3dedup.totals t SET stored_bytes = t.stored_bytes
                - CASE WHEN s3dedup.is_size(v_old.stored_size) THEN v_old.stored_size ELSE p_stored_size END
            WHERE t.shard = pg_backend_pid() % 64;
        v_outcome := s3dedup.set_blob(
            p_valid_until, p_digest, p_logical_size, p_generation, p_key_depth, p_encoding, p_stored_size,
            p_stored_hash, NULL, p_intent, p_reason);
        IF v_outcome <> 'set' THEN
            -- Takes back what this block did.
            RAISE EXCEPTION 'the object is given up' USING ERRCODE = 'S3D09';
        END IF;
    EXCEPTION WHEN SQLSTATE 'S3D09' THEN
        NULL;
    END;
    PERFORM s3dedup.end_write(p_valid_until);
    RETURN v_outcome;
END $$;
