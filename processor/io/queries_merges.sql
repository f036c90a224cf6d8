-- ---------------------------------------------------------------------------------------------------------------------
-- Merges as those who asked for them see them (merge_view.py)

-- name: by_index
-- Until the transaction ends: a count passes over the rows it counts and no others, however old the statistics are.
SELECT set_config('enable_seqscan', 'off', true)

-- name: request_merge
INSERT INTO merge_requests (org_unit, message_id, kind, target_lead_id, source_lead_ids, requested_by, requested_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: merge_progress
-- What is known of a merge: asked for ($2 is in merge_requests), recorded, or both; no row where it is neither.  `remaining`:
-- rows that its pending moves have not looked at, at most $3 a move.
SELECT m.id IS NOT NULL AS recorded, coalesce(m.kind, q.kind) AS kind, coalesce(m.target_lead_id, q.target_lead_id) AS target,
    coalesce(m.source_lead_ids, q.source_lead_ids) AS sources, m.survivor_lead_id AS survivor,
    coalesce(m.merged_lead_ids, '{}') AS merged, m.counting IS NOT NULL AS counting, m.events_moved, m.committed_at,
    coalesce(m.requested_by, q.requested_by) AS requested_by, coalesce(q.requested_at, e.occurred_at) AS requested_at,
    l.moves, l.remaining
FROM (VALUES ($2::text)) AS asked (id)
LEFT JOIN merges m ON m.org_unit = $1 AND m.message_id = asked.id
LEFT JOIN merge_requests q ON q.org_unit = $1 AND q.message_id = asked.id
LEFT JOIN events e ON e.org_unit = $1 AND e.id = m.event_id
CROSS JOIN LATERAL (
    SELECT count(*) AS moves, coalesce(sum(x.n), 0)::bigint AS remaining
    FROM lead_moves v
    CROSS JOIN LATERAL (
        SELECT count(*) AS n FROM (
            SELECT FROM events s WHERE s.org_unit = $1 AND s.lead_id = v.from_lead
                AND (s.occurred_at, s.id) > (v.seen_time, v.seen_id)
            LIMIT $3
        ) y
    ) x
    WHERE v.org_unit = $1 AND v.merge_id = m.id
) l
WHERE m.id IS NOT NULL OR q.message_id IS NOT NULL

-- name: merge_preview
-- The root of each lead of $3 and of the target $2, and how many rows a merge would move for it: those of the root's whole class,
-- tombstones included; none for the target's own root.  One snapshot.  It stops at $4 rows in all: the roots it has not come
-- to then have too few.  While no move is pending all rows of a class stand under its root, which an index alone can count.
WITH pending AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM lead_moves WHERE org_unit = $1) AS moves
), asked AS MATERIALIZED (
    SELECT DISTINCT lead, coalesce(r.to_lead, lead) AS root
    FROM unnest($3::text[] || $2::text) AS lead
    LEFT JOIN lead_redirects r ON r.org_unit = $1 AND r.from_lead = lead
), counted AS (
    SELECT x.root, count(*) AS n FROM (
        SELECT a.root
        FROM (SELECT DISTINCT root FROM asked WHERE root <> (SELECT root FROM asked WHERE lead = $2)) a
        CROSS JOIN LATERAL (SELECT CASE WHEN (SELECT moves FROM pending) THEN lead_class($1, a.root) END AS leads) c
        CROSS JOIN LATERAL (
            SELECT FROM events e WHERE NOT (SELECT moves FROM pending) AND e.org_unit = $1 AND e.lead_id = a.root
            UNION ALL
            SELECT FROM events e WHERE e.org_unit = $1 AND e.original_lead_id = ANY (c.leads)
            UNION ALL
            SELECT FROM events e WHERE e.org_unit = $1 AND e.lead_id = ANY (c.leads) AND e.original_lead_id IS NULL
        ) e
        LIMIT $4
    ) x
    GROUP BY x.root
)
SELECT a.lead, a.root, coalesce(c.n, 0) AS events FROM asked a LEFT JOIN counted c ON c.root = a.root
