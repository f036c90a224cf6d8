-- ---------------------------------------------------------------------------------------------------------------------
-- Events and the past of windows (store.py, past.py).  OFFSET 0 keeps the class of a lead from being looked up again for every row.
-- Asked place by place and in the order of time, the past is read by events_by_lead, whatever a plan believes of the table's size.

-- name: record
SELECT * FROM record_rulings($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::bigint[], $12::text::bigint[], $13::text::bigint[], $14, $15)

-- name: newest_event
-- The newest event time any lane has committed, ms.
SELECT max(newest) FROM lanes

-- name: by_keys
-- Until the transaction ends: rows are found key by key, however old the statistics are, or the plan that is kept.
SELECT set_config(name, 'off', true)
FROM unnest(ARRAY['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_bitmapscan']) AS name

-- name: window_members
-- What complete windows hold: of each window-aligned slice above the floor the first and last `keep` members.  The floor is
-- what lateness leaves: newest - window - lateness, newest being the lead's newest member or the event at hand.
SELECT w.n, f.floor, m.id, m.at
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::integer[]) WITH ORDINALITY
    AS w (org_unit, lead_id, event_type, at, window_ms, keep, n)
CROSS JOIN LATERAL (SELECT lead_class(w.org_unit, w.lead_id) AS leads OFFSET 0) c
CROSS JOIN LATERAL (SELECT lead_places(w.org_unit, c.leads) AS places OFFSET 0) p
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
            SELECT o.* FROM (SELECT DISTINCT unnest(p.places) AS place) d
            CROSS JOIN LATERAL (
                SELECT e.id, event_ms(e.occurred_at) AS at FROM events e
                WHERE e.org_unit = w.org_unit AND e.lead_id = place AND e.event_type = w.event_type AND e.counted
                    AND e.occurred_at > ms_event(f.floor) AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
                ORDER BY e.occurred_at
            ) o
        ) e
    ) s
    WHERE s.from_first <= w.keep OR s.from_last <= w.keep
) m ON true

-- name: window_exceeding
-- The exceeding events that rows remember of keep-first filters: of each slice above the floor the first and the last.
SELECT w.n, s.id, s.at, s.burst_id
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[]) WITH ORDINALITY
    AS w (org_unit, lead_id, event_type, floor, window_ms, revision, n)
CROSS JOIN LATERAL (SELECT lead_class(w.org_unit, w.lead_id) AS leads OFFSET 0) c
CROSS JOIN LATERAL (SELECT lead_places(w.org_unit, c.leads) AS places OFFSET 0) p
CROSS JOIN LATERAL (
    SELECT e.id, e.at, e.burst_id,
        row_number() OVER (PARTITION BY slice_of(e.at, w.window_ms) ORDER BY e.at, e.id) AS from_first,
        row_number() OVER (PARTITION BY slice_of(e.at, w.window_ms) ORDER BY e.at DESC, e.id DESC) AS from_last
    FROM (
        SELECT o.* FROM (SELECT DISTINCT unnest(p.places) AS place) d
        CROSS JOIN LATERAL (
            SELECT e.id, event_ms(e.occurred_at) AS at, e.exceeded ->> w.revision AS burst_id FROM events e
            WHERE e.org_unit = w.org_unit AND e.lead_id = place AND e.event_type = w.event_type
                AND e.occurred_at > ms_event(w.floor) AND e.exceeded ? w.revision
                AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
            ORDER BY e.occurred_at
        ) o
    ) e
) s
WHERE s.from_first = 1 OR s.from_last = 1

-- name: past_members
-- The members of a lead's windows that were judged before a filter revision existed, in processing order.
SELECT o.id, event_ms(o.occurred_at) AS at
FROM (SELECT lead_class($1, $2) AS leads OFFSET 0) c
CROSS JOIN LATERAL (SELECT DISTINCT unnest(lead_places($1, c.leads)) AS place) d
CROSS JOIN LATERAL (
    SELECT e.id, e.occurred_at, e.batch, e.source_offset FROM events e
    WHERE e.org_unit = $1 AND e.lead_id = place AND e.event_type = $3 AND e.counted AND e.rules < $4
        AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
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

-- ---------------------------------------------------------------------------------------------------------------------
-- The schema (migrate.py)

-- name: create_schema_migrations
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    compatible integer NOT NULL,  -- programs that know this version work on what it made
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- name: has_schema_migrations
SELECT to_regclass('schema_migrations') IS NOT NULL

-- name: schema_migrations
SELECT version, checksum, compatible FROM schema_migrations

-- name: record_schema_migration
INSERT INTO schema_migrations (version, name, checksum, compatible) VALUES ($1, $2, $3, $4)

-- ---------------------------------------------------------------------------------------------------------------------
-- Filters (filters.py) and the rules they make (rulebook.py)

-- name: lock_rules
-- Exclusive: waits until no batch is being recorded, and holds those that come until the change is committed.
SELECT pg_advisory_xact_lock(7701, 0)

-- name: filters_ever
-- Every filter these org units have or had.
SELECT org_unit, id, kind, name, event_type, threshold, window_ms, keep_first, conditions::text AS conditions,
    enabled, version, window_revision, newest, deleted
FROM filters WHERE org_unit = ANY ($1::text[])

-- name: filters_now
-- The filters of an org unit, or of all where it is null.
SELECT org_unit, id, kind, name, event_type, threshold, window_ms, keep_first, conditions::text AS conditions,
    enabled, version, window_revision, newest, deleted
FROM filters WHERE NOT deleted AND ($1::text IS NULL OR org_unit = $1) ORDER BY org_unit, id

-- name: next_rule_revision
-- Once in a transaction, under the exclusive rules lock: no lane can commit a row meanwhile, so newest holds for it.  $1: how
-- many filters change; each has a revision of its own, and the last is in force.
UPDATE rule_state SET revision = revision + $1::integer
RETURNING revision, (SELECT max(newest) FROM lanes) AS newest

-- name: write_filters
-- $1 is an array of filters as JSON; $2 who changed them.  Each version goes to the history as well.  This statement began under
-- the rules lock, unlike its transaction: changes that follow each other have times that do.
WITH changed AS (
    SELECT *, date_trunc('milliseconds', statement_timestamp()) AS changed_at FROM json_to_recordset($1::json) AS f (
        org_unit text, id text, kind text, name text, event_type text, threshold integer, window_ms bigint,
        keep_first boolean, conditions json, enabled boolean, version integer, revision bigint, window_revision bigint,
        newest bigint, deleted boolean, definition json
    )
), history AS (
    INSERT INTO filter_versions (org_unit, id, version, kind, definition, revision, changed_at, changed_by)
    SELECT org_unit, id, version, kind, definition, revision, changed_at, $2 FROM changed
)
INSERT INTO filters (
    org_unit, id, kind, name, event_type, threshold, window_ms, keep_first, conditions, enabled, version, revision,
    window_revision, newest, deleted, changed_at, changed_by
)
SELECT org_unit, id, kind, name, event_type, threshold, window_ms, keep_first, conditions, enabled, version, revision,
    window_revision, newest, deleted, changed_at, $2
FROM changed
ON CONFLICT (org_unit, id) DO UPDATE SET
    kind = EXCLUDED.kind, name = EXCLUDED.name, event_type = EXCLUDED.event_type, threshold = EXCLUDED.threshold,
    window_ms = EXCLUDED.window_ms, keep_first = EXCLUDED.keep_first, conditions = EXCLUDED.conditions,
    enabled = EXCLUDED.enabled, version = EXCLUDED.version, revision = EXCLUDED.revision,
    window_revision = EXCLUDED.window_revision, newest = EXCLUDED.newest, deleted = EXCLUDED.deleted,
    changed_at = EXCLUDED.changed_at, changed_by = EXCLUDED.changed_by

-- name: rules_since
-- The rule revision, and every enabled filter of the org units that changed after revision $1; a unit without any has one
-- row without an id, and so has a database where nothing changed.  One statement: the revision never claims more than the rows.
SELECT s.revision AS rule_revision, c.org_unit, f.id, f.kind, f.name, f.event_type, f.threshold, f.window_ms, f.keep_first,
    f.conditions::text AS conditions, f.version, f.window_revision, f.newest
FROM rule_state s
LEFT JOIN (SELECT DISTINCT org_unit FROM filters WHERE revision > $1) c ON true
LEFT JOIN filters f ON f.org_unit = c.org_unit AND f.enabled AND NOT f.deleted
ORDER BY c.org_unit, f.id

-- ---------------------------------------------------------------------------------------------------------------------
-- Merges (merges.py)

-- name: merge_logged
-- What became of a merge message, with its event as it is to be published now; a deleted event is not.
SELECT m.id, m.survivor_lead_id, m.merged_lead_ids, m.batch, m.counting, m.events_moved,
    e.id AS event_id, coalesce(r.to_lead, raw.lead) AS lead_id, CASE WHEN r.to_lead IS NOT NULL THEN raw.lead END AS original_lead_id,
    e.event_type, e.metadata, e.occurred_at, e.received_at
FROM merges m
LEFT JOIN events e ON e.org_unit = m.org_unit AND e.id = m.event_id AND e.deleted_at IS NULL
LEFT JOIN LATERAL (SELECT coalesce(e.original_lead_id, e.lead_id) AS lead) raw ON true
LEFT JOIN lead_redirects r ON r.org_unit = m.org_unit AND r.from_lead = raw.lead
WHERE m.message_id = $1

-- name: merge_roots
-- The roots of leads as edges, and the version of the org unit's forest they belong to: one row at least.
SELECT v.version, r.from_lead AS source_lead, r.to_lead AS target_lead, '{}'::text[] AS named
FROM (SELECT coalesce(max(id), 0) AS version FROM merges WHERE org_unit = $1) v
LEFT JOIN lead_redirects r ON r.org_unit = $1 AND r.from_lead = ANY ($2::text[])

-- name: merge_edges
-- All edges of the classes of leads, and the version of the org unit's forest they belong to: one row at least.
SELECT v.version, e.source_lead, e.target_lead, e.named
FROM (SELECT coalesce(max(id), 0) AS version FROM merges WHERE org_unit = $1) v
LEFT JOIN merge_edges e ON e.org_unit = $1 AND e.removed_by IS NULL AND e.source_lead IN (
    SELECT unnest(lead_class($1, coalesce(r.to_lead, lead)))
    FROM unnest($2::text[]) AS lead LEFT JOIN lead_redirects r ON r.org_unit = $1 AND r.from_lead = lead)

-- name: record_merge
SELECT record_merge($1, $2, $3, $4)

-- name: count_rows
SELECT count_rows($1, $2, $3, NULL)

-- name: record_merge_event
SELECT record_merge_event($1, $2, $3)

-- name: move_events
SELECT move_events($1)
