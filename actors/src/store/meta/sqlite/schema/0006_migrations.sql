-- Copies of old servers' files into this store. A name that was found is pending, until it is counted under what came of
-- it. At most one migration from a source is unfinished.
CREATE TABLE migrations (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         TEXT    NOT NULL,
    source       TEXT    NOT NULL,
    state        TEXT    NOT NULL CHECK (state IN ('listing', 'copying', 'done')),
    started_at   INTEGER NOT NULL,
    listed_at    INTEGER,
    ended_at     INTEGER,
    total        INTEGER NOT NULL DEFAULT 0,
    copied       INTEGER NOT NULL DEFAULT 0,
    copied_bytes INTEGER NOT NULL DEFAULT 0,
    contents     INTEGER NOT NULL DEFAULT 0,
    stored_bytes INTEGER NOT NULL DEFAULT 0,
    skipped      INTEGER NOT NULL DEFAULT 0,
    gone         INTEGER NOT NULL DEFAULT 0,
    refused      INTEGER NOT NULL DEFAULT 0,
    failed       INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE UNIQUE INDEX migrations_unfinished ON migrations (kind, source) WHERE state <> 'done';

CREATE TABLE migration_pending (
    migration INTEGER NOT NULL,
    name      TEXT    NOT NULL,
    PRIMARY KEY (migration, name)
) WITHOUT ROWID, STRICT;

-- Names that were not copied.
CREATE TABLE migration_troubles (
    migration INTEGER NOT NULL,
    name      TEXT    NOT NULL,
    fate      TEXT    NOT NULL,
    reason    TEXT    NOT NULL,
    attempts  INTEGER NOT NULL,
    noted_at  INTEGER NOT NULL,
    PRIMARY KEY (migration, name)
) WITHOUT ROWID, STRICT;
