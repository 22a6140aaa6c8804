-- Tells this database from all others: the mark that its contents bear.
ALTER TABLE s3dedup.state ADD COLUMN identity TEXT NOT NULL DEFAULT '';

UPDATE s3dedup.state SET identity = replace(gen_random_uuid()::text, '-', '');

-- As before, but that a content which becomes known by this is held: no cleaning ever comes to it until it had a name.
CREATE OR REPLACE FUNCTION s3dedup.set_blob(
    p_valid_until TIMESTAMPTZ, p_digest BYTEA, p_logical_size BIGINT, p_generation BIGINT, p_key_depth INTEGER,
    p_encoding TEXT, p_stored_size BIGINT, p_stored_hash BYTEA, p_expected BIGINT, p_intent BIGINT, p_reason TEXT
) RETURNS TEXT LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_old        s3dedup.representations;
    v_has_old    BOOLEAN;
    v_is_known   BOOLEAN;
    v_size       BIGINT;
    v_stored     BIGINT;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_digest(p_digest);
    SELECT c.logical_size INTO v_size FROM s3dedup.contents c WHERE c.digest = p_digest FOR UPDATE;
    v_is_known := FOUND;
    SELECT * INTO v_old FROM s3dedup.representations r WHERE r.digest = p_digest FOR UPDATE;
    v_has_old := FOUND;
    IF v_is_known AND v_has_old AND v_size = p_logical_size AND v_old.generation = p_generation
        AND v_old.key_depth = p_key_depth AND v_old.encoding = p_encoding AND v_old.stored_size = p_stored_size
        AND v_old.stored_hash = p_stored_hash THEN
        RETURN 'set';
    END IF;
    IF (CASE WHEN v_has_old THEN v_old.generation END) IS DISTINCT FROM p_expected THEN
        RETURN 'moved';
    END IF;
    PERFORM 1 FROM s3dedup.condemned c WHERE c.digest = p_digest AND c.generation = p_generation;
    IF FOUND THEN
        RETURN 'refused';
    END IF;
    PERFORM 1 FROM s3dedup.quarantined q WHERE q.digest = p_digest AND q.generation = p_generation;
    IF FOUND AND NOT (v_has_old AND v_old.generation = p_generation) THEN
        RETURN 'refused';
    END IF;
    DELETE FROM s3dedup.intents i WHERE i.digest = p_digest AND i.generation = p_generation
        AND (p_intent IS NULL OR i.id = p_intent);
    IF NOT FOUND AND p_intent IS NOT NULL THEN
        RETURN 'refused';
    END IF;
    UPDATE s3dedup.state s SET generation_floor = p_generation + 1
        WHERE s.id = 1 AND s.generation_floor <= p_generation;
    IF v_has_old AND (v_old.generation, v_old.key_depth) IS DISTINCT FROM (p_generation, p_key_depth) THEN
        INSERT INTO s3dedup.quarantined (digest, generation, key_depth, reason, quarantined_at)
            VALUES (p_digest, v_old.generation, v_old.key_depth, p_reason, s3dedup.seconds_now())
            ON CONFLICT DO NOTHING;
        UPDATE s3dedup.state s SET generation_floor = v_old.generation + 1
            WHERE s.id = 1 AND s.generation_floor <= v_old.generation;
    ELSE
        -- It proved to be good after all.
        DELETE FROM s3dedup.quarantined q WHERE q.digest = p_digest AND q.generation = p_generation;
    END IF;
    v_stored := p_stored_size - CASE WHEN v_has_old AND v_is_known THEN v_old.stored_size ELSE 0 END;
    IF v_is_known THEN
        UPDATE s3dedup.contents c SET logical_size = p_logical_size
            WHERE c.digest = p_digest AND c.logical_size <> p_logical_size;
    ELSE
        -- The object may be the last copy of something whose name is still to come: it is held. Losing a reference
        -- takes the mark of any other content in its place.
        INSERT INTO s3dedup.contents (digest, logical_size, unused_since)
            VALUES (p_digest, p_logical_size, 9223372036854775807);
    END IF;
    INSERT INTO s3dedup.representations (digest, kind, generation, key_depth, encoding, stored_size, stored_hash)
        VALUES (p_digest, 'whole', p_generation, p_key_depth, p_encoding, p_stored_size, p_stored_hash)
        ON CONFLICT (digest) DO UPDATE SET generation = excluded.generation, key_depth = excluded.key_depth,
            encoding = excluded.encoding, stored_size = excluded.stored_size, stored_hash = excluded.stored_hash;
    UPDATE s3dedup.totals t SET stored_bytes = t.stored_bytes + v_stored,
            contents = t.contents + CASE WHEN v_is_known THEN 0 ELSE 1 END
        WHERE t.shard = pg_backend_pid() % 64;
    PERFORM s3dedup.end_write(p_valid_until);
    RETURN 'set';
END $$;

-- Ends the hold of some contents; returns how many.
CREATE FUNCTION s3dedup.release_held(p_valid_until TIMESTAMPTZ, p_rows BIGINT) RETURNS BIGINT
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_rows BIGINT;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    UPDATE s3dedup.contents SET unused_since = s3dedup.seconds_now() WHERE digest IN (
        SELECT c.digest FROM s3dedup.contents c WHERE c.unused_since = 9223372036854775807
            ORDER BY c.digest LIMIT p_rows FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    PERFORM s3dedup.end_write(p_valid_until);
    RETURN v_rows;
END $$;
