-- The journal of migrations.

CREATE OR REPLACE FUNCTION s3dedup.begin_migration(p_valid_until TIMESTAMPTZ, p_kind TEXT, p_source TEXT)
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
CREATE OR REPLACE FUNCTION s3dedup.add_names(
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
CREATE OR REPLACE FUNCTION s3dedup.settle_names(
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
CREATE OR REPLACE FUNCTION s3dedup.advance_migration(p_valid_until TIMESTAMPTZ, p_id BIGINT, p_from TEXT) RETURNS VOID
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
CREATE OR REPLACE FUNCTION s3dedup.forget_former_migrations(p_valid_until TIMESTAMPTZ, p_id BIGINT) RETURNS BOOLEAN
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
