-- Repairs and restored backups.

CREATE OR REPLACE FUNCTION s3dedup.spend_generation(p_valid_until TIMESTAMPTZ, p_generation BIGINT) RETURNS VOID
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    UPDATE s3dedup.state s SET generation_floor = p_generation + 1
        WHERE s.id = 1 AND s.generation_floor <= p_generation;
END $$;

-- An intent for a content whether or not it is known.
CREATE OR REPLACE FUNCTION s3dedup.begin_replacement(
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

-- Makes an object the one that is read for its content: 'set', 'moved' or 'refused'. A content that becomes known by
-- this is held: no cleaning ever comes to it until it had a name.
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

-- Makes an object that proved to be good the one that is read for its content. When it has been that all along, it
-- leaves quarantine: p_expected tells that this very object was looked at. What was noted against the former object, or
-- against this one, holds no more.
-- Rows that cannot be read are made anew: whoever repairs knows of no object there, or of the one that the row still names. That
-- one goes into quarantine, unless it is the good one.
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

-- Notes of contents without a reference that they have none. Digests are to be given in order. The note is never
-- taken back here: a content may be just losing a reference that is still seen.
CREATE OR REPLACE FUNCTION s3dedup.recount(p_valid_until TIMESTAMPTZ, p_digests BYTEA[]) RETURNS VOID
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

-- Makes the totals what they count. Each transaction changes rows and totals together, so what is wrong with the
-- totals is the same in every snapshot, whatever goes on meanwhile.
CREATE OR REPLACE FUNCTION s3dedup.recount_totals() RETURNS VOID LANGUAGE plpgsql AS $$
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

-- Ends the hold of some contents; returns how many.
CREATE OR REPLACE FUNCTION s3dedup.release_held(p_valid_until TIMESTAMPTZ, p_rows BIGINT) RETURNS BIGINT
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

-- Makes a name hold a content again, whether or not that can be read now: 'held', 'newer' when the name has a newer version
-- or another content of the same one, 'unknown' when the content has no row.
CREATE OR REPLACE FUNCTION s3dedup.restore(
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
