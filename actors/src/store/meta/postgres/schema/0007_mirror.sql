-- Names that were deleted here while an old server was there too: no copy of that version or an older one comes back.
-- Names are cut as in `entries`.
CREATE TABLE s3dedup.tombstones (
    namespace INTEGER NOT NULL,
    name      TEXT COLLATE "C" NOT NULL,
    rest      TEXT COLLATE "C" NOT NULL,
    rest_hash BYTEA   NOT NULL,
    modified  BIGINT  NOT NULL,
    PRIMARY KEY (namespace, name, rest_hash)
);

-- Names whose state the old server may not have. `seq` tells writes apart, `claim` those who bring the state there; times
-- are milliseconds, but for `since`.
CREATE TABLE s3dedup.marks (
    namespace     INTEGER NOT NULL,
    name          TEXT COLLATE "C" NOT NULL,
    rest          TEXT COLLATE "C" NOT NULL,
    rest_hash     BYTEA   NOT NULL,
    seq           BIGINT  NOT NULL,
    since         BIGINT  NOT NULL,
    attempts      INTEGER NOT NULL DEFAULT 0,
    last_error    TEXT,
    next_at       BIGINT  NOT NULL,
    claim         BIGINT,
    claimed_until BIGINT  NOT NULL DEFAULT 0,
    PRIMARY KEY (namespace, name, rest_hash)
) WITH (fillfactor = 50);

CREATE INDEX marks_due ON s3dedup.marks (next_at);

CREATE SEQUENCE s3dedup.marks_made;

CREATE FUNCTION s3dedup.milliseconds_now() RETURNS BIGINT LANGUAGE sql AS $$
    SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

-- While an old server is there, writes of one name come one after the other: this lock is taken before that of a digest,
-- and by nothing that holds one.
CREATE FUNCTION s3dedup.lock_name(p_namespace INTEGER, p_name TEXT, p_rest_hash BYTEA) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(
        1395868741, -- one more than "S3DD"
        ('x' || left(md5(p_namespace || '/' || encode(p_rest_hash, 'hex') || '/' || p_name), 8))::bit(32)::integer
    );
END $$;

-- Marks a name. Whoever wrote has a moment to tell the old server before others look for it.
CREATE FUNCTION s3dedup.mark_name(p_namespace INTEGER, p_name TEXT, p_rest TEXT, p_rest_hash BYTEA, p_head_start BIGINT)
RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO s3dedup.marks AS m (namespace, name, rest, rest_hash, seq, since, next_at)
        VALUES (p_namespace, p_name, p_rest, p_rest_hash, nextval('s3dedup.marks_made'), s3dedup.seconds_now(),
            s3dedup.milliseconds_now() + p_head_start)
        ON CONFLICT (namespace, name, rest_hash) DO UPDATE
        SET seq = excluded.seq, next_at = least(m.next_at, excluded.next_at);
END $$;

CREATE FUNCTION s3dedup.mark(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest TEXT, p_rest_hash BYTEA
) RETURNS VOID LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.mark_name(p_namespace, p_name, p_rest, p_rest_hash, 0);
END $$;

-- For a copy from the old server: 'deleted' or 'stale' (and the version that stands against it), else null.
CREATE FUNCTION s3dedup.refuse_copy(
    p_namespace INTEGER, p_name TEXT, p_rest_hash BYTEA, p_modified BIGINT, OUT o_outcome TEXT, OUT o_current BIGINT
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT t.modified INTO o_current FROM s3dedup.tombstones t
        WHERE t.namespace = p_namespace AND t.name = p_name AND t.rest_hash = p_rest_hash;
    IF FOUND AND o_current >= p_modified THEN
        o_outcome := 'deleted';
        RETURN;
    END IF;
    SELECT e.modified INTO o_current FROM s3dedup.entries e
        WHERE e.namespace = p_namespace AND e.name = p_name AND e.rest_hash = p_rest_hash;
    IF FOUND AND o_current >= p_modified THEN
        o_outcome := 'stale';
    END IF;
END $$;

-- plan_put() beside an old server, by a client or, with p_is_copy, from it.
CREATE FUNCTION s3dedup.plan_put_beside(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest TEXT, p_rest_hash BYTEA, p_modified BIGINT,
    p_digest BYTEA, p_instance TEXT, p_key_depth INTEGER, p_is_copy BOOLEAN,
    OUT o_outcome TEXT, OUT o_current BIGINT, OUT o_intent BIGINT, OUT o_generation BIGINT, OUT o_clock TIMESTAMPTZ
) LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_name(p_namespace, p_name, p_rest_hash);
    IF p_is_copy THEN
        SELECT r.o_outcome, r.o_current INTO o_outcome, o_current
            FROM s3dedup.refuse_copy(p_namespace, p_name, p_rest_hash, p_modified) r;
    END IF;
    IF o_outcome IS NULL THEN
        SELECT s.o_outcome, s.o_current, s.o_intent, s.o_generation INTO o_outcome, o_current, o_intent, o_generation
            FROM s3dedup.plan_put_steps(
                p_namespace, p_name, p_rest, p_rest_hash, p_modified, p_digest, p_instance, p_key_depth) s;
        IF o_outcome = 'committed' AND NOT p_is_copy THEN
            PERFORM s3dedup.mark_name(p_namespace, p_name, p_rest, p_rest_hash, 3000);
        END IF;
    END IF;
    o_clock := s3dedup.end_write(p_valid_until);
END $$;

-- commit_put() beside an old server. What was uploaded for a copy that is refused is left to its intent.
CREATE FUNCTION s3dedup.commit_put_beside(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest TEXT, p_rest_hash BYTEA, p_modified BIGINT,
    p_digest BYTEA, p_logical_size BIGINT, p_intent BIGINT, p_generation BIGINT, p_key_depth INTEGER, p_encoding TEXT,
    p_stored_size BIGINT, p_stored_hash BYTEA, p_is_copy BOOLEAN,
    OUT o_outcome TEXT, OUT o_current BIGINT, OUT o_clock TIMESTAMPTZ
) LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_name(p_namespace, p_name, p_rest_hash);
    IF p_is_copy THEN
        SELECT r.o_outcome, r.o_current INTO o_outcome, o_current
            FROM s3dedup.refuse_copy(p_namespace, p_name, p_rest_hash, p_modified) r;
    END IF;
    IF o_outcome IS NULL THEN
        SELECT c.o_outcome, c.o_current INTO o_outcome, o_current FROM s3dedup.commit_put(
            p_valid_until, p_namespace, p_name, p_rest, p_rest_hash, p_modified, p_digest, p_logical_size, p_intent,
            p_generation, p_key_depth, p_encoding, p_stored_size, p_stored_hash) c;
        IF o_outcome = 'committed' AND NOT p_is_copy THEN
            PERFORM s3dedup.mark_name(p_namespace, p_name, p_rest, p_rest_hash, 3000);
        END IF;
    END IF;
    o_clock := s3dedup.end_write(p_valid_until);
END $$;

-- delete_entry() beside an old server: remembered, also when the name is not here.
CREATE FUNCTION s3dedup.delete_beside(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest TEXT, p_rest_hash BYTEA, p_modified BIGINT,
    OUT o_outcome TEXT, OUT o_current BIGINT, OUT o_clock TIMESTAMPTZ
) LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.lock_name(p_namespace, p_name, p_rest_hash);
    SELECT d.o_outcome, d.o_current INTO o_outcome, o_current
        FROM s3dedup.delete_entry(p_valid_until, p_namespace, p_name, p_rest_hash, p_modified) d;
    IF o_outcome <> 'stale' THEN
        INSERT INTO s3dedup.tombstones AS t (namespace, name, rest, rest_hash, modified)
            VALUES (p_namespace, p_name, p_rest, p_rest_hash, p_modified)
            ON CONFLICT (namespace, name, rest_hash) DO UPDATE SET modified = greatest(t.modified, excluded.modified);
        PERFORM s3dedup.mark_name(p_namespace, p_name, p_rest, p_rest_hash, 3000);
    END IF;
    o_clock := s3dedup.end_write(p_valid_until);
END $$;

-- Claims the mark of one name: 'claimed' (and what it says), 'held' by somebody else, or 'absent'.
CREATE FUNCTION s3dedup.claim_mark(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest_hash BYTEA, p_claim BIGINT, p_lease BIGINT,
    OUT o_outcome TEXT, OUT o_seq BIGINT, OUT o_attempts INTEGER
) LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_now BIGINT := s3dedup.milliseconds_now();
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    UPDATE s3dedup.marks m SET claim = p_claim, claimed_until = v_now + p_lease
        WHERE m.namespace = p_namespace AND m.name = p_name AND m.rest_hash = p_rest_hash
            AND (m.claimed_until <= v_now OR m.claim = p_claim)
        RETURNING m.seq, m.attempts INTO o_seq, o_attempts;
    IF FOUND THEN
        o_outcome := 'claimed';
        RETURN;
    END IF;
    PERFORM 1 FROM s3dedup.marks m
        WHERE m.namespace = p_namespace AND m.name = p_name AND m.rest_hash = p_rest_hash;
    o_outcome := CASE WHEN FOUND THEN 'held' ELSE 'absent' END;
END $$;

-- Claims marks that are due.
CREATE FUNCTION s3dedup.claim_due_marks(p_valid_until TIMESTAMPTZ, p_claim BIGINT, p_lease BIGINT, p_rows BIGINT)
RETURNS TABLE (o_namespace INTEGER, o_name TEXT, o_seq BIGINT, o_attempts INTEGER)
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_now BIGINT := s3dedup.milliseconds_now();
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    RETURN QUERY
        WITH due AS (
            SELECT d.namespace, d.name, d.rest_hash FROM s3dedup.marks d
            WHERE d.next_at <= v_now AND d.claimed_until <= v_now
            ORDER BY d.next_at LIMIT p_rows FOR UPDATE SKIP LOCKED
        )
        UPDATE s3dedup.marks m SET claim = p_claim, claimed_until = v_now + p_lease FROM due
        WHERE m.namespace = due.namespace AND m.name = due.name AND m.rest_hash = due.rest_hash
        RETURNING m.namespace, m.name || m.rest, m.seq, m.attempts;
END $$;

-- The old server has the state of that seq: 'settled', 'changed' when there was a write since, or 'lost'.
CREATE FUNCTION s3dedup.settle_mark(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest_hash BYTEA, p_claim BIGINT, p_seq BIGINT
) RETURNS TEXT LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    DELETE FROM s3dedup.marks m
        WHERE m.namespace = p_namespace AND m.name = p_name AND m.rest_hash = p_rest_hash
            AND m.claim = p_claim AND m.seq = p_seq;
    IF FOUND THEN
        RETURN 'settled';
    END IF;
    UPDATE s3dedup.marks m SET claim = NULL, claimed_until = 0, next_at = s3dedup.milliseconds_now()
        WHERE m.namespace = p_namespace AND m.name = p_name AND m.rest_hash = p_rest_hash AND m.claim = p_claim;
    RETURN CASE WHEN FOUND THEN 'changed' ELSE 'lost' END;
END $$;

-- The old server could not be told: again after a pause, by nobody for the time p_hold.
CREATE FUNCTION s3dedup.fail_mark(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest_hash BYTEA, p_claim BIGINT,
    p_error TEXT, p_pause BIGINT, p_hold BIGINT
) RETURNS VOID LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_now BIGINT := s3dedup.milliseconds_now();
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    UPDATE s3dedup.marks m SET attempts = m.attempts + 1, last_error = p_error, next_at = v_now + p_pause,
            claim = NULL, claimed_until = v_now + p_hold
        WHERE m.namespace = p_namespace AND m.name = p_name AND m.rest_hash = p_rest_hash AND m.claim = p_claim;
END $$;

CREATE FUNCTION s3dedup.forget_tombstones(p_valid_until TIMESTAMPTZ, p_rows BIGINT) RETURNS BIGINT
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_rows BIGINT;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    DELETE FROM s3dedup.tombstones t WHERE (t.namespace, t.name, t.rest_hash) IN (
        SELECT d.namespace, d.name, d.rest_hash FROM s3dedup.tombstones d LIMIT p_rows
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END $$;
