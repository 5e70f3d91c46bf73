-- What is to be true afterwards, so that a repeat is harmless. VALUES (...) is widened to many rows where there are many.

-- name: save_meta
INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- name: save_env
INSERT INTO env (digest, blob) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING

-- name: open_batch
INSERT INTO batch (batch, user, key, settings_pack, env, opened_at_us, account) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (batch) DO UPDATE SET user = excluded.user, key = excluded.key, settings_pack = excluded.settings_pack,
    env = excluded.env, opened_at_us = excluded.opened_at_us, account = excluded.account

-- name: close_batch
UPDATE batch SET is_whole = 1, total = ?, digest = ?, submitted_at_us = ? WHERE batch = ?

-- name: set_batch
UPDATE batch SET is_set = 1, state = ?, priority = ?, max_running = ?, reason = ?, avoided_pack = ?, ended_at_us = ?
WHERE batch = ?

-- name: save_settings
UPDATE batch SET settings_pack = ? WHERE batch = ?

-- name: save_account
UPDATE batch SET account = ? WHERE batch = ?

-- name: save_shape
INSERT INTO shape (batch, shape, request_pack) VALUES (?, ?, ?)
ON CONFLICT (batch, shape) DO UPDATE SET request_pack = excluded.request_pack

-- name: save_chunk
INSERT INTO chunk (batch, first, count, runs_pack) VALUES (?, ?, ?, ?)
ON CONFLICT (batch, first) DO UPDATE SET count = excluded.count, runs_pack = excluded.runs_pack

-- name: save_lines
INSERT INTO chunk_lines (batch, first, checks_pack, lines) VALUES (?, ?, ?, ?)
ON CONFLICT (batch, first) DO UPDATE SET checks_pack = excluded.checks_pack, lines = excluded.lines

-- name: save_progress
INSERT INTO progress (batch, upto, pending_pack, held_pack, counts_pack) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (batch) DO UPDATE SET upto = excluded.upto, pending_pack = excluded.pending_pack,
    held_pack = excluded.held_pack, counts_pack = excluded.counts_pack

-- name: settle_tally
UPDATE tally SET fresh_row = 0 WHERE batch = ? AND last_row <= ?

-- name: overrides_down_from
SELECT first, last, value, at_us FROM override WHERE batch = ? AND what = ? AND first <= ? ORDER BY first DESC

-- name: drop_override
DELETE FROM override WHERE batch = ? AND what = ? AND first = ?

-- name: add_override
INSERT INTO override (batch, what, first, last, value, at_us) VALUES (?, ?, ?, ?, ?, ?)

-- name: save_grant
INSERT INTO grant (grant, node, batch, attempt, ranges_pack) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (grant) DO UPDATE SET node = excluded.node, batch = excluded.batch, attempt = excluded.attempt,
    ranges_pack = excluded.ranges_pack

-- name: drop_grant
DELETE FROM grant WHERE grant IN (VALUES (?))

-- name: save_wide_grant
INSERT OR REPLACE INTO wide_grant (grant, batch, others_pack, broken) VALUES (?, ?, ?, ?)

-- name: add_attempt
INSERT OR REPLACE INTO attempt (row, batch, idx, attempt, grant, node, state, outcome, exit_code, signal, started_at_us,
    ended_at_us, wall_us, cpu_user_us, cpu_system_us, memory_peak_bytes, reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: reopen_jobs
UPDATE attempt SET state = 'reopened'
WHERE batch = ? AND idx BETWEEN ? AND ? AND outcome <> 'ok'

-- name: tally_attempts
INSERT INTO tally (batch, fresh_row, last_row) VALUES (?, ?, ?)
ON CONFLICT (batch) DO UPDATE SET last_row = max(last_row, excluded.last_row),
    fresh_row = CASE fresh_row WHEN 0 THEN excluded.fresh_row ELSE min(fresh_row, excluded.fresh_row) END

-- name: tails_of_others
-- Those that a node says it has of attempts that were not on it, as the last row of each says, or have no row.
WITH said (batch, idx, attempt, node) AS (VALUES (?, ?, ?, ?))
SELECT said.batch, said.idx, said.attempt, said.node FROM said
WHERE said.node IS NOT (
    SELECT attempt.node FROM attempt
    WHERE attempt.batch = said.batch AND attempt.idx = said.idx AND attempt.attempt = said.attempt
    ORDER BY attempt.row DESC LIMIT 1
)

-- name: drop_tails
WITH gone (batch, idx, attempt) AS (VALUES (?, ?, ?))
DELETE FROM tail WHERE tail IN (
    -- CROSS: each by the index. Of many rows SQLite would otherwise think that to go through all tails is less.
    SELECT old.tail FROM gone CROSS JOIN tail AS old
    WHERE old.batch = gone.batch AND old.idx = gone.idx AND old.attempt = gone.attempt
) RETURNING batch, kept_bytes

-- name: add_tail
INSERT INTO tail (batch, idx, attempt, is_failed, out_bytes, err_bytes, kept_bytes, out, err)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: tally_tails
INSERT INTO tally (batch, tail_bytes) VALUES (?, ?)
ON CONFLICT (batch) DO UPDATE SET tail_bytes = tail_bytes + excluded.tail_bytes

-- name: tail_bytes
SELECT tail_bytes FROM tally WHERE batch = ?

-- name: tails_by_age
SELECT tail, kept_bytes FROM tail WHERE batch = ? ORDER BY is_failed, tail

-- name: drop_old_tail
DELETE FROM tail WHERE tail IN (VALUES (?))

-- name: save_node
INSERT INTO node (node, name, key_hash, boot_id, state, is_drained, capacity_pack, features_pack, started_by,
    joined_at_us, seen_at_us)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (node) DO UPDATE SET name = excluded.name, key_hash = excluded.key_hash, boot_id = excluded.boot_id,
    state = excluded.state, is_drained = excluded.is_drained, capacity_pack = excluded.capacity_pack,
    features_pack = excluded.features_pack, started_by = excluded.started_by, joined_at_us = excluded.joined_at_us,
    seen_at_us = excluded.seen_at_us

-- name: save_reason
INSERT INTO reason (batch, shape, code, text, since_us) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (batch, shape) DO UPDATE SET code = excluded.code, text = excluded.text, since_us = excluded.since_us

-- name: drop_reason
DELETE FROM reason WHERE batch = ? AND shape = ?

-- name: add_reason_past
INSERT INTO reason_past (batch, shape, since_us, code, text) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (batch, shape, since_us) DO UPDATE SET code = excluded.code, text = excluded.text

-- Of any number of lines, in one step: their reasons but for the newest :most of each.
-- name: drop_reasons_past
DELETE FROM reason_past WHERE (batch, shape, since_us) IN (
    SELECT p.batch, p.shape, p.since_us
    FROM json_each(:lines) j CROSS JOIN reason_past p
        ON p.batch = json_extract(j.value, '$[0]') AND p.shape = json_extract(j.value, '$[1]')
    WHERE (SELECT count(*) FROM reason_past n
        WHERE n.batch = p.batch AND n.shape = p.shape AND n.since_us > p.since_us) >= :most)

-- name: save_event
INSERT INTO event (at_us, kind, subject, text) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: drop_batch
DELETE FROM batch WHERE batch = ?

-- name: drop_batch_shapes
DELETE FROM shape WHERE batch = ?

-- name: drop_batch_chunks
DELETE FROM chunk WHERE batch = ?

-- name: drop_batch_lines
DELETE FROM chunk_lines WHERE batch = ?

-- name: drop_batch_overrides
DELETE FROM override WHERE batch = ?

-- name: drop_batch_grants
DELETE FROM grant WHERE batch = ?

-- name: drop_batch_wide_grants
DELETE FROM wide_grant WHERE batch = ?

-- name: drop_batch_attempts
DELETE FROM attempt WHERE batch = ?

-- name: drop_batch_tally
DELETE FROM tally WHERE batch = ?

-- name: drop_batch_progress
DELETE FROM progress WHERE batch = ?

-- name: drop_batch_tails
DELETE FROM tail WHERE batch = ?

-- name: drop_batch_reasons
DELETE FROM reason WHERE batch = ?

-- name: drop_batch_reasons_past
DELETE FROM reason_past WHERE batch = ?

-- A batch that is too old: what is small of it goes at once, the rest a few rows at a time.
-- name: prune_batch_env
DELETE FROM env WHERE digest = (SELECT env FROM batch WHERE batch = :batch)
    AND NOT EXISTS (SELECT 1 FROM batch b WHERE b.env = env.digest AND b.batch <> :batch)

-- name: prune_batch_later
INSERT INTO pruned (batch) SELECT batch FROM batch WHERE batch = :batch

-- name: prune_rows_of
SELECT batch FROM pruned ORDER BY batch LIMIT 1

-- name: prune_rows_attempts
DELETE FROM attempt WHERE row IN (SELECT row FROM attempt INDEXED BY attempt_job WHERE batch = :batch LIMIT :most)

-- name: prune_rows_wide_grants
DELETE FROM wide_grant WHERE grant IN (SELECT grant FROM wide_grant WHERE batch = :batch LIMIT :most)

-- name: prune_rows_overrides
DELETE FROM override WHERE batch = :batch AND (what, first) IN
    (SELECT what, first FROM override WHERE batch = :batch LIMIT :most)

-- name: prune_rows_tails
DELETE FROM tail WHERE tail IN (SELECT tail FROM tail WHERE batch = :batch LIMIT :most)

-- name: prune_rows_lines
DELETE FROM chunk_lines WHERE batch = :batch AND first IN
    (SELECT first FROM chunk_lines WHERE batch = :batch ORDER BY first LIMIT :most)

-- name: prune_rows_done
DELETE FROM pruned WHERE batch = :batch

-- name: prune_events
DELETE FROM event WHERE at_us < :before
    AND at_us <= coalesce((SELECT at_us FROM event ORDER BY at_us LIMIT 1 OFFSET :most), :before)

-- name: prune_audit
DELETE FROM audit WHERE row IN (SELECT row FROM audit WHERE at_us < :before ORDER BY at_us LIMIT :most)

-- name: save_audit
INSERT INTO audit (row, at_us, user, role, origin_pack, action, subject, before_pack, after_pack, is_refused, why,
    left_out)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (row) DO NOTHING

-- name: save_token
INSERT INTO token (token, kind, user, sha256, created_at_us, expires_at_us, revoked_at_us, label)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (token) DO UPDATE SET kind = excluded.kind, user = excluded.user, sha256 = excluded.sha256,
    created_at_us = excluded.created_at_us, expires_at_us = excluded.expires_at_us,
    revoked_at_us = excluded.revoked_at_us, label = excluded.label
