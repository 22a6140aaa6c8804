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
CREATE OR REPLACE FUNCTION s3dedup.begin_write(p_valid_until TIMESTAMPTZ) RETURNS VOID LANGUAGE plpgsql AS $$
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
CREATE OR REPLACE FUNCTION s3dedup.end_write(p_valid_until TIMESTAMPTZ) RETURNS TIMESTAMPTZ LANGUAGE plpgsql AS $$
DECLARE
    v_now TIMESTAMPTZ := clock_timestamp();
BEGIN
    IF v_now > p_valid_until THEN
        RAISE EXCEPTION 'the request took too long' USING ERRCODE = 'S3D01';
    END IF;
    RETURN v_now;
END $$;

CREATE OR REPLACE FUNCTION s3dedup.seconds_now() RETURNS BIGINT LANGUAGE sql AS $$
    SELECT floor(extract(epoch FROM clock_timestamp()))::bigint
$$;

CREATE OR REPLACE FUNCTION s3dedup.milliseconds_now() RETURNS BIGINT LANGUAGE sql AS $$
    SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

CREATE OR REPLACE FUNCTION s3dedup.lock_digest(p_digest BYTEA) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(
        1395868740, -- "S3DD"
        (get_byte(p_digest, 0) - 128) * 16777216 + get_byte(p_digest, 1) * 65536
            + get_byte(p_digest, 2) * 256 + get_byte(p_digest, 3)
    );
END $$;

-- While an old server is there, writes of one name come one after the other: this lock is taken before that of a digest,
-- and by nothing that holds one.
CREATE OR REPLACE FUNCTION s3dedup.lock_name(p_namespace INTEGER, p_name TEXT, p_rest_hash BYTEA) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(
        1395868741, -- one more than "S3DD"
        ('x' || left(md5(p_namespace || '/' || encode(p_rest_hash, 'hex') || '/' || p_name), 8))::bit(32)::integer
    );
END $$;
