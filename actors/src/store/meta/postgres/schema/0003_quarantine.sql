-- Objects that are not what they should be: kept, never deleted, never the object of a content again. One that is
-- still the object of a content keeps that content from being cleaned.
CREATE TABLE s3dedup.quarantined (
    digest         BYTEA   NOT NULL,
    generation     BIGINT  NOT NULL,
    key_depth      INTEGER NOT NULL,
    reason         TEXT    NOT NULL,
    quarantined_at BIGINT  NOT NULL,
    PRIMARY KEY (digest, generation)
);
