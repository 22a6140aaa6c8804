-- Uploads and deletions.

-- Notes that a content lost a reference; returns its size. A content that loses many in one second is written once:
-- the others neither write nor wait. So whoever sets unused_since back to null must leave the last minute alone.
-- A name is let go whatever became of its content.
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

-- Points a name at a content: 'held', 'stale' (and the version that stays) or 'unknown'.
CREATE OR REPLACE FUNCTION s3dedup.hold(
    p_namespace INTEGER, p_name TEXT, p_rest TEXT, p_rest_hash BYTEA, p_modified BIGINT, p_digest BYTEA,
    OUT o_outcome TEXT, OUT o_current BIGINT
) LANGUAGE plpgsql AS $$
DECLARE
    v_old    BYTEA;
    v_exists BOOLEAN;
    v_size   BIGINT;
BEGIN
    LOOP
        SELECT e.modified, e.digest INTO o_current, v_old FROM s3dedup.entries e
            WHERE e.namespace = p_namespace AND e.name = p_name AND e.rest_hash = p_rest_hash
            FOR NO KEY UPDATE;
        v_exists := FOUND;
        IF v_exists AND o_current > p_modified THEN
            o_outcome := 'stale';
            RETURN;
        END IF;
        IF v_exists AND v_old = p_digest THEN
            IF o_current <> p_modified THEN
                UPDATE s3dedup.entries e SET modified = p_modified
                    WHERE e.namespace = p_namespace AND e.name = p_name AND e.rest_hash = p_rest_hash;
            END IF;
            o_outcome := 'held';
            RETURN;
        END IF;
        SELECT c.logical_size INTO v_size FROM s3dedup.contents c WHERE c.digest = p_digest FOR KEY SHARE;
        IF NOT FOUND THEN
            o_outcome := 'unknown';
            RETURN;
        END IF;
        o_outcome := 'held';
        IF v_exists THEN
            UPDATE s3dedup.entries e SET modified = p_modified, digest = p_digest, attrs = NULL
                WHERE e.namespace = p_namespace AND e.name = p_name AND e.rest_hash = p_rest_hash;
            v_size := v_size - s3dedup.release(v_old);
            UPDATE s3dedup.totals t SET logical_bytes = t.logical_bytes + v_size
                WHERE t.shard = pg_backend_pid() % 64;
            RETURN;
        END IF;
        INSERT INTO s3dedup.entries (namespace, name, rest, rest_hash, modified, digest)
            VALUES (p_namespace, p_name, p_rest, p_rest_hash, p_modified, p_digest)
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            UPDATE s3dedup.totals t SET entries = t.entries + 1, logical_bytes = t.logical_bytes + v_size
                WHERE t.shard = pg_backend_pid() % 64;
            RETURN;
        END IF;
        -- Somebody else has just made the name: once more, with theirs.
    END LOOP;
END $$;

-- 'stale' (and the version that stays), 'committed', 'missing' or 'upload' (and the intent and generation).
-- Without an instance no intent is made.
-- A content is as unknown when nobody knows where its bytes are, when its object is known to be missing or damaged, and when
-- its rows cannot be read. A new object does not get the name of one that is noted without its content; an object whose row
-- does not tell its generation had at most the highest that could have been given until now.
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

CREATE OR REPLACE FUNCTION s3dedup.plan_put(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest TEXT, p_rest_hash BYTEA, p_modified BIGINT,
    p_digest BYTEA, p_instance TEXT, p_key_depth INTEGER,
    OUT o_outcome TEXT, OUT o_current BIGINT, OUT o_intent BIGINT, OUT o_generation BIGINT, OUT o_clock TIMESTAMPTZ
) LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    SELECT s.o_outcome, s.o_current, s.o_intent, s.o_generation INTO o_outcome, o_current, o_intent, o_generation
        FROM s3dedup.plan_put_steps(
            p_namespace, p_name, p_rest, p_rest_hash, p_modified, p_digest, p_instance, p_key_depth) s;
    o_clock := s3dedup.end_write(p_valid_until);
END $$;

-- 'committed', 'stale' (and the version that stays) or 'lost'.
-- What rows were lost of a content is put in its place; the new object takes the place of one that is known to be missing or
-- damaged, or whose row cannot be read. A size that cannot be was never counted: the totals then have what is true already.
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

-- Whether files that were deleted here must be remembered: a migration is under way, or could be repeated.
CREATE OR REPLACE FUNCTION s3dedup.remembers_deletions() RETURNS BOOLEAN LANGUAGE sql AS $$
    SELECT EXISTS (
        SELECT 1 FROM s3dedup.migrations m WHERE m.state <> 'done' OR m.ended_at > s3dedup.seconds_now() - 2592000
    )
$$;

-- 'deleted', 'stale' (and the version that stays) or 'absent'. Leaves a tombstone while deletions are to be remembered.
CREATE OR REPLACE FUNCTION s3dedup.delete_entry(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest_hash BYTEA, p_modified BIGINT,
    OUT o_outcome TEXT, OUT o_current BIGINT, OUT o_clock TIMESTAMPTZ
) LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_digest     BYTEA;
    v_rest       TEXT;
    v_size       BIGINT;
    v_remembered BOOLEAN := s3dedup.remembers_deletions();
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    IF v_remembered THEN
        -- A copy looks for the tombstone under this lock.
        PERFORM s3dedup.lock_name(p_namespace, p_name, p_rest_hash);
    END IF;
    SELECT e.modified, e.digest, e.rest INTO o_current, v_digest, v_rest FROM s3dedup.entries e
        WHERE e.namespace = p_namespace AND e.name = p_name AND e.rest_hash = p_rest_hash
        FOR UPDATE;
    IF NOT FOUND THEN
        o_outcome := 'absent';
    ELSIF o_current > p_modified THEN
        o_outcome := 'stale';
    ELSE
        DELETE FROM s3dedup.entries e
            WHERE e.namespace = p_namespace AND e.name = p_name AND e.rest_hash = p_rest_hash;
        v_size := s3dedup.release(v_digest);
        UPDATE s3dedup.totals t SET entries = t.entries - 1, logical_bytes = t.logical_bytes - v_size
            WHERE t.shard = pg_backend_pid() % 64;
        IF v_remembered THEN
            INSERT INTO s3dedup.tombstones AS t (namespace, name, rest, rest_hash, modified)
                VALUES (p_namespace, p_name, v_rest, p_rest_hash, p_modified)
                ON CONFLICT (namespace, name, rest_hash) DO UPDATE SET modified = greatest(t.modified, excluded.modified);
        END IF;
        o_outcome := 'deleted';
    END IF;
    o_clock := s3dedup.end_write(p_valid_until);
END $$;

-- Under the digest's lock: an upload that is being committed either finds the note or comes before it.
CREATE OR REPLACE FUNCTION s3dedup.note_damaged(p_valid_until TIMESTAMPTZ, p_digest BYTEA, p_generation BIGINT) RETURNS VOID
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_digest(p_digest);
    UPDATE s3dedup.representations r SET suspect_since = s3dedup.seconds_now()
        WHERE r.digest = p_digest AND r.generation = p_generation AND r.suspect_since IS NULL;
    PERFORM s3dedup.end_write(p_valid_until);
END $$;
