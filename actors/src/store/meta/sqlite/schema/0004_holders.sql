-- Who holds a content: before one is given up to cleaning it is looked up here, as a count may be wrong after damage.
CREATE INDEX entries_digest ON entries (digest);
