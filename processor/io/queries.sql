-- ---------------------------------------------------------------------------------------------------------------------
-- Events (store.py)

-- name: record
SELECT * FROM record_rulings($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
    $15::text::bigint[], $16::text::bigint[], $17::text::bigint[], $18::text::bigint[], $19::text::bigint[], $20::text::boolean[])

-- name: lane_place
SELECT owner, topic_identity, next_offset, last_offset, last_digest FROM lane_places
WHERE consumer_group = $1 AND topic = $2 AND partition = $3

-- name: take_lane_place
-- $9: who had it before; nothing where another lane has begun there meanwhile.
INSERT INTO lane_places (consumer_group, topic, partition, owner, topic_identity, next_offset, last_offset, last_digest)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET owner = excluded.owner, topic_identity = excluded.topic_identity,
    next_offset = excluded.next_offset, last_offset = excluded.last_offset, last_digest = excluded.last_digest
WHERE lane_places.owner = $9
RETURNING owner

-- name: keep_lane_places
UPDATE lane_places l SET topic_identity = identity, next_offset = next, last_offset = last, last_digest = digest
FROM unnest($2::text[], $3::integer[], $4::text[], $5::bytea[], $6::bigint[], $7::bigint[], $8::bytea[])
    AS p (topic, partition, owner, identity, next, last, digest)
WHERE l.consumer_group = $1 AND l.topic = p.topic AND l.partition = p.partition AND l.owner = p.owner

-- name: newest_event
-- The newest event time any lane has committed, ms.
SELECT max(newest) FROM lanes

-- name: window_generations
-- Which generation of windows may go on in each of these shards; a Redis with other shards is left for good.
WITH others AS (DELETE FROM window_generations WHERE shard <> ALL ($1::text[]))
SELECT shard, generation FROM window_generations WHERE shard = ANY ($1::text[])

-- name: windows_begun
INSERT INTO window_generations (shard, generation)
SELECT shard, generation FROM unnest($1::text[], $2::text[]) AS u (shard, generation) ORDER BY shard COLLATE "C"
ON CONFLICT (shard) DO UPDATE SET generation = excluded.generation

-- name: by_keys
-- Until the transaction ends: rows are found key by key, however old the statistics are, or the plan that is kept.
SELECT set_config(name, 'off', true)
FROM unnest(ARRAY['enable_seqscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_bitmapscan']) AS name

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
    enabled, version, window_revision, newest, deleted, greatest(weight, octet_length(conditions::text)) AS weight
FROM filters WHERE org_unit = ANY ($1::text[])

-- name: filters_now
-- The filters of an org unit, or of all where it is null.
SELECT org_unit, id, kind, name, event_type, threshold, window_ms, keep_first, conditions::text AS conditions,
    enabled, version, window_revision, newest, deleted, greatest(weight, octet_length(conditions::text)) AS weight
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
        newest bigint, deleted boolean, definition json, weight integer
    )
), history AS (
    INSERT INTO filter_versions (org_unit, id, version, kind, definition, revision, changed_at, changed_by)
    SELECT org_unit, id, version, kind, definition, revision, changed_at, $2 FROM changed
)
INSERT INTO filters (
    org_unit, id, kind, name, event_type, threshold, window_ms, keep_first, conditions, enabled, version, revision,
    window_revision, newest, deleted, weight, changed_at, changed_by
)
SELECT org_unit, id, kind, name, event_type, threshold, window_ms, keep_first, conditions, enabled, version, revision,
    window_revision, newest, deleted, weight, changed_at, $2
FROM changed
ON CONFLICT (org_unit, id) DO UPDATE SET
    kind = EXCLUDED.kind, name = EXCLUDED.name, event_type = EXCLUDED.event_type, threshold = EXCLUDED.threshold,
    window_ms = EXCLUDED.window_ms, keep_first = EXCLUDED.keep_first, conditions = EXCLUDED.conditions,
    enabled = EXCLUDED.enabled, version = EXCLUDED.version, revision = EXCLUDED.revision,
    window_revision = EXCLUDED.window_revision, newest = EXCLUDED.newest, deleted = EXCLUDED.deleted,
    weight = EXCLUDED.weight, changed_at = EXCLUDED.changed_at, changed_by = EXCLUDED.changed_by

-- name: conditions_together
-- Of the filters of org units that are not deleted: bytes of their conditions, as they were written and in a worker.
SELECT org_unit, sum(octet_length(conditions::text)) AS bytes,
    sum(greatest(weight, octet_length(conditions::text))) AS weight
FROM filters WHERE org_unit = ANY ($1::text[]) AND NOT deleted AND conditions IS NOT NULL GROUP BY org_unit

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
-- All edges of the classes of leads, and the version of the org unit's forest they belong to: one row at least.  Each class is looked
-- up once, however many leads of it are named.
SELECT v.version, e.source_lead, e.target_lead, e.named
FROM (SELECT coalesce(max(id), 0) AS version FROM merges WHERE org_unit = $1) v
LEFT JOIN merge_edges e ON e.org_unit = $1 AND e.removed_by IS NULL AND e.source_lead IN (
    SELECT unnest(lead_class($1, root)) FROM (
        SELECT DISTINCT coalesce(r.to_lead, lead) AS root
        FROM unnest($2::text[]) AS lead LEFT JOIN lead_redirects r ON r.org_unit = $1 AND r.from_lead = lead) roots)

-- name: record_merge
SELECT record_merge($1, $2, $3, $4)

-- name: count_rows
SELECT count_rows($1, $2, $3, $4)

-- name: record_merge_event
SELECT record_merge_event($1, $2, $3)

-- name: move_events
SELECT move_events($1)
