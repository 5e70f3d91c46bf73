-- The tables as the newest version has them. A new store is made from this file, an older one by the migrations beside
-- it; both ways must end in the same schema. There is no row per waiting job. Columns that end in _pack are msgpack.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE env (
    digest BLOB PRIMARY KEY,
    blob BLOB NOT NULL
);

-- AUTOINCREMENT, so that the number of a dropped batch is remembered and never given again.
CREATE TABLE batch (
    batch INTEGER PRIMARY KEY AUTOINCREMENT,
    user TEXT NOT NULL,
    key TEXT NOT NULL,
    settings_pack BLOB NOT NULL,
    env BLOB NOT NULL,
    opened_at_us INTEGER NOT NULL,
    is_whole INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    digest BLOB NOT NULL DEFAULT x'',
    submitted_at_us INTEGER NOT NULL DEFAULT 0,
    is_set INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'open',
    priority INTEGER NOT NULL DEFAULT 0,
    max_running INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    avoided_pack BLOB NOT NULL DEFAULT x'90',
    ended_at_us INTEGER NOT NULL DEFAULT 0,
    account TEXT NOT NULL DEFAULT ''
);

CREATE UNIQUE INDEX batch_key ON batch (user, key) WHERE key <> '';

CREATE INDEX batch_unfinished ON batch (batch) WHERE state <> 'ended' OR is_whole = 0;

CREATE INDEX batch_ended ON batch (ended_at_us) WHERE state = 'ended';

CREATE INDEX batch_env ON batch (env);

-- Batches of which there is no row in `batch` any more, but rows in attempt, tail, chunk_lines and override.
CREATE TABLE pruned (
    batch INTEGER PRIMARY KEY
);

CREATE TABLE shape (
    batch INTEGER NOT NULL,
    shape INTEGER NOT NULL,
    request_pack BLOB NOT NULL,
    PRIMARY KEY (batch, shape)
) WITHOUT ROWID;

-- What a start has to read of a chunk; its lines lie apart, so that thousands of these fill a few pages.
CREATE TABLE chunk (
    batch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    runs_pack BLOB NOT NULL,
    PRIMARY KEY (batch, first)
) WITHOUT ROWID;

CREATE TABLE chunk_lines (
    batch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    checks_pack BLOB NOT NULL,
    lines BLOB NOT NULL,
    PRIMARY KEY (batch, first)
);

CREATE TABLE override (
    batch INTEGER NOT NULL,
    what TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    value INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    PRIMARY KEY (batch, what, first)
) WITHOUT ROWID;

CREATE TABLE grant (
    grant INTEGER PRIMARY KEY,
    node INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    ranges_pack BLOB NOT NULL
);

CREATE INDEX grant_batch ON grant (batch);

CREATE TABLE wide_grant (
    grant INTEGER PRIMARY KEY,
    batch INTEGER NOT NULL,
    others_pack BLOB NOT NULL,
    broken TEXT NOT NULL
);

CREATE INDEX wide_grant_batch ON wide_grant (batch);

CREATE TABLE attempt (
    row INTEGER PRIMARY KEY,
    batch INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    grant INTEGER NOT NULL,
    node INTEGER NOT NULL,
    state TEXT NOT NULL,
    outcome TEXT NOT NULL,
    exit_code INTEGER,
    signal INTEGER NOT NULL,
    started_at_us INTEGER NOT NULL,
    ended_at_us INTEGER NOT NULL,
    wall_us INTEGER NOT NULL,
    cpu_user_us INTEGER NOT NULL,
    cpu_system_us INTEGER NOT NULL,
    memory_peak_bytes INTEGER,
    reason TEXT NOT NULL
);

CREATE INDEX attempt_job ON attempt (batch, idx);

CREATE INDEX attempt_not_ok ON attempt (batch, idx) WHERE outcome <> 'ok';

-- fresh_row: the first attempt row since the last progress (0: none), last_row: the last one. Between them lies all that
-- a start has to read of a batch's attempts. tail_bytes: what its tails take together.
CREATE TABLE tally (
    batch INTEGER PRIMARY KEY,
    fresh_row INTEGER NOT NULL DEFAULT 0,
    last_row INTEGER NOT NULL DEFAULT 0,
    tail_bytes INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE progress (
    batch INTEGER PRIMARY KEY,
    upto INTEGER NOT NULL,
    pending_pack BLOB NOT NULL,
    held_pack BLOB NOT NULL,
    counts_pack BLOB NOT NULL
);

CREATE TABLE tail (
    tail INTEGER PRIMARY KEY,
    batch INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    is_failed INTEGER NOT NULL,
    out_bytes INTEGER NOT NULL,
    err_bytes INTEGER NOT NULL,
    kept_bytes INTEGER NOT NULL,
    out BLOB NOT NULL,
    err BLOB NOT NULL
);

CREATE UNIQUE INDEX tail_attempt ON tail (batch, idx, attempt);

CREATE INDEX tail_age ON tail (batch, is_failed, tail, kept_bytes);

CREATE TABLE node (
    node INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    key_hash BLOB NOT NULL,
    boot_id TEXT NOT NULL,
    state TEXT NOT NULL,
    is_drained INTEGER NOT NULL,
    capacity_pack BLOB NOT NULL,
    features_pack BLOB NOT NULL,
    started_by TEXT NOT NULL,
    joined_at_us INTEGER NOT NULL,
    seen_at_us INTEGER NOT NULL
);

CREATE TABLE reason (
    batch INTEGER NOT NULL,
    shape INTEGER NOT NULL,
    code TEXT NOT NULL,
    text TEXT NOT NULL,
    since_us INTEGER NOT NULL,
    PRIMARY KEY (batch, shape)
) WITHOUT ROWID;

-- Why lines waited before: the last few reasons of each, the present one among them. An empty code: none of it waited.
CREATE TABLE reason_past (
    batch INTEGER NOT NULL,
    shape INTEGER NOT NULL,
    since_us INTEGER NOT NULL,
    code TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (batch, shape, since_us)
) WITHOUT ROWID;

CREATE TABLE event (
    at_us INTEGER NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (at_us, kind, subject, text)
) WITHOUT ROWID;

-- Who changed what, and who was refused. The packs: (door, uid, pid, address, token), and how it stood.
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

-- Of a token's secret nothing is kept but its SHA-256.
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
