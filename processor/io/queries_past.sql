-- ---------------------------------------------------------------------------------------------------------------------
-- The past of windows (past.py).  OFFSET 0 keeps the class of a lead from being looked up again for every row.  Asked place by
-- place and in the order of time, the past is read by events_by_lead, whatever a plan believes of the table's size.

-- name: window_members
-- What complete windows hold: of each window-aligned slice above the floor the first and last `keep` members.  The floor is
-- what lateness leaves: newest - window - lateness, newest being the lead's newest member or the event at hand.
--
-- Where more than 4,096 members are there, they are not passed over: slice after slice, from the newest, its two ends are
-- looked up, until that comes to $8 members (a slice counts as 50 more) and a window before the newest is whole.  The floor is
-- then where that ended: what is below is judged from here.
SELECT w.n, coalesce(m.floor, f.floor) AS floor, m.id, m.at
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::integer[]) WITH ORDINALITY
    AS w (org_unit, lead_id, event_type, at, window_ms, keep, n)
CROSS JOIN LATERAL (SELECT lead_class(w.org_unit, w.lead_id) AS leads OFFSET 0) c
CROSS JOIN LATERAL (SELECT ARRAY(SELECT DISTINCT unnest(lead_places(w.org_unit, c.leads))) AS places OFFSET 0) p
CROSS JOIN LATERAL (
    SELECT greatest(w.at, max(x.at)) AS newest, greatest(w.at, max(x.at)) - w.window_ms - $7::bigint AS floor
    FROM unnest(p.places) AS place
    CROSS JOIN LATERAL (
        SELECT event_ms(e.occurred_at) AS at FROM events e
        WHERE e.org_unit = w.org_unit AND e.lead_id = place AND e.event_type = w.event_type AND e.counted
            AND e.occurred_at > ms_event(w.at) AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
        ORDER BY e.occurred_at DESC LIMIT 1
    ) x
) f
CROSS JOIN LATERAL (
    SELECT count(*) > 4096 AS many FROM (
        SELECT FROM unnest(p.places) AS place
        CROSS JOIN LATERAL (
            SELECT FROM events e
            WHERE e.org_unit = w.org_unit AND e.lead_id = place AND e.event_type = w.event_type AND e.counted
                AND e.occurred_at > ms_event(f.floor) AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
            ORDER BY e.occurred_at DESC LIMIT 4097
        ) x
        LIMIT 4097
    ) x
    OFFSET 0
) rows
LEFT JOIN LATERAL (
    SELECT f.floor, s.id, s.at FROM (
        SELECT e.id, e.at,
            row_number() OVER (PARTITION BY slice_of(e.at, w.window_ms) ORDER BY e.at, e.id) AS from_first,
            row_number() OVER (PARTITION BY slice_of(e.at, w.window_ms) ORDER BY e.at DESC, e.id DESC) AS from_last
        FROM (
            SELECT o.* FROM unnest(p.places) AS place
            CROSS JOIN LATERAL (
                SELECT e.id, event_ms(e.occurred_at) AS at FROM events e
                WHERE e.org_unit = w.org_unit AND e.lead_id = place AND e.event_type = w.event_type AND e.counted
                    AND e.occurred_at > ms_event(f.floor) AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
                ORDER BY e.occurred_at
            ) o
        ) e
        WHERE NOT rows.many
    ) s
    WHERE s.from_first <= w.keep OR s.from_last <= w.keep
    UNION ALL
    SELECT t.floor, u.id, u.at FROM (
        WITH RECURSIVE slices (start, held, ids, times) AS (
            SELECT f.newest + 1, 0::bigint, '{}'::text[] COLLATE "C", '{}'::bigint[] WHERE rows.many
            UNION ALL
            SELECT s.start, r.held + 50 + cardinality(ends.ids), ends.ids, ends.times
            FROM slices r
            CROSS JOIN LATERAL (
                SELECT slice_of(max(x.at), w.window_ms) AS start FROM unnest(p.places) AS place
                CROSS JOIN LATERAL (
                    SELECT event_ms(e.occurred_at) AS at FROM events e
                    WHERE e.org_unit = w.org_unit AND e.lead_id = place AND e.event_type = w.event_type AND e.counted
                        AND e.occurred_at > ms_event(f.floor) AND e.occurred_at < ms_event(r.start)
                        AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
                    ORDER BY e.occurred_at DESC LIMIT 1
                ) x
                OFFSET 0
            ) s
            CROSS JOIN LATERAL (
                SELECT coalesce(array_agg(x.id), '{}') AS ids, coalesce(array_agg(x.at), '{}') AS times FROM (
                    (SELECT x.id, x.at FROM unnest(p.places) AS place
                    CROSS JOIN LATERAL (
                        SELECT e.id, event_ms(e.occurred_at) AS at FROM events e
                        WHERE e.org_unit = w.org_unit AND e.lead_id = place AND e.event_type = w.event_type AND e.counted
                            AND e.occurred_at > ms_event(greatest(f.floor, s.start - 1))
                            AND e.occurred_at < ms_event(s.start + w.window_ms)
                            AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
                        ORDER BY e.occurred_at, e.id LIMIT w.keep
                    ) x
                    ORDER BY x.at, x.id LIMIT w.keep)
                    UNION
                    (SELECT x.id, x.at FROM unnest(p.places) AS place
                    CROSS JOIN LATERAL (
                        SELECT e.id, event_ms(e.occurred_at) AS at FROM events e
                        WHERE e.org_unit = w.org_unit AND e.lead_id = place AND e.event_type = w.event_type AND e.counted
                            AND e.occurred_at > ms_event(greatest(f.floor, s.start - 1))
                            AND e.occurred_at < ms_event(s.start + w.window_ms)
                            AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
                        ORDER BY e.occurred_at DESC, e.id DESC LIMIT w.keep
                    ) x
                    ORDER BY x.at DESC, x.id DESC LIMIT w.keep)
                ) x
            ) ends
            WHERE s.start IS NOT NULL AND (r.held < $8::bigint OR r.start > f.newest - 2 * w.window_ms)
        )
        SELECT r.ids, r.times, greatest(f.floor, CASE WHEN max(r.held) OVER () >= $8::bigint THEN min(r.start) OVER () - 1 END) AS floor
        FROM slices r
    ) t
    CROSS JOIN LATERAL unnest(t.ids, t.times) AS u (id, at)
) m ON true

-- name: window_exceeding
-- The exceeding events that rows remember of keep-first filters: of each slice above the floor the first and the last.  Slice
-- after slice, from the newest: a lead that exceeds all the time has far more.
SELECT w.n, m.id, m.at, m.burst_id
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[]) WITH ORDINALITY
    AS w (org_unit, lead_id, event_type, floor, window_ms, revision, n)
CROSS JOIN LATERAL (SELECT lead_class(w.org_unit, w.lead_id) AS leads OFFSET 0) c
CROSS JOIN LATERAL (SELECT ARRAY(SELECT DISTINCT unnest(lead_places(w.org_unit, c.leads))) AS places OFFSET 0) p
CROSS JOIN LATERAL (
    WITH RECURSIVE slices AS (
        SELECT NULL::text COLLATE "C" AS first_id, NULL::bigint AS first_at, NULL::text AS first_burst,
            NULL::text COLLATE "C" AS last_id, NULL::bigint AS last_at, NULL::text AS last_burst, 253402300800000 AS start  -- the end of 9999
        UNION ALL
        SELECT b.id, b.at, b.burst_id, a.id, a.at, a.burst_id, a.start
        FROM slices r
        CROSS JOIN LATERAL (
            SELECT x.*, slice_of(x.at, w.window_ms) AS start FROM unnest(p.places) AS place
            CROSS JOIN LATERAL (
                SELECT e.id, event_ms(e.occurred_at) AS at, e.exceeded ->> w.revision AS burst_id FROM events e
                WHERE e.org_unit = w.org_unit AND e.lead_id = place AND e.event_type = w.event_type
                    AND e.occurred_at > ms_event(w.floor) AND e.occurred_at < ms_event(r.start)
                    AND e.exceeded IS NOT NULL AND e.exceeded ? w.revision
                    AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
                ORDER BY e.occurred_at DESC LIMIT 1
            ) x
            ORDER BY x.at DESC LIMIT 1
        ) a
        CROSS JOIN LATERAL (
            SELECT x.* FROM unnest(p.places) AS place
            CROSS JOIN LATERAL (
                SELECT e.id, event_ms(e.occurred_at) AS at, e.exceeded ->> w.revision AS burst_id FROM events e
                WHERE e.org_unit = w.org_unit AND e.lead_id = place AND e.event_type = w.event_type
                    AND e.occurred_at > ms_event(greatest(w.floor, a.start - 1)) AND e.occurred_at <= ms_event(a.at)
                    AND e.exceeded IS NOT NULL AND e.exceeded ? w.revision
                    AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
                ORDER BY e.occurred_at LIMIT 1
            ) x
            ORDER BY x.at LIMIT 1
        ) b
    )
    SELECT u.id, u.at, u.burst_id FROM slices r
    CROSS JOIN LATERAL (
        VALUES (r.first_id, r.first_at, r.first_burst)
        UNION
        VALUES (r.last_id, r.last_at, r.last_burst)
    ) AS u (id, at, burst_id)
    WHERE u.id IS NOT NULL
) m

-- name: past_links
-- Who was ever one with a lead or with any that is one with it, be it through others, with the root of each now, and the merges and
-- unmerges of all these in the order of their batches: [batch, [roots joined], survivor], or [batch, [leads made roots again], null].
WITH RECURSIVE ever (lead) AS (
    SELECT lead COLLATE "C" FROM unnest(lead_class($1, $2)) AS lead
    UNION
    SELECT near.lead FROM ever
    CROSS JOIN LATERAL (
        SELECT e.target_lead AS lead FROM merge_edges e WHERE e.org_unit = $1 AND e.source_lead = ever.lead
        UNION ALL
        SELECT e.source_lead FROM merge_edges e WHERE e.org_unit = $1 AND e.target_lead = ever.lead
    ) near
), edges AS MATERIALIZED (
    SELECT e.* FROM ever
    CROSS JOIN LATERAL (SELECT * FROM merge_edges e WHERE e.org_unit = $1 AND e.source_lead = ever.lead OFFSET 0) e
), links AS (
    SELECT merge_id AS id, jsonb_agg(source_lead) AS roots, min(target_lead) AS survivor FROM edges GROUP BY merge_id
    UNION ALL
    SELECT removed_by, jsonb_agg(source_lead), NULL FROM edges WHERE removed_by IS NOT NULL GROUP BY removed_by
)
SELECT (
    SELECT jsonb_object_agg(lead, coalesce((
        SELECT r.to_lead FROM lead_redirects r WHERE r.org_unit = $1 AND r.from_lead = ever.lead), lead))
    FROM ever
) AS roots, (
    SELECT coalesce(jsonb_agg(jsonb_build_array(m.batch, l.roots, l.survivor) ORDER BY m.batch), '[]')
    FROM links l JOIN merges m ON m.id = l.id
) AS links

-- name: past_begins
-- The time from which the members of windows of some leads have to be folded to know which exceed above a time: null, from the first
-- one on.  A slice that has no more than `threshold` members together with the one before it holds no exceeding event, whatever
-- the order they came in and whoever of the leads was one with whom, so bursts beyond it are others.  It is looked for among the $6
-- rows that are nearest.
SELECT max(calm.start) AS begins FROM (SELECT raw_places($1, $2::text[]) AS places OFFSET 0) p
CROSS JOIN LATERAL (
    WITH RECURSIVE slices (start, rows, before, seen) AS (
        SELECT slice_of($4::bigint, $5::bigint) - $5::bigint, NULL::bigint, NULL::bigint, 0::bigint
        UNION ALL
        SELECT r.start - $5::bigint, n.rows, r.rows, r.seen + 10 + n.rows
        FROM slices r
        CROSS JOIN LATERAL (
            SELECT count(*) AS rows FROM (
                SELECT FROM unnest(p.places) AS place
                CROSS JOIN LATERAL (
                    SELECT FROM events e
                    WHERE e.org_unit = $1 AND e.lead_id = place AND e.event_type = $3
                        AND e.occurred_at >= ms_event(r.start) AND e.occurred_at < ms_event(r.start + $5::bigint)
                    ORDER BY e.occurred_at LIMIT $7::bigint + 1
                ) x
                LIMIT $7::bigint + 1
            ) x
        ) n
        WHERE r.seen < $6::bigint AND NOT coalesce(r.rows + r.before <= $7::bigint, false)
    )
    SELECT start + $5::bigint * 2 AS start FROM slices WHERE rows + before <= $7::bigint
) calm

-- name: past_members
-- The members of windows of some leads that were judged before a filter revision existed, from a time on (null: all), in processing
-- order.
SELECT event_ms(o.occurred_at) AS at, o.id, o.raw, o.batch
FROM (SELECT raw_places($1, $2::text[]) AS places OFFSET 0) p
CROSS JOIN LATERAL unnest(p.places) AS place
CROSS JOIN LATERAL (
    SELECT e.id, e.occurred_at, e.batch, e.source_offset, coalesce(e.original_lead_id, e.lead_id) AS raw FROM events e
    WHERE e.org_unit = $1 AND e.lead_id = place AND e.event_type = $3 AND e.counted AND e.rules < $4
        AND e.occurred_at >= coalesce(ms_event($5::bigint), '-infinity')
        AND coalesce(e.original_lead_id, e.lead_id) = ANY ($2::text[])
    ORDER BY e.occurred_at
) o
ORDER BY o.batch, o.source_offset

-- name: seen_in_store
-- For events whose time reaches below what Redis keeps: how many members are in (at - window, at], at most `keep`, and the
-- burst of another exceeding event less than a window away; and, beside the first of them, which events of the batch have a row
-- already.
WITH stored AS MATERIALIZED (
    SELECT coalesce(array_agg(b.n), '{}') AS numbers
    FROM unnest($9::text[], $10::text[]) WITH ORDINALITY AS b (org_unit, id, n)
    CROSS JOIN LATERAL (
        -- As an order of ids, which the primary key alone has: for a small table another index looks as good.
        SELECT FROM events e WHERE e.org_unit = b.org_unit AND e.id >= b.id AND e.id <= b.id ORDER BY e.id LIMIT 1
    ) row
)
SELECT w.n,
    (SELECT count(*) FROM (
        SELECT FROM (SELECT DISTINCT unnest(p.places) AS place) d
        CROSS JOIN LATERAL (
            SELECT FROM events e
            WHERE e.org_unit = w.org_unit AND e.lead_id = place AND e.event_type = w.event_type AND e.counted
                AND e.occurred_at > ms_event(w.at - w.window_ms) AND e.occurred_at <= ms_event(w.at)
                AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
            ORDER BY e.occurred_at LIMIT w.keep
        ) member
        LIMIT w.keep
    ) x) AS count,
    (SELECT other.burst_id FROM (SELECT DISTINCT unnest(p.places) AS place) d
        CROSS JOIN LATERAL (
            SELECT e.exceeded ->> w.revision AS burst_id FROM events e
            WHERE e.org_unit = w.org_unit AND e.lead_id = place AND e.event_type = w.event_type
                AND e.occurred_at > ms_event(w.at - w.window_ms) AND e.occurred_at < ms_event(w.at + w.window_ms)
                AND e.exceeded ? w.revision AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads) AND e.id <> w.id
            ORDER BY e.occurred_at LIMIT 1
        ) other
        LIMIT 1) AS burst_id,
    CASE WHEN w.n = 1 THEN (SELECT numbers FROM stored) END AS stored
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::integer[], $7::text[], $8::text[])
    WITH ORDINALITY AS w (org_unit, lead_id, event_type, at, window_ms, keep, revision, id, n)
CROSS JOIN LATERAL (SELECT lead_class(w.org_unit, w.lead_id) AS leads OFFSET 0) c
CROSS JOIN LATERAL (SELECT lead_places(w.org_unit, c.leads) AS places OFFSET 0) p

