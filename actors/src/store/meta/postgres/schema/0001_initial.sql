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
