-- Writes beside an old server, and what it is still to be told.

-- Marks a name. Whoever wrote has a moment to tell the old server before others look for it.
CREATE OR REPLACE FUNCTION s3dedup.mark_name(p_namespace INTEGER, p_name TEXT, p_rest TEXT, p_rest_hash BYTEA, p_head_start BIGINT)
RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO s3dedup.marks AS m (namespace, name, rest, rest_hash, seq, since, next_at)
        VALUES (p_namespace, p_name, p_rest, p_rest_hash, nextval('s3dedup.marks_made'), s3dedup.seconds_now(),
            s3dedup.milliseconds_now() + p_head_start)
        ON CONFLICT (namespace, name, rest_hash) DO UPDATE
        SET seq = excluded.seq, next_at = least(m.next_at, excluded.next_at);
END $$;

CREATE OR REPLACE FUNCTION s3dedup.mark(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest TEXT, p_rest_hash BYTEA
) RETURNS VOID LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    PERFORM s3dedup.mark_name(p_namespace, p_name, p_rest, p_rest_hash, 0);
END $$;

-- For a copy from the old server: 'deleted' or 'stale' (and the version that stands against it), else null.
CREATE OR REPLACE FUNCTION s3dedup.refuse_copy(
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
CREATE OR REPLACE FUNCTION s3dedup.plan_put_beside(
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
CREATE OR REPLACE FUNCTION s3dedup.commit_put_beside(
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
CREATE OR REPLACE FUNCTION s3dedup.delete_beside(
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
CREATE OR REPLACE FUNCTION s3dedup.claim_mark(
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
CREATE OR REPLACE FUNCTION s3dedup.claim_due_marks(p_valid_until TIMESTAMPTZ, p_claim BIGINT, p_lease BIGINT, p_rows BIGINT)
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

-- The caller, who has the mark, is about to tell the old server of a content, which may take the time p_lease; whether it has
-- the mark still.
CREATE OR REPLACE FUNCTION s3dedup.begin_telling(
    p_valid_until TIMESTAMPTZ, p_namespace INTEGER, p_name TEXT, p_rest_hash BYTEA, p_claim BIGINT, p_digest BYTEA, p_lease BIGINT
) RETURNS BOOLEAN LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    UPDATE s3dedup.marks m SET telling = p_digest, claimed_until = s3dedup.milliseconds_now() + p_lease
        WHERE m.namespace = p_namespace AND m.name = p_name AND m.rest_hash = p_rest_hash AND m.claim = p_claim;
    RETURN FOUND;
END $$;

-- The old server has the state of that seq: 'settled', 'changed' when there was a write since, or 'lost'. What was told is
-- known to be there, also when the name was written since.
CREATE OR REPLACE FUNCTION s3dedup.settle_mark(
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
    UPDATE s3dedup.marks m
        SET claim = NULL, claimed_until = 0, next_at = s3dedup.milliseconds_now(), telling = NULL
        WHERE m.namespace = p_namespace AND m.name = p_name AND m.rest_hash = p_rest_hash AND m.claim = p_claim;
    RETURN CASE WHEN FOUND THEN 'changed' ELSE 'lost' END;
END $$;

-- The old server could not be told: again after a pause, by nobody for the time p_hold.
CREATE OR REPLACE FUNCTION s3dedup.fail_mark(
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

CREATE OR REPLACE FUNCTION s3dedup.forget_tombstones(p_valid_until TIMESTAMPTZ, p_rows BIGINT) RETURNS BIGINT
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_rows BIGINT;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    IF s3dedup.remembers_deletions() THEN
        RETURN 0;
    END IF;
    DELETE FROM s3dedup.tombstones t WHERE (t.namespace, t.name, t.rest_hash) IN (
        SELECT d.namespace, d.name, d.rest_hash FROM s3dedup.tombstones d LIMIT p_rows
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END $$;
