-- A page of contents that may be unused ends at any place of this order, so that no look at one depends on how many
-- there are.
DROP INDEX s3dedup.contents_unused;
CREATE INDEX contents_unused ON s3dedup.contents (unused_since, digest) WHERE unused_since IS NOT NULL;

-- Of these contents, those that have a reference are noted as such. What happened in the last minute is left alone: a
-- reference may be going that is still seen here.
CREATE FUNCTION s3dedup.settle(p_valid_until TIMESTAMPTZ, p_digests BYTEA[]) RETURNS VOID
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

-- As before, but a content whose bytes nobody knows is left to repairs, and does not keep the others from being condemned.
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

-- As before, but a name is let go whatever became of its content.
CREATE OR REPLACE FUNCTION s3dedup.release(p_digest BYTEA) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    v_now  BIGINT := s3dedup.seconds_now();
    v_size BIGINT;
BEGIN
    UPDATE s3dedup.contents SET unused_since = v_now
        WHERE digest = p_digest AND unused_since IS DISTINCT FROM v_now;
    SELECT c.logical_size INTO v_size FROM s3dedup.contents c WHERE c.digest = p_digest;
    IF NOT FOUND THEN
        RAISE WARNING 'a name is let go whose content % has no row: run s3dedup verify', encode(p_digest, 'hex');
        RETURN 0;
    END IF;
    RETURN v_size;
END $$;

-- As before, but a content whose bytes nobody knows is unknown, and a new object does not get the name of one that is
-- noted without its content.
CREATE OR REPLACE FUNCTION s3dedup.plan_put_steps(
    p_namespace INTEGER, p_name TEXT, p_rest TEXT, p_rest_hash BYTEA, p_modified BIGINT,
    p_digest BYTEA, p_instance TEXT, p_key_depth INTEGER,
    OUT o_outcome TEXT, OUT o_current BIGINT, OUT o_intent BIGINT, OUT o_generation BIGINT
) LANGUAGE plpgsql AS $$
BEGIN
    IF p_instance IS NOT NULL THEN
        PERFORM s3dedup.lock_digest(p_digest);
    END IF;
    SELECT e.modified INTO o_current FROM s3dedup.entries e
        WHERE e.namespace = p_namespace AND e.name = p_name AND e.rest_hash = p_rest_hash;
    IF FOUND AND o_current > p_modified THEN
        o_outcome := 'stale';
        RETURN;
    END IF;
    PERFORM 1 FROM s3dedup.contents c JOIN s3dedup.representations r ON r.digest = c.digest WHERE c.digest = p_digest;
    IF FOUND THEN
        SELECT h.o_outcome, h.o_current INTO o_outcome, o_current
            FROM s3dedup.hold(p_namespace, p_name, p_rest, p_rest_hash, p_modified, p_digest) h;
        IF o_outcome = 'held' THEN
            o_outcome := 'committed';
            RETURN;
        ELSIF o_outcome = 'stale' THEN
            RETURN;
        END IF;
    END IF;
    IF p_instance IS NULL THEN
        o_outcome := 'missing';
        RETURN;
    END IF;
    INSERT INTO s3dedup.intents AS i (digest, generation, key_depth, instance, made_at)
        SELECT p_digest,
            greatest(
                (SELECT s.generation_floor FROM s3dedup.state s WHERE s.id = 1),
                (SELECT max(old.generation) + 1 FROM s3dedup.intents old WHERE old.digest = p_digest),
                (SELECT max(c.generation) + 1 FROM s3dedup.condemned c WHERE c.digest = p_digest),
                (SELECT max(r.generation) + 1 FROM s3dedup.representations r WHERE r.digest = p_digest)
            ),
            p_key_depth, p_instance, s3dedup.seconds_now()
        RETURNING i.id, i.generation INTO o_intent, o_generation;
    o_outcome := 'upload';
END $$;

-- As before, but what rows were lost of a content is put in its place.
CREATE OR REPLACE FUNCTION s3dedup.commit_put(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest TEXT, p_rest_hash BYTEA, p_modified BIGINT,
    p_digest BYTEA, p_logical_size BIGINT, p_intent BIGINT, p_generation BIGINT, p_key_depth INTEGER, p_encoding TEXT,
    p_stored_size BIGINT, p_stored_hash BYTEA,
    OUT o_outcome TEXT, OUT o_current BIGINT, OUT o_clock TIMESTAMPTZ
) LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_adopted       BOOLEAN := false;
    v_contents      BIGINT := 0;
    v_logical_bytes BIGINT := 0;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_digest(p_digest);
    PERFORM 1 FROM s3dedup.contents c JOIN s3dedup.representations r ON r.digest = c.digest WHERE c.digest = p_digest;
    IF NOT FOUND THEN
        -- Only a standing intent proves that the object has not been given up to cleaning.
        DELETE FROM s3dedup.intents i WHERE i.id = p_intent AND i.digest = p_digest AND i.generation = p_generation;
        IF NOT FOUND THEN
            SELECT e.modified INTO o_current FROM s3dedup.entries e
                WHERE e.namespace = p_namespace AND e.name = p_name AND e.rest_hash = p_rest_hash;
            o_outcome := CASE WHEN FOUND AND o_current > p_modified THEN 'stale' ELSE 'lost' END;
            o_clock := s3dedup.end_write(p_valid_until);
            RETURN;
        END IF;
        INSERT INTO s3dedup.contents (digest, logical_size) VALUES (p_digest, p_logical_size) ON CONFLICT DO NOTHING;
        IF FOUND THEN
            v_contents := 1;
            -- Names that outlived the row.
            SELECT count(*) * p_logical_size INTO v_logical_bytes FROM s3dedup.entries e WHERE e.digest = p_digest;
        END IF;
        INSERT INTO s3dedup.quarantined (digest, generation, key_depth, reason, quarantined_at)
            SELECT r.digest, r.generation, r.key_depth, 'its content was lost from the database and uploaded anew',
                s3dedup.seconds_now()
            FROM s3dedup.representations r WHERE r.digest = p_digest
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            UPDATE s3dedup.state s SET generation_floor = p_generation
                WHERE s.id = 1 AND s.generation_floor < p_generation;
        END IF;
        INSERT INTO s3dedup.representations (digest, kind, generation, key_depth, encoding, stored_size, stored_hash)
            VALUES (p_digest, 'whole', p_generation, p_key_depth, p_encoding, p_stored_size, p_stored_hash)
            ON CONFLICT (digest) DO UPDATE SET generation = excluded.generation, key_depth = excluded.key_depth,
                encoding = excluded.encoding, stored_size = excluded.stored_size, stored_hash = excluded.stored_hash;
        v_adopted := true;
    END IF;
    SELECT h.o_outcome, h.o_current INTO o_outcome, o_current
        FROM s3dedup.hold(p_namespace, p_name, p_rest, p_rest_hash, p_modified, p_digest) h;
    IF o_outcome = 'held' THEN
        o_outcome := 'committed';
    ELSIF o_outcome <> 'stale' THEN
        -- It was there under the digest's lock.
        RAISE EXCEPTION 'content % went away', encode(p_digest, 'hex') USING ERRCODE = 'S3D02';
    ELSIF v_adopted THEN
        UPDATE s3dedup.contents SET unused_since = s3dedup.seconds_now() WHERE digest = p_digest;
    END IF;
    IF v_adopted THEN
        UPDATE s3dedup.totals t SET contents = t.contents + v_contents,
                logical_bytes = t.logical_bytes + v_logical_bytes, stored_bytes = t.stored_bytes + p_stored_size
            WHERE t.shard = pg_backend_pid() % 64;
    END IF;
    o_clock := s3dedup.end_write(p_valid_until);
END $$;

-- Makes an object that proved to be good the one that is read for its content. When it has been that all along, it
-- leaves quarantine: p_expected tells that this very object was looked at.
CREATE FUNCTION s3dedup.set_good_blob(
    p_valid_until TIMESTAMPTZ, p_digest BYTEA, p_logical_size BIGINT, p_generation BIGINT, p_key_depth INTEGER,
    p_encoding TEXT, p_stored_size BIGINT, p_stored_hash BYTEA, p_expected BIGINT, p_intent BIGINT, p_reason TEXT
) RETURNS TEXT LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_outcome TEXT;
BEGIN
    v_outcome := s3dedup.set_blob(
        p_valid_until, p_digest, p_logical_size, p_generation, p_key_depth, p_encoding, p_stored_size, p_stored_hash,
        p_expected, p_intent, p_reason);
    IF v_outcome = 'set' AND p_expected = p_generation THEN
        DELETE FROM s3dedup.quarantined q WHERE q.digest = p_digest AND q.generation = p_generation;
    END IF;
    PERFORM s3dedup.end_write(p_valid_until);
    RETURN v_outcome;
END $$;
