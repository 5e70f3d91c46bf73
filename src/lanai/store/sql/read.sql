-- What the API process reads for people: a key to go on after and a LIMIT, or a single thing. Arriving batches are not
-- shown.

-- name: batch
SELECT b.batch, b.user, b.key, b.settings_pack, b.env, b.total, b.digest, b.submitted_at_us, b.is_set, b.state,
    b.priority, b.max_running, b.reason, b.avoided_pack, b.ended_at_us, b.account, p.counts_pack
FROM batch b LEFT JOIN progress p ON p.batch = b.batch
WHERE b.batch = ? AND b.is_whole = 1

-- name: batches
SELECT b.batch, b.user, b.key, b.settings_pack, b.env, b.total, b.digest, b.submitted_at_us, b.is_set, b.state,
    b.priority, b.max_running, b.reason, b.avoided_pack, b.ended_at_us, b.account, p.counts_pack
FROM batch b LEFT JOIN progress p ON p.batch = b.batch
WHERE b.is_whole = 1 AND b.batch < :before
    AND (:user IS NULL OR b.user = :user)
    AND (:states IS NULL OR b.state IN (SELECT value FROM json_each(:states)))
ORDER BY b.batch DESC LIMIT :most

-- name: unfinished
SELECT b.batch, b.user, b.key, b.settings_pack, b.env, b.total, b.digest, b.submitted_at_us, b.is_set, b.state,
    b.priority, b.max_running, b.reason, b.avoided_pack, b.ended_at_us, b.account, p.counts_pack
FROM batch b LEFT JOIN progress p ON p.batch = b.batch
WHERE (b.state <> 'ended' OR b.is_whole = 0) AND b.is_whole = 1 AND b.batch > :after
    AND (:user IS NULL OR b.user = :user)
ORDER BY b.batch LIMIT :most

-- name: last
SELECT batch FROM batch WHERE user = ? AND is_whole = 1 ORDER BY batch DESC LIMIT 1

-- name: key
SELECT batch FROM batch WHERE user = ? AND key = ? AND key <> '' AND is_whole = 1

-- name: submitted
SELECT submitted_at_us FROM batch WHERE batch = ? AND is_whole = 1

-- name: extent
SELECT min(first), max(first + count - 1) FROM chunk WHERE batch = ?

-- name: standing
SELECT p.upto, p.pending_pack, p.held_pack FROM progress p WHERE p.batch = ?

-- name: tally
SELECT fresh_row, last_row FROM tally WHERE batch = ?

-- name: grants
SELECT grant, node, attempt, ranges_pack FROM grant WHERE batch = ? ORDER BY grant

-- name: cancelled
SELECT first, last, at_us FROM override WHERE batch = ? AND what = 'cancelled' ORDER BY first

-- name: reshaped
SELECT value FROM override WHERE batch = ? AND what = 'shape' AND first <= ? AND last >= ? ORDER BY first DESC LIMIT 1

-- The + keeps SQLite from reading the whole batch by index.
-- name: fresh_queued
SELECT DISTINCT idx FROM attempt WHERE row BETWEEN ? AND ? AND +batch = ? AND state = 'queued' ORDER BY idx

-- name: tried
SELECT DISTINCT idx FROM attempt INDEXED BY attempt_job WHERE batch = ? AND idx > ? ORDER BY idx LIMIT ?

-- name: tried_not_ok
SELECT DISTINCT idx FROM attempt INDEXED BY attempt_not_ok
WHERE batch = ? AND idx > ? AND outcome <> 'ok' ORDER BY idx LIMIT ?

-- The last attempts of some jobs: (SELECT max(row) ...) is one step into the index.
-- name: last_attempts
SELECT a.row, a.idx, a.attempt, a.grant, a.node, a.state, a.outcome, a.exit_code, a.signal, a.started_at_us,
    a.ended_at_us, a.wall_us, a.cpu_user_us, a.cpu_system_us, a.memory_peak_bytes, a.reason
FROM json_each(:indices) j
CROSS JOIN attempt a ON a.row = (SELECT max(row) FROM attempt WHERE batch = :batch AND idx = j.value)

-- name: attempts
SELECT row, idx, attempt, grant, node, state, outcome, exit_code, signal, started_at_us, ended_at_us, wall_us,
    cpu_user_us, cpu_system_us, memory_peak_bytes, reason
FROM attempt WHERE batch = ? AND idx = ? ORDER BY row

-- name: others
SELECT others_pack FROM wide_grant WHERE grant = ?

-- name: failures
SELECT a.row, a.idx, a.attempt, a.node, a.outcome, a.exit_code, a.signal, a.reason
FROM attempt a INDEXED BY attempt_not_ok
WHERE a.batch = :batch AND a.idx > :after AND a.outcome <> 'ok' AND a.state = 'failed'
    AND a.row = (SELECT max(row) FROM attempt WHERE batch = :batch AND idx = a.idx)
ORDER BY a.idx LIMIT :most

-- name: chunk_of
SELECT c.first, c.count, c.runs_pack, l.lines, l.checks_pack
FROM chunk c JOIN chunk_lines l ON l.batch = c.batch AND l.first = c.first
WHERE c.batch = ? AND c.first <= ? ORDER BY c.first DESC LIMIT 1

-- name: shape
SELECT request_pack FROM shape WHERE batch = ? AND shape = ?

-- name: env
SELECT blob FROM env WHERE digest = ?

-- name: node_names
SELECT node, name FROM node

-- name: reasons
SELECT batch, shape, code, text, since_us FROM reason WHERE batch = ? ORDER BY shape

-- name: reasons_past
SELECT batch, shape, code, text, since_us FROM reason_past
WHERE batch = :batch AND (:shape IS NULL OR shape = :shape) ORDER BY since_us DESC, shape LIMIT :most

-- name: tail
SELECT batch, idx, attempt, is_failed, out, err, out_bytes, err_bytes FROM tail
WHERE batch = :batch AND idx = :index AND (:attempt = 0 OR attempt = :attempt) ORDER BY attempt DESC LIMIT 1

-- name: events
SELECT at_us, kind, subject, text FROM event
WHERE (at_us, kind, subject, text) < (:at_us, :kind, :subject_at, :text) AND at_us >= :since
    AND (:subject IS NULL OR subject = :subject)
ORDER BY at_us DESC, kind DESC, subject DESC, text DESC LIMIT :most

-- name: audit
SELECT row, at_us, user, role, origin_pack, action, subject, before_pack, after_pack, is_refused, why, left_out
FROM audit WHERE row < :before AND at_us >= :since AND (:user IS NULL OR user = :user)
ORDER BY row DESC LIMIT :most

-- name: past_batches
SELECT batch, user, settings_pack, submitted_at_us FROM batch
WHERE is_whole = 1 AND batch >= :first AND submitted_at_us >= :since AND (:user IS NULL OR user = :user)
ORDER BY batch

-- name: shapes
SELECT shape, request_pack FROM shape WHERE batch = ?

-- name: all_reshaped
SELECT first, last, value FROM override WHERE batch = ? AND what = 'shape' ORDER BY first

-- name: runs_of
SELECT first, count, runs_pack FROM chunk WHERE batch = ? AND first <= ? ORDER BY first DESC LIMIT 1
