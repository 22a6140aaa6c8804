-- Since when a content's object is known to be missing or damaged: the next upload of the content takes its place.
ALTER TABLE s3dedup.representations ADD COLUMN suspect_since BIGINT;

UPDATE s3dedup.representations r SET suspect_since = q.quarantined_at FROM s3dedup.quarantined q
    WHERE q.digest = r.digest AND q.generation = r.generation;

-- Under the digest's lock: an upload that is being committed either finds the note or comes before it.
CREATE FUNCTION s3dedup.note_damaged(p_valid_until TIMESTAMPTZ, p_digest BYTEA, p_generation BIGINT) RETURNS VOID
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_digest(p_digest);
    UPDATE s3dedup.representations r SET suspect_since = s3dedup.seconds_now()
        WHERE r.digest = p_digest AND r.generation = p_generation AND r.suspect_since IS NULL;
    PERFORM s3dedup.end_write(p_valid_until);
END $$;

-- As before, and a content whose object it is gets another one with its next upload.
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

-- As before, and the object is taken for good again.
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

-- As before, and what was noted against the former object, or against this one, holds no more.
CREATE OR REPLACE FUNCTION s3dedup.set_good_blob(
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
    -- Without p_expected nobody looked at it, unless it is a new row, which has no note.
    IF v_outcome = 'set' AND p_expected IS NOT NULL THEN
        UPDATE s3dedup.representations r SET suspect_since = NULL
            WHERE r.digest = p_digest AND r.generation = p_generation AND r.suspect_since IS NOT NULL;
    END IF;
    PERFORM s3dedup.end_write(p_valid_until);
    RETURN v_outcome;
END $$;

-- As before, but a content whose object is known to be missing or damaged is as unknown.
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
    PERFORM 1 FROM s3dedup.contents c JOIN s3dedup.representations r ON r.digest = c.digest
        WHERE c.digest = p_digest AND r.suspect_since IS NULL;
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

-- As before, but for a content whose object is known to be missing or damaged: the new one takes its place.
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
    v_replaced      BIGINT := 0;
    v_former_size   BIGINT;
    v_floor         BIGINT;
    v_reason        TEXT := 'it was found missing or damaged, and its content was uploaded anew';
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_digest(p_digest);
    PERFORM 1 FROM s3dedup.contents c JOIN s3dedup.representations r ON r.digest = c.digest
        WHERE c.digest = p_digest AND r.suspect_since IS NULL;
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
            v_reason := 'its content was lost from the database and uploaded anew';
            -- Names that outlived the row.
            SELECT count(*) * p_logical_size INTO v_logical_bytes FROM s3dedup.entries e WHERE e.digest = p_digest;
        ELSE
            SELECT coalesce(sum(r.stored_size), 0) INTO v_replaced
                FROM s3dedup.representations r WHERE r.digest = p_digest;
            -- A wrong size makes every read look damaged.
            SELECT c.logical_size INTO v_former_size FROM s3dedup.contents c WHERE c.digest = p_digest;
            IF v_former_size <> p_logical_size THEN
                SELECT count(*) * (p_logical_size - v_former_size) INTO v_logical_bytes
                    FROM s3dedup.entries e WHERE e.digest = p_digest;
                UPDATE s3dedup.contents SET logical_size = p_logical_size WHERE digest = p_digest;
            END IF;
        END IF;
        -- No object is to get the name of one in quarantine. Made-up generations are far above those that are counted.
        SELECT greatest(p_generation, max(r.generation) + 1) INTO v_floor
            FROM s3dedup.representations r WHERE r.digest = p_digest AND r.generation < 4611686018427387904;
        INSERT INTO s3dedup.quarantined (digest, generation, key_depth, reason, quarantined_at)
            SELECT r.digest, r.generation, r.key_depth, v_reason, s3dedup.seconds_now()
            FROM s3dedup.representations r WHERE r.digest = p_digest
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            UPDATE s3dedup.state s SET generation_floor = v_floor WHERE s.id = 1 AND s.generation_floor < v_floor;
        END IF;
        INSERT INTO s3dedup.representations (digest, kind, generation, key_depth, encoding, stored_size, stored_hash)
            VALUES (p_digest, 'whole', p_generation, p_key_depth, p_encoding, p_stored_size, p_stored_hash)
            ON CONFLICT (digest) DO UPDATE SET generation = excluded.generation, key_depth = excluded.key_depth,
                encoding = excluded.encoding, stored_size = excluded.stored_size, stored_hash = excluded.stored_hash,
                suspect_since = NULL;
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
                logical_bytes = t.logical_bytes + v_logical_bytes, stored_bytes = t.stored_bytes + p_stored_size - v_replaced
            WHERE t.shard = pg_backend_pid() % 64;
    END IF;
    o_clock := s3dedup.end_write(p_valid_until);
END $$;

-- As before, but what is in quarantine is not given up.
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
