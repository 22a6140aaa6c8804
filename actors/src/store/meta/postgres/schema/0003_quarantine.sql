-- Objects that are not what they should be: kept, never deleted, never the object of a content again. One that is
-- still the object of a content keeps that content from being cleaned.
CREATE TABLE s3dedup.quarantined (
    digest         BYTEA   NOT NULL,
    generation     BIGINT  NOT NULL,
    key_depth      INTEGER NOT NULL,
    reason         TEXT    NOT NULL,
    quarantined_at BIGINT  NOT NULL,
    PRIMARY KEY (digest, generation)
);

-- As before, but for what is in quarantine.
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
        DELETE FROM s3dedup.contents c WHERE c.digest = o_digest;
        DELETE FROM s3dedup.representations r WHERE r.digest = o_digest
            RETURNING r.generation, r.key_depth, r.encoding, r.stored_size, r.stored_hash
            INTO STRICT o_generation, o_key_depth, o_encoding, o_stored_size, o_stored_hash;
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

-- As before, but for what is in quarantine: it is known, and never deleted.
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
        INSERT INTO s3dedup.condemned (digest, generation, key_depth, condemned_at)
            VALUES (o_digest, o_generation, o_key_depth, s3dedup.seconds_now());
        RETURN NEXT;
    END LOOP;
END $$;

-- Notes of contents without a reference that they have none. Digests are to be given in order. The note is never
-- taken back here: a content may be just losing a reference that is still seen.
CREATE FUNCTION s3dedup.recount(p_valid_until TIMESTAMPTZ, p_digests BYTEA[]) RETURNS VOID
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_digest BYTEA;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    FOREACH v_digest IN ARRAY p_digests LOOP
        PERFORM 1 FROM s3dedup.contents c WHERE c.digest = v_digest FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        PERFORM 1 FROM s3dedup.entries e WHERE e.digest = v_digest LIMIT 1;
        CONTINUE WHEN FOUND;
        UPDATE s3dedup.contents c SET unused_since = s3dedup.seconds_now()
            WHERE c.digest = v_digest AND c.unused_since IS NULL;
    END LOOP;
    PERFORM s3dedup.end_write(p_valid_until);
END $$;

CREATE FUNCTION s3dedup.spend_generation(p_valid_until TIMESTAMPTZ, p_generation BIGINT) RETURNS VOID
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    UPDATE s3dedup.state s SET generation_floor = p_generation + 1
        WHERE s.id = 1 AND s.generation_floor <= p_generation;
END $$;

-- An intent for a content whether or not it is known.
CREATE FUNCTION s3dedup.begin_replacement(
    p_valid_until TIMESTAMPTZ, p_digest BYTEA, p_instance TEXT, p_key_depth INTEGER,
    OUT o_intent BIGINT, OUT o_generation BIGINT
) LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_digest(p_digest);
    INSERT INTO s3dedup.intents AS i (digest, generation, key_depth, instance, made_at)
        SELECT p_digest,
            greatest(
                (SELECT s.generation_floor FROM s3dedup.state s WHERE s.id = 1),
                (SELECT max(old.generation) + 1 FROM s3dedup.intents old WHERE old.digest = p_digest),
                (SELECT max(c.generation) + 1 FROM s3dedup.condemned c WHERE c.digest = p_digest),
                (SELECT max(q.generation) + 1 FROM s3dedup.quarantined q WHERE q.digest = p_digest),
                (SELECT max(r.generation) + 1 FROM s3dedup.representations r WHERE r.digest = p_digest)
            ),
            p_key_depth, p_instance, s3dedup.seconds_now()
        RETURNING i.id, i.generation INTO o_intent, o_generation;
    PERFORM s3dedup.end_write(p_valid_until);
END $$;

CREATE FUNCTION s3dedup.quarantine(
    p_valid_until TIMESTAMPTZ, p_digest BYTEA, p_generation BIGINT, p_key_depth INTEGER, p_reason TEXT
) RETURNS VOID LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_digest(p_digest);
    INSERT INTO s3dedup.quarantined (digest, generation, key_depth, reason, quarantined_at)
        VALUES (p_digest, p_generation, p_key_depth, p_reason, s3dedup.seconds_now()) ON CONFLICT DO NOTHING;
    UPDATE s3dedup.state s SET generation_floor = p_generation + 1
        WHERE s.id = 1 AND s.generation_floor <= p_generation;
END $$;

-- Makes an object the one that is read for its content: 'set', 'moved' or 'refused'.
CREATE FUNCTION s3dedup.set_blob(
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
        -- With the mark of one that lost its last reference: whether it has one is looked up before it is cleaned.
        INSERT INTO s3dedup.contents (digest, logical_size, unused_since)
            VALUES (p_digest, p_logical_size, s3dedup.seconds_now());
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

-- Makes the totals what they count. Each transaction changes rows and totals together, so what is wrong with the
-- totals is the same in every snapshot, whatever goes on meanwhile.
CREATE FUNCTION s3dedup.recount_totals() RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    v_entries       BIGINT;
    v_contents      BIGINT;
    v_logical_bytes BIGINT;
    v_stored_bytes  BIGINT;
BEGIN
    -- One at a time.
    PERFORM pg_advisory_xact_lock(1395868740, 1);
    SELECT e.number - t.entries, c.number - t.contents, e.bytes - t.logical_bytes, r.bytes - t.stored_bytes
        INTO v_entries, v_contents, v_logical_bytes, v_stored_bytes
        FROM (SELECT count(*) AS number, coalesce(sum(c.logical_size), 0)::bigint AS bytes
                FROM s3dedup.entries e LEFT JOIN s3dedup.contents c ON c.digest = e.digest) e,
            (SELECT count(*) AS number FROM s3dedup.contents) c,
            (SELECT coalesce(sum(r.stored_size), 0)::bigint AS bytes
                FROM s3dedup.contents c JOIN s3dedup.representations r ON r.digest = c.digest) r,
            (SELECT sum(entries)::bigint AS entries, sum(contents)::bigint AS contents,
                sum(logical_bytes)::bigint AS logical_bytes, sum(stored_bytes)::bigint AS stored_bytes
                FROM s3dedup.totals) t;
    UPDATE s3dedup.totals t SET entries = t.entries + v_entries, contents = t.contents + v_contents,
            logical_bytes = t.logical_bytes + v_logical_bytes, stored_bytes = t.stored_bytes + v_stored_bytes
        WHERE t.shard = 0;
END $$;
