-- ---------------------------------------------------------------------------------------------------------------------
-- Statements of the API.  Each names its org unit, although row-level security would hide the others (postgres.py)

-- name: enter_org_unit
SELECT set_config('processor.org_unit', $1, true)

-- name: answers
SELECT 1

-- ---------------------------------------------------------------------------------------------------------------------
-- Tokens (tokens.py)

-- name: find_token
SELECT org_unit, name, hash, scopes, expires_at, revoked_at FROM find_token($1)

-- name: use_tokens
SELECT use_tokens($1)

-- name: create_token
WITH token AS (
    INSERT INTO tokens (prefix, org_unit, name, hash, scopes, created_at, created_by, expires_at)
    VALUES ($1, $2, $3, $4, $5, date_trunc('milliseconds', clock_timestamp()), $6,
        date_trunc('milliseconds', clock_timestamp()) + $7::bigint * interval '1 millisecond')
    RETURNING *
)
INSERT INTO audit_log (org_unit, at, actor, action, subject, details)
SELECT org_unit, created_at, created_by, 'token.create', prefix,
    jsonb_build_object('name', name, 'scopes', scopes, 'expires_at', expires_at)
FROM token

-- name: list_tokens
SELECT prefix, org_unit, name, scopes, created_at, created_by, expires_at, revoked_at, used_at
FROM tokens WHERE $1::text IS NULL OR org_unit = $1 ORDER BY org_unit, created_at, prefix

-- name: revoke_token
-- One row where there is such a token; a repeated call changes nothing.
WITH revoked AS (
    UPDATE tokens SET revoked_at = date_trunc('milliseconds', clock_timestamp())
    WHERE prefix = $1 AND revoked_at IS NULL
    RETURNING org_unit, prefix, name, revoked_at
), audited AS (
    INSERT INTO audit_log (org_unit, at, actor, action, subject, details)
    SELECT org_unit, revoked_at, $2, 'token.revoke', prefix, jsonb_build_object('name', name) FROM revoked
)
SELECT prefix FROM tokens WHERE prefix = $1

-- ---------------------------------------------------------------------------------------------------------------------
-- Listings (listing.py)

-- name: list_events
-- Number 0 has the total alone; no row where a lead is asked for that has no events at all.
SELECT * FROM list_events($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: event_types
-- Types with the number of their events that are not deleted.
SELECT event_type, sum(n)::bigint AS count FROM (
    SELECT event_type, chosen(c, 15) AS n FROM event_counts c
    WHERE org_unit = $1 AND lead_id = '' AND level = 8 AND event_type <> ''
    UNION ALL
    SELECT u.type, u.n FROM event_count_changes c CROSS JOIN LATERAL unnest(c.event_types, c.counts) AS u (type, n)
    WHERE c.org_unit = $1 AND NOT c.moved
) x
GROUP BY event_type HAVING sum(n) > 0 ORDER BY event_type

-- name: suppression_summary
-- By hour, reason, filter and type, newest hour first; hours from $2 to before $3, since 1970.
SELECT hour, reason, filter_id, event_type, sum(n)::bigint AS count FROM (
    SELECT hour, reason, filter_id, event_type, count AS n FROM suppression_counts
    WHERE org_unit = $1 AND hour >= $2 AND hour < $3
    UNION ALL
    SELECT floor(u.slot / 28125.0)::bigint, u.reason, u.filter_id, u.type, u.n
    FROM event_count_changes c
    CROSS JOIN LATERAL unnest(c.event_types, c.reasons, c.filter_ids, c.slots, c.counts) AS u (type, reason, filter_id, slot, n)
    WHERE c.org_unit = $1 AND NOT c.moved AND u.slot >= $2::bigint * 28125 AND u.slot < $3::bigint * 28125
) x
GROUP BY 1, 2, 3, 4 HAVING sum(n) > 0 ORDER BY 1 DESC, 2, 3, 4

-- name: delete_events
-- Locked in the order of moves, so that neither waits for the other in a circle.
WITH found AS MATERIALIZED (
    SELECT id FROM events WHERE org_unit = $1 AND id = ANY ($2::text[]) AND deleted_at IS NULL ORDER BY id FOR UPDATE
), gone AS (
    UPDATE events e SET deleted_at = date_trunc('milliseconds', clock_timestamp()), metadata = '{}'
    FROM found f WHERE e.org_unit = $1 AND e.id = f.id RETURNING e.id
), audited AS (
    INSERT INTO audit_log (org_unit, at, actor, action, subject, details)
    SELECT $1, date_trunc('milliseconds', clock_timestamp()), $3, 'event.delete', count(*) || ' events',
        jsonb_build_object('event_ids', jsonb_agg(id ORDER BY id))
    FROM gone HAVING count(*) > 0
)
SELECT count(*) FROM gone

-- ---------------------------------------------------------------------------------------------------------------------
-- Counts (counts.py)

-- name: last_count_change
SELECT max(id) FROM event_count_changes

-- name: fold_counts
SELECT fold_counts($1, $2)

-- name: count_leads
SELECT count_leads()

-- name: find_large_leads
SELECT find_large_leads($1)
