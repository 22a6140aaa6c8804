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

-- As before, but a content whose rows cannot be read is as unknown. An object whose row does not tell its generation had at
-- most the highest that could have been given until now.
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
    PERFORM 1 FROM s3dedup.known k WHERE k.digest = p_digest;
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
                (SELECT max(r.generation) + 1 FROM s3dedup.representations r
                    WHERE r.digest = p_digest AND s3dedup.is_given(r.generation))
            ) + (SELECT count(*) FROM s3dedup.representations r
                WHERE r.digest = p_digest AND NOT s3dedup.is_given(r.generation)),
            p_key_depth, p_instance, s3dedup.seconds_now()
        RETURNING i.id, i.generation INTO o_intent, o_generation;
    o_outcome := 'upload';
END $$;

-- As before, and the new object takes the place of one whose row cannot be read. A size that cannot be was never counted:
-- the totals then have what is true already.
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
    PERFORM 1 FROM s3dedup.known k WHERE k.digest = p_digest;
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
            SELECT coalesce(sum(CASE WHEN s3dedup.is_size(r.stored_size) THEN r.stored_size ELSE p_stored_size END), 0)
                INTO v_replaced
                FROM s3dedup.representations r WHERE r.digest = p_digest;
            -- A wrong size makes every read look damaged.
            SELECT c.logical_size INTO v_former_size FROM s3dedup.contents c WHERE c.digest = p_digest;
            IF v_former_size <> p_logical_size THEN
                IF s3dedup.is_size(v_former_size) THEN
                    SELECT count(*) * (p_logical_size - v_former_size) INTO v_logical_bytes
                        FROM s3dedup.entries e WHERE e.digest = p_digest;
                END IF;
                UPDATE s3dedup.contents SET logical_size = p_logical_size WHERE digest = p_digest;
            END IF;
        END IF;
        -- No object is to get the name of one in quarantine. Numbers that no upload was given are not counted.
        SELECT greatest(p_generation, max(r.generation) + 1) INTO v_floor
            FROM s3dedup.representations r WHERE r.digest = p_digest AND s3dedup.is_given(r.generation);
        INSERT INTO s3dedup.quarantined (digest, generation, key_depth, reason, quarantined_at)
            SELECT r.digest, r.generation, r.key_depth, v_reason, s3dedup.seconds_now()
            FROM s3dedup.representations r
            WHERE r.digest = p_digest AND s3dedup.is_given(r.generation) AND r.key_depth BETWEEN 0 AND 8
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            UPDATE s3dedup.state s SET generation_floor = v_floor WHERE s.id = 1 AND s.generation_floor < v_floor;
        END IF;
        INSERT INTO s3dedup.representations (digest, kind, generation, key_depth, encoding, stored_size, stored_hash)
            VALUES (p_digest, 'whole', p_generation, p_key_depth, p_encoding, p_stored_size, p_stored_hash)
            ON CONFLICT (digest) DO UPDATE SET kind = excluded.kind,
                generation = excluded.generation, key_depth = excluded.key_depth,
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

-- As before, but a content whose rows cannot be read is left for an upload or for people.
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

-- As before, but an object stays that may be the last one of a content: it has names or a row, and no object of its own that
-- is taken for good.
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

-- Makes a name hold a content again, whether or not that can be read now: 'held', 'newer' when the name has a newer version
-- or another content of the same one, 'unknown' when the content has no row.
CREATE FUNCTION s3dedup.restore(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest TEXT, p_rest_hash BYTEA, p_modified BIGINT,
    p_digest BYTEA
) RETURNS TEXT LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_outcome TEXT;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_digest(p_digest);
    PERFORM 1 FROM s3dedup.entries e
        WHERE e.namespace = p_namespace AND e.name = p_name AND e.rest_hash = p_rest_hash
            AND e.modified = p_modified AND e.digest <> p_digest;
    IF FOUND THEN
        RETURN 'newer';
    END IF;
    PERFORM 1 FROM s3dedup.contents c WHERE c.digest = p_digest;
    IF FOUND THEN
        SELECT h.o_outcome INTO v_outcome
            FROM s3dedup.hold(p_namespace, p_name, p_rest, p_rest_hash, p_modified, p_digest) h;
    ELSE
        v_outcome := 'unknown';
    END IF;
    PERFORM s3dedup.end_write(p_valid_until);
    RETURN CASE v_outcome WHEN 'stale' THEN 'newer' ELSE v_outcome END;
END $$;
