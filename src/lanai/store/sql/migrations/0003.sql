-- Tokens, and the trail of who changed what.

CREATE TABLE audit (
    row INTEGER PRIMARY KEY,
    at_us INTEGER NOT NULL,
    user TEXT NOT NULL,
    role TEXT NOT NULL,
    origin_pack BLOB NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    before_pack BLOB NOT NULL,
    after_pack BLOB NOT NULL,
    is_refused INTEGER NOT NULL,
    why TEXT NOT NULL,
    left_out INTEGER NOT NULL
);

CREATE INDEX audit_user ON audit (user);

CREATE INDEX audit_time ON audit (at_us);

CREATE TABLE token (
    token INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    user TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    created_at_us INTEGER NOT NULL,
    expires_at_us INTEGER NOT NULL,
    revoked_at_us INTEGER NOT NULL,
    label TEXT NOT NULL
);

CREATE UNIQUE INDEX token_sha256 ON token (sha256);
