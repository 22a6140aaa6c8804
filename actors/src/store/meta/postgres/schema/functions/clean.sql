-- What the cleaner does.

-- Of these contents, those that have a reference are noted as such. What happened in the last minute is left alone: a
-- reference may be going that is still seen here.
CREATE OR REPLACE FUNCTION s3dedup.settle(p_valid_until TIMESTAMPTZ, p_digests BYTEA[]) RETURNS VOID
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    UPDATE s3dedup.contents SET unused_since = NULL WHERE digest IN (
        SELECT c.digest FROM s3dedup.contents c
        WHERE c.digest = ANY (p_digests) AND c.unused_since < s3dedup.seconds_now() - 60
            AND EXISTS (SELECT 1 FROM s3dedup.entries e WHERE e.digest = c.digest)
        FOR UPDATE SKIP LOCKED
    );
    PERFORM s3dedup.end_write(p_valid_until);
END $$;

-- Of contents that may be without a reference, those that have one are noted as such; returns how many. What happened in
-- the last minute is left alone: a reference may be going that is still seen here.
CREATE OR REPLACE FUNCTION s3dedup.settle_unused(p_valid_until TIMESTAMPTZ, p_unused_since BIGINT, p_rows BIGINT) RETURNS BIGINT
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_settled BIGINT;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    UPDATE s3dedup.contents SET unused_since = NULL WHERE digest IN (
        SELECT c.digest FROM s3dedup.contents c
        WHERE c.unused_since <= least(p_unused_since, s3dedup.seconds_now() - 60)
            AND EXISTS (SELECT 1 FROM s3dedup.entries e WHERE e.digest = c.digest)
        LIMIT p_rows FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS v_settled = ROW_COUNT;
    RETURN v_settled;
END $$;

-- Condemns contents; a row for each object that may be deleted now. Digests are to be given in order, so that two
-- callers do not wait for each other.
-- What is in quarantine stays. A content whose rows cannot be read, or whose bytes nobody knows, is left to uploads and
-- repairs, and does not keep the others from being condemned.
CREATE OR REPLACE FUNCTION s3dedup.condemn(p_valid_until TIMESTAMPTZ, p_digests BYTEA[], p_unused_since BIGINT)
RETURNS TABLE (
    o_digest BYTEA, o_generation BIGINT, o_key_depth INTEGER, o_encoding TEXT, o_stored_size BIGINT, o_stored_hash BYTEA
) LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_contents     BIGINT := 0;
    v_stored_bytes BIGINT := 0;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    FOREACH o_digest IN ARRAY p_digests LOOP
        PERFORM s3dedup.lock_digest(o_digest);
    END LOOP;
    FOREACH o_digest IN ARRAY p_digests LOOP
        PERFORM 1 FROM s3dedup.contents c WHERE c.digest = o_digest AND c.unused_since <= p_unused_since FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        PERFORM 1 FROM s3dedup.entries e WHERE e.digest = o_digest LIMIT 1;
        IF FOUND THEN
            UPDATE s3dedup.contents c SET unused_since = NULL
                WHERE c.digest = o_digest AND c.unused_since < s3dedup.seconds_now() - 60;
            CONTINUE;
        END IF;
        PERFORM 1 FROM s3dedup.legible l WHERE l.digest = o_digest;
        CONTINUE WHEN NOT FOUND;
        PERFORM 1 FROM s3dedup.representations r JOIN s3dedup.quarantined q
            ON q.digest = r.digest AND q.generation = r.generation WHERE r.digest = o_digest;
        CONTINUE WHEN FOUND;
        DELETE FROM s3dedup.representations r WHERE r.digest = o_digest
            RETURNING r.generation, r.key_depth, r.encoding, r.stored_size, r.stored_hash
            INTO o_generation, o_key_depth, o_encoding, o_stored_size, o_stored_hash;
        CONTINUE WHEN NOT FOUND;
        DELETE FROM s3dedup.contents c WHERE c.digest = o_digest;
        INSERT INTO s3dedup.condemned (digest, generation, key_depth, condemned_at)
            VALUES (o_digest, o_generation, o_key_depth, s3dedup.seconds_now());
        v_contents := v_contents + 1;
        v_stored_bytes := v_stored_bytes + o_stored_size;
        RETURN NEXT;
    END LOOP;
    IF v_contents > 0 THEN
        UPDATE s3dedup.totals t SET contents = t.contents - v_contents, stored_bytes = t.stored_bytes - v_stored_bytes
            WHERE t.shard = pg_backend_pid() % 64;
    END IF;
    PERFORM s3dedup.end_write(p_valid_until);
END $$;

-- Condemns intents; a row for each object that may be deleted now. What is in quarantine is not given up.
CREATE OR REPLACE FUNCTION s3dedup.condemn_intents(p_valid_until TIMESTAMPTZ, p_intents BIGINT[], p_made_before BIGINT)
RETURNS TABLE (o_digest BYTEA, o_generation BIGINT, o_key_depth INTEGER)
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_intent BIGINT;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    FOR o_digest IN
        SELECT DISTINCT i.digest FROM s3dedup.intents i
        WHERE i.id = ANY (p_intents) AND i.made_at <= p_made_before ORDER BY i.digest
    LOOP
        PERFORM s3dedup.lock_digest(o_digest);
    END LOOP;
    FOR v_intent, o_digest IN
        SELECT i.id, i.digest FROM s3dedup.intents i
        WHERE i.id = ANY (p_intents) AND i.made_at <= p_made_before AND NOT EXISTS (
            SELECT 1 FROM s3dedup.quarantined q WHERE q.digest = i.digest AND q.generation = i.generation)
    LOOP
        DELETE FROM s3dedup.intents i WHERE i.id = v_intent
            RETURNING i.generation, i.key_depth INTO o_generation, o_key_depth;
        CONTINUE WHEN NOT FOUND;
        INSERT INTO s3dedup.condemned (digest, generation, key_depth, condemned_at)
            VALUES (o_digest, o_generation, o_key_depth, s3dedup.seconds_now()) ON CONFLICT DO NOTHING;
        RETURN NEXT;
    END LOOP;
END $$;

-- Condemns objects that nothing is known of, given by arrays of the same length in the order of their digests; a row for
-- each object that may be deleted now. Under the digest's lock, so that no upload is given the name meanwhile.
-- An object stays that is in quarantine, or that may be the last one of a content: it has names or a row, and no object of its
-- own that is taken for good.
CREATE OR REPLACE FUNCTION s3dedup.condemn_unknown(
    p_valid_until TIMESTAMPTZ, p_digests BYTEA[], p_generations BIGINT[], p_key_depths INTEGER[]
) RETURNS TABLE (o_digest BYTEA, o_generation BIGINT, o_key_depth INTEGER)
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    FOR i IN 1 .. coalesce(array_length(p_digests, 1), 0) LOOP
        o_digest := p_digests[i];
        o_generation := p_generations[i];
        o_key_depth := p_key_depths[i];
        PERFORM s3dedup.lock_digest(o_digest);
        CONTINUE WHEN EXISTS (SELECT 1 FROM s3dedup.representations r
                WHERE r.digest = o_digest AND r.generation = o_generation)
            OR EXISTS (SELECT 1 FROM s3dedup.intents t WHERE t.digest = o_digest AND t.generation = o_generation)
            OR EXISTS (SELECT 1 FROM s3dedup.quarantined q WHERE q.digest = o_digest AND q.generation = o_generation)
            OR EXISTS (SELECT 1 FROM s3dedup.condemned c WHERE c.digest = o_digest AND c.generation = o_generation);
        CONTINUE WHEN NOT EXISTS (SELECT 1 FROM s3dedup.known k WHERE k.digest = o_digest) AND (
            EXISTS (SELECT 1 FROM s3dedup.contents c WHERE c.digest = o_digest)
            OR EXISTS (SELECT 1 FROM s3dedup.entries e WHERE e.digest = o_digest));
        INSERT INTO s3dedup.condemned (digest, generation, key_depth, condemned_at)
            VALUES (o_digest, o_generation, o_key_depth, s3dedup.seconds_now());
        RETURN NEXT;
    END LOOP;
END $$;

-- Forgets condemned objects, given by two arrays of the same length.
CREATE OR REPLACE FUNCTION s3dedup.forget(p_valid_until TIMESTAMPTZ, p_digests BYTEA[], p_generations BIGINT[]) RETURNS VOID
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_digest BYTEA;
    v_floor  BIGINT;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    FOR v_digest IN SELECT DISTINCT d FROM unnest(p_digests) d ORDER BY d LOOP
        PERFORM s3dedup.lock_digest(v_digest);
    END LOOP;
    WITH gone AS (
        DELETE FROM s3dedup.condemned c USING unnest(p_digests, p_generations) AS k (digest, generation)
        WHERE c.digest = k.digest AND c.generation = k.generation
        RETURNING c.generation
    )
    SELECT max(gone.generation) + 1 INTO v_floor FROM gone;
    -- A deletion of these objects may still be on its way somewhere: the numbers stay spent.
    UPDATE s3dedup.state s SET generation_floor = v_floor WHERE s.id = 1 AND s.generation_floor < v_floor;
END $$;
