-- Names that were deleted here while an old server was there too: no copy of that version or an older one comes back.
CREATE TABLE tombstones (
    namespace INTEGER NOT NULL,
    name      TEXT    NOT NULL,
    modified  INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID, STRICT;

-- Names whose state the old server may not have. `seq` tells writes apart, `claim` those who bring the state there; times
-- are milliseconds, but for `since`.
CREATE TABLE marks (
    namespace     INTEGER NOT NULL,
    name          TEXT    NOT NULL,
    seq           INTEGER NOT NULL,
    since         INTEGER NOT NULL,
    attempts      INTEGER NOT NULL DEFAULT 0,
    last_error    TEXT,
    next_at       INTEGER NOT NULL,
    claim         INTEGER,
    claimed_until INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID, STRICT;

CREATE INDEX marks_due ON marks (next_at);

ALTER TABLE state ADD COLUMN marks_made INTEGER NOT NULL DEFAULT 0;
