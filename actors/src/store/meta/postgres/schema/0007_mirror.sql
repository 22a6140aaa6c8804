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
