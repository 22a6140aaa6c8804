-- Copies of old servers' files into this store. A name that was found is pending, until it is counted under what came of
-- it. At most one migration from a source is unfinished.
CREATE TABLE s3dedup.migrations (
    id           BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         TEXT    NOT NULL,
    source       TEXT    NOT NULL,
    state        TEXT    NOT NULL CHECK (state IN ('listing', 'copying', 'done')),
    started_at   BIGINT  NOT NULL,
    listed_at    BIGINT,
    ended_at     BIGINT,
    total        BIGINT  NOT NULL DEFAULT 0,
    copied       BIGINT  NOT NULL DEFAULT 0,
    copied_bytes BIGINT  NOT NULL DEFAULT 0,
    contents     BIGINT  NOT NULL DEFAULT 0,
    stored_bytes BIGINT  NOT NULL DEFAULT 0,
    skipped      BIGINT  NOT NULL DEFAULT 0,
    gone         BIGINT  NOT NULL DEFAULT 0,
    refused      BIGINT  NOT NULL DEFAULT 0,
    failed       BIGINT  NOT NULL DEFAULT 0
) WITH (fillfactor = 20);

CREATE UNIQUE INDEX migrations_unfinished ON s3dedup.migrations (kind, md5(source))
    WHERE state <> 'done';

-- Names are cut as in `entries`.
CREATE TABLE s3dedup.migration_pending (
    migration BIGINT NOT NULL,
    name      TEXT COLLATE "C" NOT NULL,
    rest      TEXT COLLATE "C" NOT NULL,
    rest_hash BYTEA  NOT NULL,
    PRIMARY KEY (migration, name, rest_hash)
);

-- Names that were not copied.
CREATE TABLE s3dedup.migration_troubles (
    migration BIGINT  NOT NULL,
    name      TEXT COLLATE "C" NOT NULL,
    rest      TEXT COLLATE "C" NOT NULL,
    rest_hash BYTEA   NOT NULL,
    fate      TEXT    NOT NULL,
    reason    TEXT    NOT NULL,
    attempts  INTEGER NOT NULL,
    noted_at  BIGINT  NOT NULL,
    PRIMARY KEY (migration, name, rest_hash)
);

CREATE FUNCTION s3dedup.begin_migration(p_valid_until TIMESTAMPTZ, p_kind TEXT, p_source TEXT)
RETURNS SETOF s3dedup.migrations LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    INSERT INTO s3dedup.migrations (kind, source, state, started_at)
        VALUES (p_kind, p_source, 'listing', s3dedup.seconds_now()) ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT * FROM s3dedup.migrations m
        WHERE m.kind = p_kind AND m.source = p_source AND m.state <> 'done';
    PERFORM s3dedup.end_write(p_valid_until);
END $$;

-- `p_unfit_*` are names that cannot be copied.
CREATE FUNCTION s3dedup.add_names(
    p_valid_until TIMESTAMPTZ, p_id BIGINT, p_names TEXT[], p_rests TEXT[], p_hashes BYTEA[],
    p_unfit_names TEXT[], p_unfit_rests TEXT[], p_unfit_hashes BYTEA[], p_reasons TEXT[]
) RETURNS VOID LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_added BIGINT;
    v_unfit BIGINT;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    INSERT INTO s3dedup.migration_pending (migration, name, rest, rest_hash)
        SELECT p_id, * FROM unnest(p_names, p_rests, p_hashes) ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_added = ROW_COUNT;
    INSERT INTO s3dedup.migration_troubles (migration, name, rest, rest_hash, reason, fate, attempts, noted_at)
        SELECT p_id, u.*, 'failed', 1, s3dedup.seconds_now()
            FROM unnest(p_unfit_names, p_unfit_rests, p_unfit_hashes, p_reasons) u ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_unfit = ROW_COUNT;
    UPDATE s3dedup.migrations m SET total = m.total + v_added + v_unfit, failed = m.failed + v_unfit WHERE m.id = p_id;
    PERFORM s3dedup.end_write(p_valid_until);
END $$;

-- Counts what came of names that were pending. A reason makes a name one that was not copied.
CREATE FUNCTION s3dedup.settle_names(
    p_valid_until TIMESTAMPTZ, p_id BIGINT, p_names TEXT[], p_rests TEXT[], p_hashes BYTEA[], p_fates TEXT[],
    p_bytes BIGINT[], p_stored BIGINT[], p_reasons TEXT[], p_attempts INTEGER[]
) RETURNS VOID LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    WITH settled AS (
        SELECT * FROM unnest(p_names, p_rests, p_hashes, p_fates, p_bytes, p_stored, p_reasons, p_attempts)
            AS s (name, rest, rest_hash, fate, bytes, stored, reason, attempts)
    ), counted AS (
        DELETE FROM s3dedup.migration_pending p USING settled s
            WHERE p.migration = p_id AND p.name = s.name AND p.rest_hash = s.rest_hash
            RETURNING s.*
    ), noted AS (
        INSERT INTO s3dedup.migration_troubles (migration, name, rest, rest_hash, fate, reason, attempts, noted_at)
            SELECT p_id, c.name, c.rest, c.rest_hash, c.fate, c.reason, c.attempts, s3dedup.seconds_now()
                FROM counted c WHERE c.reason IS NOT NULL
            ON CONFLICT DO NOTHING
    ), sums AS (
        SELECT count(*) FILTER (WHERE fate = 'copied') AS copied, coalesce(sum(bytes), 0)::bigint AS copied_bytes,
            count(stored) AS contents, coalesce(sum(stored), 0)::bigint AS stored_bytes,
            count(*) FILTER (WHERE fate = 'skipped') AS skipped, count(*) FILTER (WHERE fate = 'gone') AS gone,
            count(*) FILTER (WHERE fate = 'refused') AS refused, count(*) FILTER (WHERE fate = 'failed') AS failed
            FROM counted
    )
    UPDATE s3dedup.migrations m SET copied = m.copied + s.copied, copied_bytes = m.copied_bytes + s.copied_bytes,
            contents = m.contents + s.contents, stored_bytes = m.stored_bytes + s.stored_bytes,
            skipped = m.skipped + s.skipped, gone = m.gone + s.gone, refused = m.refused + s.refused,
            failed = m.failed + s.failed
        FROM sums s WHERE m.id = p_id;
    PERFORM s3dedup.end_write(p_valid_until);
END $$;

-- From one state to the next.
CREATE FUNCTION s3dedup.advance_migration(p_valid_until TIMESTAMPTZ, p_id BIGINT, p_from TEXT) RETURNS VOID
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    UPDATE s3dedup.migrations m SET state = 'copying', listed_at = s3dedup.seconds_now()
        WHERE m.id = p_id AND m.state = 'listing' AND p_from = 'listing';
    UPDATE s3dedup.migrations m SET state = 'done', ended_at = s3dedup.seconds_now()
        WHERE m.id = p_id AND m.state = 'copying' AND p_from = 'copying';
    PERFORM s3dedup.end_write(p_valid_until);
END $$;

-- Forgets up to 1,000 rows of one finished migration from the same source; false when there is none.
CREATE FUNCTION s3dedup.forget_former_migrations(p_valid_until TIMESTAMPTZ, p_id BIGINT) RETURNS BOOLEAN
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_former BIGINT;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    SELECT old.id INTO v_former FROM s3dedup.migrations old
        JOIN s3dedup.migrations latest ON old.kind = latest.kind AND old.source = latest.source
        WHERE latest.id = p_id AND old.id <> p_id AND old.state = 'done' LIMIT 1;
    IF NOT FOUND THEN
        RETURN FALSE;
    END IF;
    DELETE FROM s3dedup.migration_troubles t WHERE t.migration = v_former AND (t.name, t.rest_hash) IN
        (SELECT u.name, u.rest_hash FROM s3dedup.migration_troubles u WHERE u.migration = v_former LIMIT 1000);
    IF NOT FOUND THEN
        DELETE FROM s3dedup.migrations m WHERE m.id = v_former;
    END IF;
    PERFORM s3dedup.end_write(p_valid_until);
    RETURN TRUE;
END $$;

-- Whether files that were deleted here must be remembered: a migration is under way, or could be repeated.
CREATE FUNCTION s3dedup.remembers_deletions() RETURNS BOOLEAN LANGUAGE sql AS $$
    SELECT EXISTS (
        SELECT 1 FROM s3dedup.migrations m WHERE m.state <> 'done' OR m.ended_at > s3dedup.seconds_now() - 2592000
    )
$$;

-- Also leaves a tombstone while deletions are to be remembered.
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
