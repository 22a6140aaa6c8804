-- A page of contents that may be unused ends at any place of this order, so that no look at one depends on how many
-- there are.
DROP INDEX s3dedup.contents_unused;

CREATE INDEX contents_unused ON s3dedup.contents (unused_since, digest) WHERE unused_since IS NOT NULL;
