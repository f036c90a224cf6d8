-- ---------------------------------------------------------------------------------------------------------------------
-- Events and the past of windows (store.py)

-- name: record
SELECT * FROM record_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)

-- name: newest_event
-- The newest event time any lane has committed, ms.
SELECT max(newest) FROM lanes

-- name: window_members
-- What complete windows hold: of each window-aligned slice above the floor the first and last `keep` members.  The floor is
-- what lateness leaves: newest - window - lateness, newest being the lead's newest member or the event at hand.
SELECT w.n, f.floor, m.id, m.at
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::integer[]) WITH ORDINALITY
    AS w (org_unit, lead_id, event_type, at, window_ms, keep, n)
CROSS JOIN LATERAL (SELECT lead_class(w.org_unit, w.lead_id) AS leads) c
CROSS JOIN LATERAL (SELECT lead_places(w.org_unit, c.leads) AS places) p
CROSS JOIN LATERAL (
    SELECT greatest(w.at, max(x.at)) - w.window_ms - $7::bigint AS floor
    FROM unnest(p.places) AS place
    CROSS JOIN LATERAL (
        SELECT event_ms(e.occurred_at) AS at FROM events e
        WHERE e.org_unit = w.org_unit AND e.lead_id = place AND e.event_type = w.event_type AND e.counted
            AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
        ORDER BY e.occurred_at DESC LIMIT 1
    ) x
) f
LEFT JOIN LATERAL (
    SELECT s.id, s.at FROM (
        SELECT e.id, e.at,
            row_number() OVER (PARTITION BY slice_of(e.at, w.window_ms) ORDER BY e.at, e.id) AS from_first,
            row_number() OVER (PARTITION BY slice_of(e.at, w.window_ms) ORDER BY e.at DESC, e.id DESC) AS from_last
        FROM (
            SELECT e.id, event_ms(e.occurred_at) AS at FROM events e
            WHERE e.org_unit = w.org_unit AND e.lead_id = ANY (p.places) AND e.event_type = w.event_type AND e.counted
                AND e.occurred_at > ms_event(f.floor) AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
        ) e
    ) s
    WHERE s.from_first <= w.keep OR s.from_last <= w.keep
) m ON true

-- name: window_exceeding
-- The exceeding events that rows remember of keep-first filters: of each slice above the floor the first and the last.
SELECT w.n, s.id, s.at, s.burst_id
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[]) WITH ORDINALITY
    AS w (org_unit, lead_id, event_type, floor, window_ms, revision, n)
CROSS JOIN LATERAL (SELECT lead_class(w.org_unit, w.lead_id) AS leads) c
CROSS JOIN LATERAL (SELECT lead_places(w.org_unit, c.leads) AS places) p
CROSS JOIN LATERAL (
    SELECT e.id, e.at, e.burst_id,
        row_number() OVER (PARTITION BY slice_of(e.at, w.window_ms) ORDER BY e.at, e.id) AS from_first,
        row_number() OVER (PARTITION BY slice_of(e.at, w.window_ms) ORDER BY e.at DESC, e.id DESC) AS from_last
    FROM (
        SELECT e.id, event_ms(e.occurred_at) AS at, e.exceeded ->> w.revision AS burst_id FROM events e
        WHERE e.org_unit = w.org_unit AND e.lead_id = ANY (p.places) AND e.event_type = w.event_type
            AND e.occurred_at > ms_event(w.floor) AND e.exceeded ? w.revision
            AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
    ) e
) s
WHERE s.from_first = 1 OR s.from_last = 1

-- name: past_members
-- The members of a lead's windows that were judged before a filter revision existed, in processing order.
SELECT e.id, event_ms(e.occurred_at) AS at
FROM (SELECT lead_class($1, $2) AS leads) c
CROSS JOIN LATERAL (SELECT lead_places($1, c.leads) AS places) p
JOIN events e ON e.org_unit = $1 AND e.lead_id = ANY (p.places) AND e.event_type = $3 AND e.counted AND e.rules < $4
    AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
ORDER BY e.batch, e.source_offset

-- name: seen_in_store
-- For events whose time reaches below what Redis keeps: how many members are in (at - window, at], at most `keep`, and the
-- burst of an exceeding event less than a window away.  The ids of the batch are left out: the fold knows them.
WITH batch AS MATERIALIZED (SELECT * FROM unnest($8::text[], $9::text[]) AS b (org_unit, id))
SELECT w.n,
    (SELECT count(*) FROM (
        SELECT FROM events e
        WHERE e.org_unit = w.org_unit AND e.lead_id = ANY (p.places) AND e.event_type = w.event_type AND e.counted
            AND e.occurred_at > ms_event(w.at - w.window_ms) AND e.occurred_at <= ms_event(w.at)
            AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
            AND NOT EXISTS (SELECT FROM batch b WHERE b.org_unit = e.org_unit AND b.id = e.id)
        LIMIT w.keep
    ) x) AS count,
    (SELECT e.exceeded ->> w.revision FROM events e
        WHERE e.org_unit = w.org_unit AND e.lead_id = ANY (p.places) AND e.event_type = w.event_type
            AND e.occurred_at > ms_event(w.at - w.window_ms) AND e.occurred_at < ms_event(w.at + w.window_ms)
            AND e.exceeded ? w.revision AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
            AND NOT EXISTS (SELECT FROM batch b WHERE b.org_unit = e.org_unit AND b.id = e.id)
        LIMIT 1) AS burst_id
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::integer[], $7::text[]) WITH ORDINALITY
    AS w (org_unit, lead_id, event_type, at, window_ms, keep, revision, n)
CROSS JOIN LATERAL (SELECT lead_class(w.org_unit, w.lead_id) AS leads) c
CROSS JOIN LATERAL (SELECT lead_places(w.org_unit, c.leads) AS places) p
