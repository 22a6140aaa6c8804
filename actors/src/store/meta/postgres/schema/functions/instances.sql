-- Instances that share this database.

-- The place of the contents that these metadata describe: the first one that was ever told.
CREATE OR REPLACE FUNCTION s3dedup.tie_to_contents(p_valid_until TIMESTAMPTZ, p_place TEXT) RETURNS TEXT
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
DECLARE
    v_place TEXT;
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    UPDATE s3dedup.state s SET contents_place = p_place WHERE s.id = 1 AND s.contents_place IS NULL;
    SELECT s.contents_place INTO STRICT v_place FROM s3dedup.state s WHERE s.id = 1;
    RETURN v_place;
END $$;

-- Makes a holder the only one to do a task for a time, by this server's clock; no time gives the task up.
CREATE OR REPLACE FUNCTION s3dedup.lead(p_valid_until TIMESTAMPTZ, p_task TEXT, p_holder TEXT, p_milliseconds BIGINT)
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
CREATE OR REPLACE FUNCTION s3dedup.beat(
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

CREATE OR REPLACE FUNCTION s3dedup.leave(p_valid_until TIMESTAMPTZ, p_id TEXT, p_run BIGINT) RETURNS VOID
LANGUAGE plpgsql SET lock_timeout = '3s' AS $$
BEGIN
    PERFORM s3dedup.begin_write(p_valid_until);
    DELETE FROM s3dedup.instances i WHERE i.id = p_id AND i.run = p_run;
END $$;
