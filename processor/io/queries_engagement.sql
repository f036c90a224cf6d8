-- ---------------------------------------------------------------------------------------------------------------------
-- Engagement: what a batch of the enriched topic makes of leads (engagement_store.py), all of it in one transaction.
-- Arrays belong together by their places; times are milliseconds.

-- name: open_places
INSERT INTO engagement_places (topic, partition, next_offset, topic_id)
SELECT $1, partition, begin, $4 FROM unnest($2::integer[], $3::bigint[]) AS u (partition, begin)
ORDER BY partition ON CONFLICT DO NOTHING

-- name: opened_places
SELECT partition, next_offset, topic_id FROM engagement_places WHERE topic = $1 AND partition = ANY ($2::integer[])

-- name: places
SELECT partition, next_offset FROM engagement_places WHERE topic = $1

-- name: lock_places
SELECT partition, next_offset FROM engagement_places
WHERE topic = $1 AND partition = ANY ($2::integer[]) ORDER BY partition FOR UPDATE

-- name: move_places
UPDATE engagement_places e SET next_offset = u.next
FROM unnest($2::integer[], $3::bigint[]) AS u (partition, next) WHERE e.topic = $1 AND e.partition = u.partition

-- name: open_org_units
INSERT INTO engaged_org_units (org_unit) SELECT o FROM unnest($1::text[]) AS o ORDER BY o COLLATE "C" ON CONFLICT DO NOTHING

-- name: lock_org_units
-- What is read from here on is not changed by others before the commit; but for redirects, whose change has a message that comes
-- after it and that waits here.
SELECT FROM engaged_org_units WHERE org_unit = ANY ($1::text[]) ORDER BY org_unit FOR UPDATE

-- name: known_events
SELECT e.org_unit, e.id FROM unnest($1::text[], $2::text[]) AS u (org, id)
JOIN engaged_events e ON e.org_unit = u.org AND e.id = u.id

-- name: parted_leads
-- Of events those that tell of a merge or unmerge, whose events have the ids of their messages, each with the leads that became roots
-- again by it; null where none did.
SELECT u.org, u.id, e.source_lead
FROM unnest($1::text[], $2::text[]) AS u (org, id)
JOIN merges m ON m.org_unit = u.org AND m.message_id = u.id
LEFT JOIN merge_edges e ON e.removed_by = m.id

-- name: lead_classes
-- Every lead of the classes of these leads, with its own facts and what it is listed with.
WITH roots AS MATERIALIZED (
    SELECT DISTINCT u.org, coalesce(r.to_lead, u.lead) AS root
    FROM unnest($1::text[], $2::text[]) AS u (org, lead)
    LEFT JOIN lead_redirects r ON r.org_unit = u.org AND r.from_lead = u.lead
), members AS MATERIALIZED (
    SELECT org, root, root AS lead FROM roots
    UNION ALL
    SELECT org, root, r.from_lead FROM roots JOIN lead_redirects r ON r.org_unit = org AND r.to_lead = root
)
SELECT m.org, m.root, m.lead, l.events, l.sessions, l.first_at, l.last_at, l.week, l.total,
    s.events AS ranked, s.week AS ranked_week, s.total AS ranked_total
FROM members m
LEFT JOIN engaged_leads l ON l.org_unit = m.org AND l.lead_id = m.lead
LEFT JOIN lead_scores s ON s.org_unit = m.org AND s.lead_id = m.lead

-- name: near_sessions
-- Sessions that leads have within $5 of times from $3 to $4: the last one that begins before, and those that begin in between.
SELECT DISTINCT u.org, u.lead, s.started_at, s.ended_at, s.events
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS u (org, lead, since, until)
CROSS JOIN LATERAL (
    (SELECT * FROM lead_sessions l
    WHERE l.org_unit = u.org AND l.lead_id = u.lead AND l.started_at < ms_event(u.since) ORDER BY l.started_at DESC LIMIT 1)
    UNION ALL
    (SELECT * FROM lead_sessions l
    WHERE l.org_unit = u.org AND l.lead_id = u.lead
        AND l.started_at BETWEEN ms_event(u.since) AND ms_event(u.until + $5))
) s
WHERE s.ended_at >= ms_event(u.since - $5)

-- name: near_events
-- Events of the types $4 around times $3 of roots: up to $6 before and after each, less than $5 away.
SELECT DISTINCT u.org, u.root, e.id, e.occurred_at
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS u (org, root, at)
CROSS JOIN LATERAL (SELECT unnest(lead_class(u.org, u.root)) AS lead OFFSET 0) m
CROSS JOIN LATERAL (
    SELECT FROM engaged_leads l WHERE l.org_unit = u.org AND l.lead_id = m.lead
        AND l.first_at < ms_event(u.at + $5) AND l.last_at > ms_event(u.at - $5) OFFSET 0) l
CROSS JOIN unnest($4::text[]) AS t (type)
CROSS JOIN LATERAL (
    (SELECT id, occurred_at FROM engaged_events f
    WHERE f.org_unit = u.org AND f.lead_id = m.lead AND f.event_type = t.type
        AND f.occurred_at > ms_event(u.at - $5) AND f.occurred_at <= ms_event(u.at)
    ORDER BY f.occurred_at DESC LIMIT $6)
    UNION ALL
    (SELECT id, occurred_at FROM engaged_events f
    WHERE f.org_unit = u.org AND f.lead_id = m.lead AND f.event_type = t.type
        AND f.occurred_at > ms_event(u.at) AND f.occurred_at < ms_event(u.at + $5)
    ORDER BY f.occurred_at LIMIT $6)
) e

-- name: near_surges
-- Surges told of roots around times $3.
SELECT DISTINCT u.org, u.root, s.at
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS u (org, root, at)
CROSS JOIN LATERAL (SELECT unnest(lead_class(u.org, u.root)) AS lead OFFSET 0) m
CROSS JOIN LATERAL (
    SELECT at FROM lead_surges s WHERE s.org_unit = u.org AND s.lead_id = m.lead
        AND s.at > ms_event(u.at - $4) AND s.at < ms_event(u.at + 2 * $4) OFFSET 0) s

-- name: add_events
INSERT INTO engaged_events (org_unit, id, lead_id, event_type, occurred_at)
SELECT org, id, lead, type, ms_event(at)
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) AS u (org, id, lead, type, at)

-- name: put_leads
INSERT INTO engaged_leads AS l (org_unit, lead_id, events, sessions, first_at, last_at, week, total)
SELECT org, lead, events, sessions, ms_event(first), ms_event(last), week, total
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::integer[], $8::float8[])
    AS u (org, lead, events, sessions, first, last, week, total)
ON CONFLICT (org_unit, lead_id) DO UPDATE SET
    events = excluded.events, sessions = excluded.sessions, first_at = excluded.first_at, last_at = excluded.last_at,
    week = excluded.week, total = excluded.total

-- name: end_sessions
DELETE FROM lead_sessions s USING unnest($1::text[], $2::text[], $3::bigint[]) AS u (org, lead, start)
WHERE s.org_unit = u.org AND s.lead_id = u.lead AND s.started_at = ms_event(u.start)

-- name: add_sessions
INSERT INTO lead_sessions (org_unit, lead_id, started_at, ended_at, events)
SELECT org, lead, ms_event(started), ms_event(ended), events
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) AS u (org, lead, started, ended, events)

-- name: sessions_together
-- How many sessions leads $3 of each root make together.
SELECT r.org, r.root, (SELECT count(*) FROM class_sessions(r.org, r.leads)) AS sessions
FROM (
    SELECT org, root, array_agg(lead) AS leads FROM unnest($1::text[], $2::text[], $3::text[]) AS u (org, root, lead)
    GROUP BY org, root
) r

-- name: rank_leads
INSERT INTO lead_scores AS s (org_unit, lead_id, events, week, total, rank, first_at, last_at, sessions)
SELECT org, lead, events, week, total, rank, ms_event(first), ms_event(last), sessions
FROM unnest(
    $1::text[], $2::text[], $3::bigint[], $4::integer[], $5::float8[], $6::float8[], $7::bigint[], $8::bigint[], $9::bigint[])
    AS u (org, lead, events, week, total, rank, first, last, sessions)
ON CONFLICT (org_unit, lead_id) DO UPDATE SET
    events = excluded.events, week = excluded.week, total = excluded.total, rank = excluded.rank,
    first_at = excluded.first_at, last_at = excluded.last_at, sessions = excluded.sessions

-- name: count_ranked
UPDATE engaged_org_units o SET leads = o.leads + u.more FROM unnest($1::text[], $2::bigint[]) AS u (org, more)
WHERE o.org_unit = u.org

-- name: add_surges
INSERT INTO lead_surges (org_unit, lead_id, at)
SELECT org, lead, ms_event(at) FROM unnest($1::text[], $2::text[], $3::bigint[]) AS u (org, lead, at)
ON CONFLICT DO NOTHING

-- name: add_to_outbox
INSERT INTO engagement_outbox (lead_id, value)
SELECT lead, value FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u (lead, value, n) ORDER BY n

-- name: lock_outbox
-- One process publishes at a time.
SELECT pg_advisory_xact_lock(7705, 0)

-- name: read_outbox
SELECT id, lead_id, value FROM engagement_outbox ORDER BY id LIMIT $1

-- name: clear_outbox
DELETE FROM engagement_outbox WHERE id = ANY ($1::bigint[])

-- ---------------------------------------------------------------------------------------------------------------------
-- Leads as the API shows them (leads.py)

-- name: ranked_leads
-- A page of the leads of an org unit by score, from place $2 up to $3 of them; number 0 has how many there are, alone.  Entries of the
-- index are passed over from whichever end is nearer.  A lead is what was counted last: of the classes of now its merges may tell
-- something else already.
WITH bounds AS MATERIALIZED (
    SELECT t.leads, c.number, t.leads - $2::bigint - c.number AS behind
    FROM (SELECT coalesce((SELECT leads FROM engaged_org_units WHERE org_unit = $1), 0) AS leads) t
    CROSS JOIN LATERAL (SELECT least($3::bigint, greatest(t.leads - $2::bigint, 0)) AS number) c
), page AS MATERIALIZED (
    (SELECT lead_id, rank FROM lead_scores WHERE org_unit = $1 AND events > 0 ORDER BY rank DESC, lead_id
    OFFSET $2 LIMIT (SELECT CASE WHEN $2::bigint <= behind THEN number ELSE 0 END FROM bounds))
    UNION ALL
    (SELECT lead_id, rank FROM lead_scores WHERE org_unit = $1 AND events > 0 ORDER BY rank, lead_id DESC
    OFFSET (SELECT greatest(behind, 0) FROM bounds)
    LIMIT (SELECT CASE WHEN $2::bigint <= behind THEN 0 ELSE number END FROM bounds))
)
SELECT 0::bigint AS n, leads, NULL AS lead_id, NULL::integer AS week, NULL::float8 AS total, NULL::bigint AS sessions,
    NULL::timestamptz AS first_at, NULL::timestamptz AS last_at
FROM bounds
UNION ALL
SELECT p.n, NULL, p.lead_id, s.week, s.total, s.sessions, s.first_at, s.last_at
FROM (SELECT lead_id, row_number() OVER (ORDER BY rank DESC, lead_id) AS n FROM page) p
JOIN lead_scores s ON s.org_unit = $1 AND s.lead_id = p.lead_id
ORDER BY n

-- name: engaged_lead
-- A lead, whatever it is merged into meaning its root; no row without organic events.
SELECT m.root AS lead_id, f.weeks, f.totals, f.first_at, f.last_at, c.sessions, c.recent
FROM (
    SELECT r.root, lead_class($1, r.root) AS leads
    FROM (SELECT coalesce((SELECT to_lead FROM lead_redirects WHERE org_unit = $1 AND from_lead = $2), $2) AS root) r OFFSET 0
) m
CROSS JOIN LATERAL (
    SELECT min(l.first_at) AS first_at, max(l.last_at) AS last_at,
        array_agg(l.week ORDER BY l.lead_id) AS weeks, array_agg(l.total ORDER BY l.lead_id) AS totals
    FROM engaged_leads l WHERE l.org_unit = $1 AND l.lead_id = ANY (m.leads)
) f
CROSS JOIN LATERAL (
    SELECT count(*) AS sessions, (array_agg(
        ARRAY[event_ms(s.started_at), event_ms(s.ended_at), s.events] ORDER BY s.started_at DESC))[1:$3] AS recent
    FROM class_sessions($1, m.leads) s
) c
WHERE f.first_at IS NOT NULL
