-- ---------------------------------------------------------------------------------------------------------------------
-- `processor purge` (purge.py).  Counts follow by the triggers of the table.

-- name: purge_begins
-- What a purge has to know; `hidden`: row-level security holds for this user.
SELECT date_trunc('milliseconds', clock_timestamp()) AS now, row_security_active('events') AS hidden, w.org_unit, w.id, w.window_ms
FROM (VALUES (1)) AS one
LEFT JOIN (
    SELECT org_unit, id, window_ms FROM filters WHERE kind = 'velocity' AND NOT deleted
    ORDER BY window_ms DESC, org_unit, id LIMIT 1) w ON true

-- name: purge_org_units
-- Of whatever a purge may remove: an org unit without events may have rows that a run before did not come to.  One look into each
-- index for each.
WITH RECURSIVE units AS (
    SELECT ''::text COLLATE "C" AS org_unit
    UNION ALL
    SELECT least(
        (SELECT min(o.org_unit) FROM events o WHERE o.org_unit > u.org_unit),
        (SELECT min(o.org_unit) FROM merge_requests o WHERE o.org_unit > u.org_unit),
        (SELECT min(o.org_unit) FROM event_counts o WHERE o.org_unit > u.org_unit),
        (SELECT min(o.org_unit) FROM suppression_counts o WHERE o.org_unit > u.org_unit),
        (SELECT min(o.org_unit) FROM lead_surges o WHERE o.org_unit > u.org_unit))
    FROM units u WHERE u.org_unit IS NOT NULL
)
SELECT org_unit FROM units WHERE org_unit <> ''

-- name: purge_holds_merges
-- Until the transaction ends no merge of the org unit begins: what it counts must be there.  Ingest does not take this lock.
SELECT pg_advisory_xact_lock_shared(7703, merge_mutex($1))

-- name: purge_counts_merge
-- Whether rows are being counted for the event of a large merge.
SELECT EXISTS (SELECT FROM merges WHERE org_unit = $1 AND counting IS NOT NULL)

-- name: purge_events
-- One step: events that occurred and were received before $2, in the order of events_by_time after ($3, $4), $5 at most.  Those
-- that Kafka still holds stay: of topic $6, in partitions $7, from offsets $8 to before $9.  An id that goes is free for the engagement
-- service too, and one that stays is known to it: it counts no event twice.
WITH chunk AS MATERIALIZED (
    SELECT id, occurred_at FROM events
    WHERE org_unit = $1 AND deleted_at IS NULL AND occurred_at < $2::timestamptz
        AND (occurred_at, id) > (coalesce($3::timestamptz, '-infinity'), $4::text)
    ORDER BY occurred_at, id LIMIT $5
), aged AS MATERIALIZED (
    SELECT e.id, EXISTS (
        SELECT FROM unnest($7::integer[], $8::bigint[], $9::bigint[]) AS held (partition, first, before)
        WHERE e.source_topic = $6 AND e.source_partition = held.partition
            AND e.source_offset >= held.first AND e.source_offset < held.before) AS held
    FROM chunk c JOIN events e ON e.org_unit = $1 AND e.id = c.id WHERE e.received_at < $2::timestamptz
), old AS MATERIALIZED (
    SELECT e.id FROM aged a JOIN events e ON e.org_unit = $1 AND e.id = a.id WHERE NOT a.held
    ORDER BY e.id FOR UPDATE OF e  -- in the order of moves and deletes: no deadlock
), gone AS (
    DELETE FROM events e USING old o WHERE e.org_unit = $1 AND e.id = o.id RETURNING e.id
), engaged AS (
    DELETE FROM engaged_events g USING old o WHERE g.org_unit = $1 AND g.id = o.id
)
SELECT (SELECT count(*) FROM chunk) AS seen, (SELECT count(*) FROM aged WHERE held) AS kept, (SELECT count(*) FROM gone) AS gone, '' AS event_type, l.occurred_at, l.id
FROM (VALUES (1)) AS one
LEFT JOIN (SELECT occurred_at, id FROM chunk ORDER BY occurred_at DESC, id DESC LIMIT 1) l ON true

-- name: purge_tombstones
-- As purge_events, of what was deleted: in the order of events_deleted_by_time, after ($10, $3, $4).
WITH chunk AS MATERIALIZED (
    SELECT id, event_type, occurred_at FROM events
    WHERE org_unit = $1 AND deleted_at IS NOT NULL AND occurred_at < $2::timestamptz
        AND (event_type, occurred_at) >= ($10::text, coalesce($3::timestamptz, '-infinity'))
        AND (event_type, occurred_at, id) > ($10::text, coalesce($3::timestamptz, '-infinity'), $4::text)
    ORDER BY event_type, occurred_at, id LIMIT $5
), aged AS MATERIALIZED (
    SELECT e.id, EXISTS (
        SELECT FROM unnest($7::integer[], $8::bigint[], $9::bigint[]) AS held (partition, first, before)
        WHERE e.source_topic = $6 AND e.source_partition = held.partition
            AND e.source_offset >= held.first AND e.source_offset < held.before) AS held
    FROM chunk c JOIN events e ON e.org_unit = $1 AND e.id = c.id WHERE e.received_at < $2::timestamptz
), old AS MATERIALIZED (
    SELECT e.id FROM aged a JOIN events e ON e.org_unit = $1 AND e.id = a.id WHERE NOT a.held
    ORDER BY e.id FOR UPDATE OF e
), gone AS (
    DELETE FROM events e USING old o WHERE e.org_unit = $1 AND e.id = o.id RETURNING e.id
), engaged AS (
    DELETE FROM engaged_events g USING old o WHERE g.org_unit = $1 AND g.id = o.id
)
SELECT (SELECT count(*) FROM chunk) AS seen, (SELECT count(*) FROM aged WHERE held) AS kept, (SELECT count(*) FROM gone) AS gone, l.event_type, l.occurred_at, l.id
FROM (VALUES (1)) AS one
LEFT JOIN (
    SELECT event_type, occurred_at, id FROM chunk ORDER BY event_type DESC, occurred_at DESC, id DESC LIMIT 1) l ON true

-- name: purge_audited
-- One entry for an org unit and a run: written with its first step, carried on by every other ($1 is its id then).
WITH known AS (
    UPDATE audit_log SET subject = $4 || ' events', details = $5 WHERE id = $1 RETURNING id
), begun AS (
    INSERT INTO audit_log (org_unit, at, actor, action, subject, details)
    SELECT $2, date_trunc('milliseconds', clock_timestamp()), $3, 'event.purge', $4 || ' events', $5
    WHERE $1::bigint IS NULL RETURNING id
)
SELECT id FROM known UNION ALL SELECT id FROM begun

-- name: purge_holds_counts
-- Nobody folds counts until the transaction ends: it is to be a short one.
SELECT pg_advisory_xact_lock(7704, 0)

-- name: purge_tries
-- Roots before $2 of tries that seem to hold nothing any more; leads with tries are those of counted_leads, and every lead together.
SELECT c.lead_id, c.slot
FROM (SELECT '' AS lead UNION ALL SELECT lead_id FROM counted_leads WHERE org_unit = $1) l
JOIN event_counts c ON c.org_unit = $1 AND c.lead_id = l.lead AND c.event_type = '' AND c.level = 8
    AND c.slot < slot_of($2::timestamptz) >> 24
WHERE c.organic = 0 AND c.inorganic = 0 AND c.inorganic_grouped = 0 AND c.metadata_filter = 0
ORDER BY c.lead_id, c.slot

-- name: purge_trie
-- One step: $4 rows at most of the trie of lead $2 with root $3, where all of it is nought.  From the leaves up, and of a node the row
-- of every type last: what is left is a trie at any time, in which absent is as good as nought.
WITH RECURSIVE types AS (
    SELECT ''::text COLLATE "C" AS type
    UNION ALL
    SELECT (SELECT min(c.event_type) FROM event_counts c WHERE c.org_unit = $1 AND c.lead_id = $2 AND c.event_type > t.type)
    FROM types t WHERE t.type IS NOT NULL
), trie AS MATERIALIZED (
    SELECT c.event_type, c.level, c.slot,
        c.organic = 0 AND c.inorganic = 0 AND c.inorganic_grouped = 0 AND c.metadata_filter = 0 AS nought
    FROM types t JOIN event_counts c ON c.org_unit = $1 AND c.lead_id = $2 AND c.event_type = t.type
        AND c.slot << 3 * c.level >= $3::bigint << 24 AND c.slot << 3 * c.level < $3::bigint + 1 << 24
), lowest AS MATERIALIZED (
    SELECT event_type, level, slot FROM trie WHERE (SELECT bool_and(nought) FROM trie) ORDER BY level, event_type DESC LIMIT $4
)
DELETE FROM event_counts c USING lowest x
WHERE c.org_unit = $1 AND c.lead_id = $2 AND c.event_type = x.event_type AND c.level = x.level AND c.slot = x.slot

-- name: purge_hours
DELETE FROM suppression_counts c USING (
    SELECT hour, event_type, reason, filter_id FROM suppression_counts
    WHERE org_unit = $1 AND hour < floor(event_ms($2::timestamptz) / 3600000.0)::bigint AND count = 0 LIMIT $3) x
WHERE c.org_unit = $1 AND c.hour = x.hour AND c.event_type = x.event_type AND c.reason = x.reason AND c.filter_id = x.filter_id

-- name: purge_requests
-- What the API was asked for: the log of merges tells of it as well.
DELETE FROM merge_requests q USING (
    SELECT r.message_id FROM merge_requests r
    WHERE r.org_unit = $1 AND r.requested_at < $2::timestamptz AND EXISTS (SELECT FROM merges m WHERE m.message_id = r.message_id)
    LIMIT $3) x
WHERE q.org_unit = $1 AND q.message_id = x.message_id

-- name: purge_surges
DELETE FROM lead_surges s USING (
    SELECT lead_id, at FROM lead_surges WHERE org_unit = $1 AND at < $2::timestamptz LIMIT $3) x
WHERE s.org_unit = $1 AND s.lead_id = x.lead_id AND s.at = x.at
