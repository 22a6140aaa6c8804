-- What a name points at. Newest version wins, compared in the transaction that writes.
CREATE TABLE entries (
    namespace INTEGER NOT NULL,
    name      TEXT    NOT NULL,
    modified  INTEGER NOT NULL,
    digest    BLOB    NOT NULL,
    attrs     TEXT,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID, STRICT;

-- What a hash is: its size and who needs it. A row is here only while the content is stored whole.
CREATE TABLE contents (
    digest       BLOB    NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    logical_size INTEGER NOT NULL CHECK (logical_size >= 0),
    refs         INTEGER NOT NULL CHECK (refs >= 0),
    unused_since INTEGER,
    CHECK ((refs = 0) = (unused_since IS NOT NULL))
) WITHOUT ROWID, STRICT;

CREATE INDEX contents_unused ON contents (unused_since) WHERE unused_since IS NOT NULL;

-- How a content's bytes are kept.
CREATE TABLE representations (
    digest      BLOB    NOT NULL PRIMARY KEY,
    kind        TEXT    NOT NULL CHECK (kind IN ('whole')),
    generation  INTEGER NOT NULL CHECK (generation >= 0),
    key_depth   INTEGER NOT NULL,
    encoding    TEXT    NOT NULL,
    stored_size INTEGER NOT NULL CHECK (stored_size >= 0),
    stored_hash BLOB    NOT NULL CHECK (length(stored_hash) = 32)
) WITHOUT ROWID, STRICT;

-- Uploads that were begun and not committed. Numbers are never used twice.
CREATE TABLE intents (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    digest     BLOB    NOT NULL,
    generation INTEGER NOT NULL,
    key_depth  INTEGER NOT NULL,
    instance   TEXT    NOT NULL,
    made_at    INTEGER NOT NULL,
    UNIQUE (digest, generation)
) STRICT;

CREATE INDEX intents_age ON intents (made_at);

-- Objects that nothing refers to or ever will: to be deleted from the content store, then forgotten.
CREATE TABLE condemned (
    digest       BLOB    NOT NULL,
    generation   INTEGER NOT NULL,
    key_depth    INTEGER NOT NULL,
    condemned_at INTEGER NOT NULL,
    PRIMARY KEY (digest, generation)
) WITHOUT ROWID, STRICT;

-- One row: totals kept by every write, and the lowest generation that no forgotten object has used.
CREATE TABLE state (
    id               INTEGER PRIMARY KEY CHECK (id = 1),
    entries          INTEGER NOT NULL DEFAULT 0,
    contents         INTEGER NOT NULL DEFAULT 0,
    logical_bytes    INTEGER NOT NULL DEFAULT 0,
    stored_bytes     INTEGER NOT NULL DEFAULT 0,
    generation_floor INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO state (id) VALUES (1);
