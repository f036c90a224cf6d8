-- ---------------------------------------------------------------------------------------------------------------------
-- Filters one by one (kept.py)

-- name: filters_of_kind
-- Those in force or switched off, enabled first, then most recently changed.
SELECT id, kind, name, event_type, threshold, window_ms, keep_first, conditions::text AS conditions, enabled, version,
    window_revision, newest, deleted, greatest(weight, octet_length(conditions::text)) AS weight, changed_at, changed_by
FROM filters WHERE org_unit = $1 AND kind = $2 AND NOT deleted
ORDER BY enabled DESC, changed_at DESC, revision DESC, id

-- name: filter_ever
-- A filter of either kind, a deleted one too.
SELECT id, kind, name, event_type, threshold, window_ms, keep_first, conditions::text AS conditions, enabled, version,
    window_revision, newest, deleted, greatest(weight, octet_length(conditions::text)) AS weight, changed_at, changed_by
FROM filters WHERE org_unit = $1 AND id = $2

-- name: count_filters
SELECT count(*) FROM filters WHERE org_unit = $1 AND kind = $2 AND NOT deleted

-- name: filter_versions
-- Newest first; null definition: deleted.
SELECT version, definition::text AS definition, changed_at, changed_by, octet_length(definition::text) AS size
FROM filter_versions WHERE org_unit = $1 AND kind = $2 AND id = $3
ORDER BY revision DESC OFFSET $4 LIMIT $5

-- ---------------------------------------------------------------------------------------------------------------------
-- Workers (workers.py)

-- name: worker_beats
-- $3: when it started, null at its first beat.  Workers that nobody has seen for a day are forgotten.  What is left to do in the
-- background is told to each: of many no more than 10,000 are counted.
WITH forgotten AS (
    DELETE FROM workers WHERE id <> $1 AND seen_at < clock_timestamp() - interval '1 day'
)
INSERT INTO workers (id, rules_revision, started_at, seen_at)
VALUES ($1, $2, coalesce($3, date_trunc('milliseconds', clock_timestamp())), date_trunc('milliseconds', clock_timestamp()))
ON CONFLICT (id) DO UPDATE SET rules_revision = excluded.rules_revision, seen_at = excluded.seen_at
RETURNING started_at, (SELECT revision FROM rule_state) AS revision,
    (SELECT count(*) FROM (SELECT FROM lead_moves LIMIT 10000) m) AS pending_moves,
    (SELECT count(*) FROM (SELECT FROM event_count_changes LIMIT 10000) c) AS uncounted_changes

-- name: workers_seen
-- The revision in force, and the workers seen within $1 ms: one row at least.
SELECT s.revision, w.id, w.rules_revision, w.started_at, w.seen_at
FROM rule_state s
LEFT JOIN workers w ON w.seen_at > clock_timestamp() - $1::bigint * interval '1 millisecond'
ORDER BY w.started_at, w.id

-- ---------------------------------------------------------------------------------------------------------------------
-- Previews (preview.py).  A row that was not counted and has no reason is of a merge or unmerge: nobody judges it.

-- name: preview_settings
-- For this transaction: long, but on one core, and planned for the very range.
SELECT set_config('statement_timeout', '150s', true), set_config('idle_in_transaction_session_timeout', '60s', true),
    set_config('work_mem', '32MB', true), set_config('max_parallel_workers_per_gather', '0', true),
    set_config('plan_cache_mode', 'force_custom_plan', true)

-- name: preview_velocity
-- Rows of a type in a time, lead by lead in processing order.  Tombstones count; they have an index of their own.
SELECT coalesce(r.to_lead, e.raw) AS lead_id, e.id, $2::text AS event_type, NULL::text AS metadata, e.occurred_at, e.counted, e.deleted,
    e.suppression_reason IS NOT NULL AS suppressed, e.by_it
FROM (
    SELECT coalesce(original_lead_id, lead_id) AS raw, id, occurred_at, counted, false AS deleted, suppression_reason,
        suppressed_by ->> 'filter_id' = $5 AS by_it, batch, source_offset
    FROM events
    WHERE org_unit = $1 AND event_type = $2 AND occurred_at >= $3 AND occurred_at < $4 AND deleted_at IS NULL
        AND (counted OR suppression_reason IS NOT NULL)
    UNION ALL
    SELECT coalesce(original_lead_id, lead_id), id, occurred_at, counted, true, suppression_reason, false, batch, source_offset
    FROM events
    WHERE org_unit = $1 AND event_type = $2 AND occurred_at >= $3 AND occurred_at < $4 AND deleted_at IS NOT NULL AND counted
) e
LEFT JOIN lead_redirects r ON r.org_unit = $1 AND r.from_lead = e.raw
ORDER BY 1, e.batch, e.source_offset

-- name: preview_metadata
-- Rows of a type (empty: every type) in a time, in any order.  A metadata text of more than $6 bytes is null instead: of as few bytes
-- as come in, jsonb may write forty times as many.  Those rows are asked for again by their ids $7, a few at a time.
SELECT coalesce(r.to_lead, e.original_lead_id, e.lead_id) AS lead_id, e.id, e.event_type,
    CASE WHEN $7::text[] IS NOT NULL OR octet_length(written.text) <= $6 THEN written.text END AS metadata, e.occurred_at,
    e.counted, false AS deleted, e.suppression_reason IS NOT NULL AS suppressed, e.suppressed_by ->> 'filter_id' = $5 AS by_it
FROM events e
CROSS JOIN LATERAL (SELECT e.metadata::text AS text OFFSET 0) written  -- is written once a row
LEFT JOIN lead_redirects r ON r.org_unit = $1 AND r.from_lead = coalesce(e.original_lead_id, e.lead_id)
WHERE e.org_unit = $1 AND ($2::text = '' OR e.event_type = $2) AND e.occurred_at >= $3 AND e.occurred_at < $4
    AND e.deleted_at IS NULL AND (e.counted OR e.suppression_reason IS NOT NULL) AND ($7::text[] IS NULL OR e.id = ANY ($7))

-- name: preview_elsewhere
-- How many rows of other types a filter suppresses.
SELECT count(*) FROM events
WHERE org_unit = $1 AND event_type <> $2 AND occurred_at >= $3 AND occurred_at < $4 AND deleted_at IS NULL
    AND suppression_reason IS NOT NULL AND suppressed_by ->> 'filter_id' = $5

-- name: preview_samples
-- Events in the order of their ids $2, as listings show them, each with its burst (of $3) where that began in [$4, $5).
SELECT e.id, coalesce(r.to_lead, raw.lead) AS lead_id, e.event_type, e.metadata, e.suppression_reason,
    CASE WHEN r.to_lead IS NOT NULL THEN raw.lead END AS original_lead_id, e.occurred_at, b.id AS burst_id, s.n
FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS s (id, burst, n)
JOIN events e ON e.org_unit = $1 AND e.id = s.id AND e.deleted_at IS NULL
CROSS JOIN LATERAL (SELECT coalesce(e.original_lead_id, e.lead_id) AS lead) raw
LEFT JOIN lead_redirects r ON r.org_unit = $1 AND r.from_lead = raw.lead
LEFT JOIN events b ON b.org_unit = $1 AND b.id = s.burst AND b.occurred_at >= $4 AND b.occurred_at < $5
ORDER BY s.n
