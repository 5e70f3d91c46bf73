-- What a start reads: rows of unfinished batches, never a command line, never history.

-- name: arriving
SELECT batch FROM batch INDEXED BY batch_unfinished WHERE (state <> 'ended' OR is_whole = 0) AND is_whole = 0

-- name: drop_unused_envs
DELETE FROM env WHERE digest NOT IN (SELECT env FROM batch)

-- name: meta
SELECT name, value FROM meta ORDER BY name

-- name: last_batch
SELECT seq FROM sqlite_sequence WHERE name = 'batch'

-- name: last_row
SELECT max(row) FROM attempt

-- name: unfinished
SELECT batch FROM batch INDEXED BY batch_unfinished
WHERE (state <> 'ended' OR is_whole = 0) AND is_whole = 1 AND state <> 'ended' ORDER BY batch

-- name: batch
SELECT user, key, settings_pack, env, total, submitted_at_us, is_set, state, priority, max_running, reason,
    avoided_pack, ended_at_us, account
FROM batch WHERE batch = ? AND is_whole = 1

-- name: has_batch
SELECT 1 FROM batch WHERE batch = ? AND is_whole = 1

-- name: shapes
SELECT shape, request_pack FROM shape WHERE batch = ? ORDER BY shape

-- name: chunk_heads
SELECT first, runs_pack FROM chunk WHERE batch = ? ORDER BY first

-- name: progress
SELECT upto, pending_pack, held_pack, counts_pack FROM progress WHERE batch = ?

-- name: tally
SELECT fresh_row, last_row FROM tally WHERE batch = ?

-- The + keeps SQLite from reading the whole batch by index and sorting it.
-- name: fresh_attempts
SELECT row, idx, attempt, grant, node, state, outcome, wall_us FROM attempt
WHERE row BETWEEN ? AND ? AND +batch = ? ORDER BY row

-- name: walls
SELECT row, idx, wall_us FROM attempt
WHERE row BETWEEN :first AND :last AND +batch = :batch AND outcome = 'ok' ORDER BY row DESC LIMIT :most

-- name: charged
SELECT idx, attempt, outcome, state, node FROM attempt INDEXED BY attempt_not_ok
WHERE batch = ? AND outcome <> 'ok' ORDER BY idx, row

-- name: grants
SELECT grant, node, attempt, ranges_pack, others_pack, broken FROM grant g LEFT JOIN wide_grant w USING (grant)
WHERE g.batch = ? ORDER BY grant

-- name: granted_batches
SELECT DISTINCT batch FROM grant ORDER BY batch

-- name: ended_members
SELECT idx FROM attempt WHERE batch = ? AND idx BETWEEN ? AND ? AND grant = ? ORDER BY idx

-- name: overrides
SELECT first, last, value FROM override WHERE batch = ? AND what = ? ORDER BY first

-- name: holds
SELECT what, first, last, value, at_us FROM override WHERE batch = ? AND what >= 'hold ' AND what < 'hold!'
ORDER BY what, first

-- name: preempted
SELECT what, first, last, value, at_us FROM override WHERE batch = ? AND what >= 'preempted ' AND what < 'preempted!'
ORDER BY what, first

-- name: reasons
SELECT batch, shape, code, text, since_us FROM reason WHERE batch = ? ORDER BY shape

-- name: nodes
SELECT node, name, key_hash, boot_id, state, is_drained, capacity_pack, features_pack, started_by, joined_at_us,
    seen_at_us
FROM node ORDER BY node

-- name: chunk_of
SELECT c.first, c.count, c.runs_pack, l.lines, l.checks_pack
FROM chunk c JOIN chunk_lines l ON l.batch = c.batch AND l.first = c.first
WHERE c.batch = ? AND c.first <= ? ORDER BY c.first DESC LIMIT 1

-- name: env
SELECT blob FROM env WHERE digest = ?

-- name: key
SELECT batch, digest FROM batch WHERE user = ? AND key = ? AND key <> ''

-- name: last_attempt_of
SELECT node, attempt, grant FROM attempt WHERE batch = ? AND idx = ? ORDER BY row DESC LIMIT 1

-- name: attempt_of
SELECT node, attempt, grant FROM attempt WHERE batch = ? AND idx = ? AND attempt = ? ORDER BY row DESC LIMIT 1

-- name: ended_first
SELECT batch FROM batch WHERE state = 'ended' AND ended_at_us < ? ORDER BY ended_at_us LIMIT 1

-- name: has_old_rows
SELECT EXISTS (SELECT 1 FROM event WHERE at_us < :before) OR EXISTS (SELECT 1 FROM pruned)
    OR EXISTS (SELECT 1 FROM audit WHERE at_us < :before)

-- name: tokens
SELECT token, kind, user, sha256, created_at_us, expires_at_us, revoked_at_us, label FROM token ORDER BY token

-- name: last_audit
SELECT max(row) FROM audit
