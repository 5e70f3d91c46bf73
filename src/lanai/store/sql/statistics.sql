-- Sums over attempts for `lanai stats`, in pieces of consecutive rows; see statistics.py.

-- name: stats_extent
SELECT min(row), max(row) FROM attempt

-- name: stats_batches
SELECT DISTINCT batch FROM attempt NOT INDEXED WHERE row BETWEEN ? AND ?

-- name: stats_known
SELECT batch, user, account, settings_pack, submitted_at_us, total FROM batch
WHERE batch IN (SELECT value FROM json_each(?))

-- name: stats_shapes
SELECT batch, shape, request_pack FROM shape WHERE batch IN (SELECT value FROM json_each(?)) ORDER BY batch, shape

-- name: stats_chunks
SELECT first, runs_pack FROM chunk WHERE batch = ? ORDER BY first

-- A job waits from its submission until its first attempt begins; clocks of nodes may be behind.
-- name: stats_piece
SELECT a.batch, 0, count(*), sum(a.state = 'done'), sum(a.state = 'failed'), sum(a.state = 'cancelled'),
    sum(a.wall_us), sum(a.cpu_user_us + a.cpu_system_us),
    sum(a.attempt = 1 AND a.started_at_us > 0),
    sum(CASE WHEN a.attempt = 1 THEN max(0, a.started_at_us - b.submitted_at_us) ELSE 0 END),
    max(CASE WHEN a.attempt = 1 THEN max(0, a.started_at_us - b.submitted_at_us) ELSE 0 END),
    sum(a.state IN ('done', 'failed') AND a.started_at_us > 0),
    total(CASE WHEN a.state IN ('done', 'failed') AND a.started_at_us > 0 THEN
        max(1.0, 1.0 * (max(0, a.started_at_us - b.submitted_at_us) + a.wall_us) / max(a.wall_us, :tau)) END),
    sum(CASE WHEN a.state = 'done' THEN a.wall_us ELSE 0 END),
    count(CASE WHEN a.state = 'done' THEN a.memory_peak_bytes END),
    total(CASE WHEN a.state = 'done' THEN a.memory_peak_bytes END)
FROM attempt a NOT INDEXED CROSS JOIN batch b ON b.batch = a.batch
WHERE a.row BETWEEN :low AND :high AND a.ended_at_us >= :since
GROUP BY a.batch

-- The same of some jobs of one batch.
-- name: stats_run
SELECT a.batch, :run, count(*), sum(a.state = 'done'), sum(a.state = 'failed'), sum(a.state = 'cancelled'),
    sum(a.wall_us), sum(a.cpu_user_us + a.cpu_system_us),
    sum(a.attempt = 1 AND a.started_at_us > 0),
    sum(CASE WHEN a.attempt = 1 THEN max(0, a.started_at_us - b.submitted_at_us) ELSE 0 END),
    max(CASE WHEN a.attempt = 1 THEN max(0, a.started_at_us - b.submitted_at_us) ELSE 0 END),
    sum(a.state IN ('done', 'failed') AND a.started_at_us > 0),
    total(CASE WHEN a.state IN ('done', 'failed') AND a.started_at_us > 0 THEN
        max(1.0, 1.0 * (max(0, a.started_at_us - b.submitted_at_us) + a.wall_us) / max(a.wall_us, :tau)) END),
    sum(CASE WHEN a.state = 'done' THEN a.wall_us ELSE 0 END),
    count(CASE WHEN a.state = 'done' THEN a.memory_peak_bytes END),
    total(CASE WHEN a.state = 'done' THEN a.memory_peak_bytes END)
FROM attempt a INDEXED BY attempt_job CROSS JOIN batch b ON b.batch = a.batch
WHERE a.batch = :batch AND a.idx BETWEEN :first AND :last AND a.row <= :high AND a.ended_at_us >= :since
GROUP BY a.batch

-- name: stats_sample
SELECT a.batch, max(0, a.started_at_us - b.submitted_at_us)
FROM json_each(:rows) j CROSS JOIN attempt a ON a.row = j.value JOIN batch b ON b.batch = a.batch
WHERE a.attempt = 1 AND a.started_at_us > 0 AND a.ended_at_us >= :since
