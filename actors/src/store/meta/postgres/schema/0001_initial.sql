-- What a name points at. Newest version wins, compared in the transaction that writes.
--
-- An index row of PostgreSQL holds at most 2,704 bytes and a name may have 4,096: what is past the first 600
-- characters is kept in `rest`, and its SHA-256 stands for it in the key. Both are empty for other names.
CREATE TABLE s3dedup.entries (
    namespace INTEGER NOT NULL,
    name      TEXT COLLATE "C" NOT NULL,
    rest      TEXT COLLATE "C" NOT NULL,
    rest_hash BYTEA   NOT NULL,
    modified  BIGINT  NOT NULL,
    digest    BYTEA   NOT NULL CHECK (octet_length(digest) = 32),
    attrs     TEXT,
    PRIMARY KEY (namespace, name, rest_hash)
);

-- Who holds a content. References are these rows: there is no count that could be wrong, and no row that
-- every upload of a shared content would have to write.
CREATE INDEX entries_digest ON s3dedup.entries (digest);

-- What a hash is. A row is here only while the content is stored whole. `unused_since` is when the content
-- last lost a reference (or was stored without one): null says that it certainly has one.
CREATE TABLE s3dedup.contents (
    digest       BYTEA  NOT NULL PRIMARY KEY CHECK (octet_length(digest) = 32),
    logical_size BIGINT NOT NULL CHECK (logical_size >= 0),
    unused_since BIGINT
);

CREATE INDEX contents_unused ON s3dedup.contents (unused_since) WHERE unused_since IS NOT NULL;

-- How a content's bytes are kept.
CREATE TABLE s3dedup.representations (
    digest      BYTEA   NOT NULL PRIMARY KEY,
    kind        TEXT    NOT NULL CHECK (kind IN ('whole')),
    generation  BIGINT  NOT NULL CHECK (generation >= 0),
    key_depth   INTEGER NOT NULL,
    encoding    TEXT    NOT NULL,
    stored_size BIGINT  NOT NULL CHECK (stored_size >= 0),
    stored_hash BYTEA   NOT NULL CHECK (octet_length(stored_hash) = 32)
);

-- Uploads that were begun and not committed. Numbers are never used twice.
CREATE TABLE s3dedup.intents (
    id         BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest     BYTEA   NOT NULL,
    generation BIGINT  NOT NULL,
    key_depth  INTEGER NOT NULL,
    instance   TEXT    NOT NULL,
    made_at    BIGINT  NOT NULL,
    UNIQUE (digest, generation)
);

CREATE INDEX intents_age ON s3dedup.intents (made_at);

-- Objects that nothing refers to or ever will: to be deleted from the content store, then forgotten.
CREATE TABLE s3dedup.condemned (
    digest       BYTEA   NOT NULL,
    generation   BIGINT  NOT NULL,
    key_depth    INTEGER NOT NULL,
    condemned_at BIGINT  NOT NULL,
    PRIMARY KEY (digest, generation)
);

-- Totals, kept by every write in one of many rows: writers that shared a row would wait for each other's
-- commit. The sum counts; a single row may be negative. Half-empty pages let updates stay on theirs.
CREATE TABLE s3dedup.totals (
    shard         INTEGER NOT NULL PRIMARY KEY,
    entries       BIGINT  NOT NULL DEFAULT 0,
    contents      BIGINT  NOT NULL DEFAULT 0,
    logical_bytes BIGINT  NOT NULL DEFAULT 0,
    stored_bytes  BIGINT  NOT NULL DEFAULT 0
) WITH (fillfactor = 20);

INSERT INTO s3dedup.totals (shard) SELECT generate_series(0, 63);

-- One row: the lowest generation that no forgotten object has used, and the place of the contents.
CREATE TABLE s3dedup.state (
    id               INTEGER PRIMARY KEY CHECK (id = 1),
    generation_floor BIGINT  NOT NULL DEFAULT 0,
    contents_place   TEXT
);

INSERT INTO s3dedup.state (id) VALUES (1);

-- Who serves. A run is one life of a process; the former ones are the last under the same name, newest first.
CREATE TABLE s3dedup.instances (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    run         BIGINT      NOT NULL,
    former_runs BIGINT[]    NOT NULL,
    address     TEXT        NOT NULL,
    version     TEXT        NOT NULL,
    contents    TEXT        NOT NULL,
    locks       TEXT        NOT NULL,
    started_at  TIMESTAMPTZ NOT NULL,
    seen_at     TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 20);

-- Who does what only one may do.
CREATE TABLE s3dedup.leaders (
    task   TEXT        NOT NULL PRIMARY KEY,
    holder TEXT        NOT NULL,
    until  TIMESTAMPTZ NOT NULL
);

-- Every write is one call of a function below: one round trip, one transaction. The rules they keep:
--
-- * Order of locks: the advisory lock of the digest, the row of the name, the row of the content, a new row of
--   the name, the row of the totals. A content that gets a reference is locked FOR KEY SHARE, which lets others
--   share it and lose references meanwhile, and keeps it from being condemned.
-- * Whatever adds or removes rows of contents, intents and condemned of a digest holds the digest's advisory
--   lock, so that a generation is never given twice. It is a transaction's lock of two keys; the locks that
--   instances hold on contents have one key of 64 bits and are apart from these.
-- * READ COMMITTED: every statement sees what was committed before it began, and a row that was waited for
--   as it is afterwards.

-- Refuses what the rules above do not hold for, and a request that was on its way for too long: its sender has
-- given it up and may have done something else since.
CREATE FUNCTION s3dedup.begin_write(p_valid_until TIMESTAMPTZ) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    IF clock_timestamp() > p_valid_until THEN
        RAISE EXCEPTION 'the request comes too late' USING ERRCODE = 'S3D01';
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'default_transaction_isolation must be read committed' USING ERRCODE = 'S3D03';
    END IF;
    -- What is acknowledged is on the disk, and on that of a synchronous standby, whatever the default is.
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END $$;

-- The last step of a write, after everything that may have had to wait: refuses, and so undoes, what took longer than
-- its sender waits. Returns the clock.
CREATE FUNCTION s3dedup.end_write(p_valid_until TIMESTAMPTZ) RETURNS TIMESTAMPTZ LANGUAGE plpgsql AS $$
DECLARE
    v_now TIMESTAMPTZ := clock_timestamp();
BEGIN
    IF v_now > p_valid_until THEN
        RAISE EXCEPTION 'the request took too long' USING ERRCODE = 'S3D01';
    END IF;
    RETURN v_now;
END $$;

CREATE FUNCTION s3dedup.seconds_now() RETURNS BIGINT LANGUAGE sql AS $$
    SELECT floor(extract(epoch FROM clock_timestamp()))::bigint
$$;

CREATE FUNCTION s3dedup.lock_digest(p_digest BYTEA) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(
        1395868740, -- "S3DD"
        (get_byte(p_digest, 0) - 128) * 16777216 + get_byte(p_digest, 1) * 65536
            + get_byte(p_digest, 2) * 256 + get_byte(p_digest, 3)
    );
END $$;

-- Notes that a content lost a reference; returns its size. A content that loses many in one second is written once:
-- the others neither write nor wait. So whoever sets unused_since back to null must leave the last minute alone.
CREATE FUNCTION s3dedup.release(p_digest BYTEA) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    v_now  BIGINT := s3dedup.seconds_now();
    v_size BIGINT;
BEGIN
    UPDATE s3dedup.contents SET unused_since = v_now
        WHERE digest = p_digest AND unused_since IS DISTINCT FROM v_now;
    SELECT c.logical_size INTO v_size FROM s3dedup.contents c WHERE c.digest = p_digest;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'content % has a name but no row', encode(p_digest, 'hex') USING ERRCODE = 'S3D02';
    END IF;
    RETURN v_size;
END $$;

-- Points a name at a content: 'held', 'stale' (and the version that stays) or 'unknown'.
CREATE FUNCTION s3dedup.hold(
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
CREATE FUNCTION s3dedup.plan_put_steps(
    p_namespace INTEGER, p_name TEXT, p_rest TEXT, p_rest_hash BYTEA, p_modified BIGINT,
    p_digest BYTEA, p_instance TEXT, p_key_depth INTEGER,
    OUT o_outcome TEXT, OUT o_current BIGINT, OUT o_intent BIGINT, OUT o_generation BIGINT
) LANGUAGE plpgsql AS $$
BEGIN
    IF p_instance IS NOT NULL THEN
        PERFORM s3dedup.lock_digest(p_digest);
    END IF;
    -- What needs no write is answered without a lock.
    SELECT e.modified INTO o_current FROM s3dedup.entries e
        WHERE e.namespace = p_namespace AND e.name = p_name AND e.rest_hash = p_rest_hash;
    IF FOUND AND o_current > p_modified THEN
        o_outcome := 'stale';
        RETURN;
    END IF;
    PERFORM 1 FROM s3dedup.contents c WHERE c.digest = p_digest;
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
                (SELECT max(c.generation) + 1 FROM s3dedup.condemned c WHERE c.digest = p_digest)
            ),
            p_key_depth, p_instance, s3dedup.seconds_now()
        RETURNING i.id, i.generation INTO o_intent, o_generation;
    o_outcome := 'upload';
END $$;

CREATE FUNCTION s3dedup.plan_put(
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
CREATE FUNCTION s3dedup.commit_put(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest TEXT, p_rest_hash BYTEA, p_modified BIGINT,
    p_digest BYTEA, p_logical_size BIGINT, p_intent BIGINT, p_generation BIGINT, p_key_depth INTEGER, p_encoding TEXT,
    p_stored_size BIGINT, p_stored_hash BYTEA,
    OUT o_outcome TEXT, OUT o_current BIGINT, OUT o_clock TIMESTAMPTZ
) LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_adopted BOOLEAN := false;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_digest(p_digest);
    PERFORM 1 FROM s3dedup.contents c WHERE c.digest = p_digest;
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
        INSERT INTO s3dedup.contents (digest, logical_size) VALUES (p_digest, p_logical_size);
        INSERT INTO s3dedup.representations (digest, kind, generation, key_depth, encoding, stored_size, stored_hash)
            VALUES (p_digest, 'whole', p_generation, p_key_depth, p_encoding, p_stored_size, p_stored_hash);
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
        UPDATE s3dedup.totals t SET contents = t.contents + 1, stored_bytes = t.stored_bytes + p_stored_size
            WHERE t.shard = pg_backend_pid() % 64;
    END IF;
    o_clock := s3dedup.end_write(p_valid_until);
END $$;

-- 'deleted', 'stale' (and the version that stays) or 'absent'.
CREATE FUNCTION s3dedup.delete_entry(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest_hash BYTEA, p_modified BIGINT,
    OUT o_outcome TEXT, OUT o_current BIGINT, OUT o_clock TIMESTAMPTZ
) LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_digest BYTEA;
    v_size   BIGINT;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    SELECT e.modified, e.digest INTO o_current, v_digest FROM s3dedup.entries e
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
        o_outcome := 'deleted';
    END IF;
    o_clock := s3dedup.end_write(p_valid_until);
END $$;

-- Condemns contents; a row for each object that may be deleted now. Digests are to be given in order, so that two
-- callers do not wait for each other.
-- A later step defines this one anew: what is here holds in between only.
CREATE FUNCTION s3dedup.condemn(p_valid_until TIMESTAMPTZ, p_digests BYTEA[], p_unused_since BIGINT)
RETURNS TABLE (
    o_digest BYTEA, o_generation BIGINT, o_key_depth INTEGER, o_encoding TEXT, o_stored_size BIGINT, o_stored_hash BYTEA
) LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_contents     BIGINT := 0;
    v_stored_bytes BIGINT := 0;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    -- All of these before the first row, as everybody else does.
    FOREACH o_digest IN ARRAY p_digests LOOP
        PERFORM s3dedup.lock_digest(o_digest);
    END LOOP;
    FOREACH o_digest IN ARRAY p_digests LOOP
        -- Waits for those who are about to refer to it; they are seen by the next statement.
        PERFORM 1 FROM s3dedup.contents c WHERE c.digest = o_digest AND c.unused_since <= p_unused_since FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        PERFORM 1 FROM s3dedup.entries e WHERE e.digest = o_digest LIMIT 1;
        IF FOUND THEN
            UPDATE s3dedup.contents c SET unused_since = NULL
                WHERE c.digest = o_digest AND c.unused_since < s3dedup.seconds_now() - 60;
            CONTINUE;
        END IF;
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

-- Condemns intents; a row for each object that may be deleted now.
CREATE FUNCTION s3dedup.condemn_intents(p_valid_until TIMESTAMPTZ, p_intents BIGINT[], p_made_before BIGINT)
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
        WHERE i.id = ANY (p_intents) AND i.made_at <= p_made_before
    LOOP
        DELETE FROM s3dedup.intents i WHERE i.id = v_intent
            RETURNING i.generation, i.key_depth INTO o_generation, o_key_depth;
        CONTINUE WHEN NOT FOUND;
        INSERT INTO s3dedup.condemned (digest, generation, key_depth, condemned_at)
            VALUES (o_digest, o_generation, o_key_depth, s3dedup.seconds_now());
        RETURN NEXT;
    END LOOP;
END $$;

-- Forgets condemned objects, given by two arrays of the same length.
CREATE FUNCTION s3dedup.forget(p_valid_until TIMESTAMPTZ, p_digests BYTEA[], p_generations BIGINT[]) RETURNS VOID
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

-- Of contents that may be without a reference, those that have one are noted as such; returns how many. What happened in
-- the last minute is left alone: a reference may be going that is still seen here.
CREATE FUNCTION s3dedup.settle_unused(p_valid_until TIMESTAMPTZ, p_unused_since BIGINT, p_rows BIGINT) RETURNS BIGINT
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

-- Makes a holder the only one to do a task for a time, by this server's clock; no time gives the task up.
CREATE FUNCTION s3dedup.lead(p_valid_until TIMESTAMPTZ, p_task TEXT, p_holder TEXT, p_milliseconds BIGINT)
RETURNS BOOLEAN LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    INSERT INTO s3dedup.leaders AS l (task, holder, until)
        VALUES (p_task, p_holder, clock_timestamp() + p_milliseconds * interval '1 millisecond')
        ON CONFLICT (task) DO UPDATE SET holder = excluded.holder, until = excluded.until
        WHERE l.holder = excluded.holder OR l.until <= clock_timestamp();
    RETURN FOUND;
END $$;

-- Notes that an instance is there. True when another process goes by the same name: this one has said before that
-- it is there, and somebody else has said so since.
CREATE FUNCTION s3dedup.beat(
    p_valid_until TIMESTAMPTZ, p_id TEXT, p_run BIGINT, p_address TEXT, p_version TEXT, p_contents TEXT, p_locks TEXT
) RETURNS BOOLEAN LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_now      TIMESTAMPTZ := clock_timestamp();
    v_is_taken BOOLEAN;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    DELETE FROM s3dedup.instances i WHERE i.seen_at < v_now - interval '7 days';
    SELECT p_run = ANY (i.former_runs) INTO v_is_taken FROM s3dedup.instances i WHERE i.id = p_id;
    INSERT INTO s3dedup.instances AS i (id, run, former_runs, address, version, contents, locks, started_at, seen_at)
        VALUES (p_id, p_run, '{}', p_address, p_version, p_contents, p_locks, v_now, v_now)
        ON CONFLICT (id) DO UPDATE SET
            former_runs = CASE WHEN i.run = p_run THEN i.former_runs ELSE array_prepend(i.run, i.former_runs[1:4]) END,
            started_at = CASE WHEN i.run = p_run THEN i.started_at ELSE v_now END,
            run = p_run, address = p_address, version = p_version, contents = p_contents, locks = p_locks,
            seen_at = v_now;
    RETURN coalesce(v_is_taken, false);
END $$;

CREATE FUNCTION s3dedup.leave(p_valid_until TIMESTAMPTZ, p_id TEXT, p_run BIGINT) RETURNS VOID
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    DELETE FROM s3dedup.instances i WHERE i.id = p_id AND i.run = p_run;
END $$;

-- The place of the contents that these metadata describe: the first one that was ever told.
CREATE FUNCTION s3dedup.tie_to_contents(p_valid_until TIMESTAMPTZ, p_place TEXT) RETURNS TEXT
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_place TEXT;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    UPDATE s3dedup.state s SET contents_place = p_place WHERE s.id = 1 AND s.contents_place IS NULL;
    SELECT s.contents_place INTO STRICT v_place FROM s3dedup.state s WHERE s.id = 1;
    RETURN v_place;
END $$;
