-- Of grants over several nodes the further ones, kept as long as their attempts; and why one is to end before its time.

CREATE TABLE wide_grant (
    grant INTEGER PRIMARY KEY,
    batch INTEGER NOT NULL,
    others_pack BLOB NOT NULL,
    broken TEXT NOT NULL
);

CREATE INDEX wide_grant_batch ON wide_grant (batch);
