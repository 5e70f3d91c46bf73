-- Grants of jobs over several nodes: the further nodes, and why the attempt is to end before its time.

CREATE TABLE wide_grant (
    grant INTEGER PRIMARY KEY,
    others_pack BLOB NOT NULL,
    broken TEXT NOT NULL
);
