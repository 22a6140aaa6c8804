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
