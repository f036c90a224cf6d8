-- The rows of a raw lead, wherever they stand: those under its own name, and these.
CREATE INDEX events_by_original ON events (org_unit, original_lead_id) WHERE original_lead_id IS NOT NULL;

-- Excludes ingest from every lead of the classes of some roots until commit.  Ascending, as ingest takes them, and within 0.9 s
-- in all: while it waits for one bucket, ingest waits for the buckets it has.
CREATE FUNCTION lock_classes(p_org text, p_roots text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET lock_timeout = '900ms' AS $$
DECLARE
    v_bucket   integer;
    v_deadline timestamptz := clock_timestamp() + interval '900 ms';
BEGIN
    FOR v_bucket IN
        SELECT DISTINCT lead_bucket(p_org, lead)
        FROM unnest(p_roots) AS root CROSS JOIN LATERAL unnest(lead_class(p_org, root)) AS lead ORDER BY 1
    LOOP
        PERFORM set_config('lock_timeout', greatest(
            1, 1000 * extract(epoch FROM v_deadline - clock_timestamp()))::integer || 'ms', true);
        PERFORM pg_advisory_xact_lock(7702, v_bucket);
    END LOOP;
END $$;

-- How many rows of these raw leads were recorded before a batch, wherever they stand; stops at the limit (null: none).
-- Rows with an original lead come first: the second part passes over no more rows than those.
CREATE FUNCTION count_rows(p_org text, p_leads text[], p_batch bigint, p_limit bigint) RETURNS bigint
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    SELECT count(*) FROM (
        SELECT FROM events
        WHERE org_unit = p_org AND original_lead_id = ANY (p_leads) AND batch < p_batch
        UNION ALL
        SELECT FROM events
        WHERE org_unit = p_org AND lead_id = ANY (p_leads) AND original_lead_id IS NULL AND batch < p_batch
        LIMIT p_limit
    ) x
$$;

-- Puts the event of a merge on its survivor's timeline, once: its count becomes known here.  The command's event_id is left out
-- of the log where another event has that id.  The merge mutex keeps the survivor's root still.
CREATE FUNCTION record_merge_event(p_merge bigint, p_command jsonb, p_moved bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_merge  merges;
    v_stored bigint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7703, merge_mutex(p_command ->> 'org_unit'));
    SELECT * INTO STRICT v_merge FROM merges WHERE id = p_merge FOR UPDATE;
    IF v_merge.counting IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO events (
        org_unit, id, lead_id, original_lead_id, event_type, metadata, occurred_at, received_at,
        source_topic, source_partition, source_offset, source_timestamp, batch, rules, counted)
    SELECT v_merge.org_unit, v_merge.message_id, coalesce(r.to_lead, raw), CASE WHEN r.to_lead IS NOT NULL THEN raw END,
        CASE v_merge.kind WHEN 'merge' THEN 'Lead Merged' ELSE 'Lead Unmerged' END,
        jsonb_build_object(
            'source_lead_ids', v_merge.merged_lead_ids, 'events_moved', p_moved, 'requested_by', v_merge.requested_by),
        ms_event((p_command ->> 'occurred_at')::bigint), date_trunc('milliseconds', clock_timestamp()),
        p_command ->> 'topic', (p_command ->> 'partition')::integer, (p_command ->> 'offset')::bigint,
        (p_command ->> 'timestamp')::bigint, nextval('batches'), (SELECT revision FROM rule_state), false
    FROM (VALUES (v_merge.survivor_lead_id)) AS survivor (raw)
    LEFT JOIN lead_redirects r ON r.org_unit = v_merge.org_unit AND r.from_lead = raw
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_stored = ROW_COUNT;
    UPDATE merges SET
        counting = NULL, events_moved = p_moved, event_id = CASE WHEN v_stored = 1 THEN message_id END
    WHERE id = p_merge;
END $$;

CREATE FUNCTION ask_for_moves(p_org text, p_merge bigint, p_leads text[]) RETURNS void
LANGUAGE sql VOLATILE AS $$
    INSERT INTO lead_moves (org_unit, from_lead, merge_id)
    SELECT p_org, lead, p_merge FROM unnest(p_leads) AS lead
    WHERE EXISTS (SELECT FROM events e WHERE e.org_unit = p_org AND e.lead_id = lead)
$$;

-- Joins roots to the survivor: {root: [the sources that named it]}.  Rows of a root are moved later; those of its aliases
-- that have not reached it yet have their moves already.
CREATE FUNCTION join_roots(p_org text, p_merge bigint, p_survivor text, p_joined jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_roots text[] := ARRAY(SELECT jsonb_object_keys(p_joined));
BEGIN
    UPDATE lead_redirects SET to_lead = p_survivor WHERE org_unit = p_org AND to_lead = ANY (v_roots);
    INSERT INTO lead_redirects (org_unit, from_lead, to_lead) SELECT p_org, root, p_survivor FROM unnest(v_roots) AS root;
    INSERT INTO merge_edges (org_unit, source_lead, target_lead, merge_id, named)
    SELECT p_org, root, p_survivor, p_merge, ARRAY(SELECT jsonb_array_elements_text(named))
    FROM jsonb_each(p_joined) AS j (root, named);
    PERFORM ask_for_moves(p_org, p_merge, v_roots);
END $$;

-- Makes roots again of leads of the survivor's class: {root: [its whole class]}.  Their rows stand under the survivor; those
-- that have not reached it yet have their moves already.
CREATE FUNCTION part_roots(p_org text, p_merge bigint, p_survivor text, p_parted jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_roots text[] := ARRAY(SELECT jsonb_object_keys(p_parted));
BEGIN
    UPDATE merge_edges SET removed_by = p_merge
    WHERE org_unit = p_org AND source_lead = ANY (v_roots) AND removed_by IS NULL;
    DELETE FROM lead_redirects WHERE org_unit = p_org AND from_lead = ANY (v_roots);
    UPDATE lead_redirects r SET to_lead = p.root
    FROM jsonb_each(p_parted) AS p (root, leads) CROSS JOIN LATERAL jsonb_array_elements_text(leads) AS lead
    WHERE r.org_unit = p_org AND r.from_lead = lead;
    PERFORM ask_for_moves(p_org, p_merge, ARRAY[p_survivor]);
END $$;

-- record_merge writes what a merge or unmerge changes: everything or nothing, in one call, so that a suspended worker holds no
-- lock.  It returns false, and does nothing, where the message is recorded already or the org unit's forest is no longer the
-- version that was decided on.
--   p_command  {message_id, org_unit, kind, target, sources, requested_by, occurred_at, topic, partition, offset, timestamp}
--   p_change   {survivor, named: [sources], joined: {root: [names]}, parted: {root: [leads]}}; nothing named: a no-op
-- Classes of up to p_countable rows are counted and the event is stored at once; larger ones are counted afterwards, since ingest
-- of these leads waits meanwhile: batches are numbered under the bucket locks, so the rows that were there have smaller numbers.
CREATE FUNCTION record_merge(p_version bigint, p_command jsonb, p_change jsonb, p_countable bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_org      text := p_command ->> 'org_unit';
    v_kind     text := p_command ->> 'kind';
    v_survivor text := p_change ->> 'survivor';
    v_leads    text[];
    v_merge    bigint;
    v_batch    bigint;
    v_moved    bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(7703, merge_mutex(v_org));
    IF p_version <> (SELECT coalesce(max(id), 0) FROM merges WHERE org_unit = v_org)
        OR EXISTS (SELECT FROM merges WHERE message_id = p_command ->> 'message_id') THEN
        RETURN false;
    END IF;
    IF p_change -> 'named' <> '[]' THEN
        PERFORM lock_classes(v_org, ARRAY(SELECT jsonb_object_keys(p_change -> 'joined')) || v_survivor);
        v_leads := ARRAY(
            SELECT unnest(lead_class(v_org, root)) FROM jsonb_object_keys(p_change -> 'joined') AS root
            UNION ALL
            SELECT jsonb_array_elements_text(leads) FROM jsonb_each(p_change -> 'parted') AS p (root, leads));
    END IF;
    v_batch := nextval('batches');
    INSERT INTO merges (
        org_unit, message_id, kind, target_lead_id, source_lead_ids, requested_by, survivor_lead_id, merged_lead_ids,
        batch, counting, committed_at)
    VALUES (
        v_org, p_command ->> 'message_id', v_kind, p_command ->> 'target',
        ARRAY(SELECT jsonb_array_elements_text(p_command -> 'sources')), p_command ->> 'requested_by', v_survivor,
        ARRAY(SELECT jsonb_array_elements_text(p_change -> 'named')),
        v_batch, v_leads, date_trunc('milliseconds', clock_timestamp()))
    RETURNING id INTO v_merge;
    IF v_leads IS NULL THEN
        RETURN true;
    END IF;

    IF v_kind = 'merge' THEN
        PERFORM join_roots(v_org, v_merge, v_survivor, p_change -> 'joined');
    ELSE
        PERFORM part_roots(v_org, v_merge, v_survivor, p_change -> 'parted');
    END IF;
    INSERT INTO lead_epochs AS e (org_unit, lead_id, epoch)
    SELECT v_org, root, v_merge FROM (
        SELECT v_survivor UNION ALL SELECT jsonb_object_keys(p_change -> 'parted')) AS touched (root)
    ON CONFLICT (org_unit, lead_id) DO UPDATE SET epoch = excluded.epoch;
    v_moved := count_rows(v_org, v_leads, v_batch, p_countable + 1);
    IF v_moved <= p_countable THEN
        PERFORM record_merge_event(v_merge, p_command, v_moved);
    END IF;
    RETURN true;
END $$;

-- One chunk of one move: rows in the order of events_by_lead from where the last chunk ended.  How many it looked at, how many
-- it moved, and the last one.  The settings make it look at those rows alone, by index, however old the statistics are.
CREATE FUNCTION move_chunk(
    p_move lead_moves, p_limit bigint,
    OUT seen bigint, OUT moved bigint, OUT last_type text, OUT last_time timestamptz, OUT last_id text)
LANGUAGE sql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    WITH chunk AS MATERIALIZED (
        SELECT id, event_type, occurred_at, coalesce(original_lead_id, lead_id) AS raw FROM events
        WHERE org_unit = p_move.org_unit AND lead_id = p_move.from_lead
            AND (event_type, occurred_at, id) > (p_move.seen_type, p_move.seen_time, p_move.seen_id)
        ORDER BY event_type, occurred_at, id LIMIT p_limit
    ), due AS MATERIALIZED (
        SELECT c.id, c.raw, coalesce((
            SELECT r.to_lead FROM lead_redirects r WHERE r.org_unit = p_move.org_unit AND r.from_lead = c.raw), c.raw) AS root
        FROM chunk c
    ), strays AS MATERIALIZED (
        SELECT d.* FROM due d JOIN events e ON e.org_unit = p_move.org_unit AND e.id = d.id
        WHERE e.lead_id <> d.root  -- nothing on from_lead: the rows are to be found by their ids
        ORDER BY e.id FOR UPDATE OF e  -- the same order as in every other chunk and in deletes: no deadlock
    ), moved AS (
        UPDATE events e SET lead_id = s.root, original_lead_id = nullif(s.raw, s.root) FROM strays s
        WHERE e.org_unit = p_move.org_unit AND e.id = s.id
        RETURNING e.id
    )
    SELECT (SELECT count(*) FROM chunk), (SELECT count(*) FROM moved), l.event_type, l.occurred_at, l.id
    FROM (VALUES (1)) AS one LEFT JOIN (
        SELECT event_type, occurred_at, id FROM chunk ORDER BY event_type DESC, occurred_at DESC, id DESC LIMIT 1) l ON true
$$;

-- move_events looks at up to p_limit rows of pending moves of one org unit and sets their lead: the root of their raw lead, as
-- it is now.  One call, one commit.  It returns how many it moved, null where it found nothing to look at.
--
-- The merge mutex, shared, keeps every root of the org unit still from before the statement that reads it until the commit;
-- ingest does not take it and never waits for a move.  A pending move is visible only once its merge is committed, and with it
-- every row the merge left behind; rows recorded later stand under their root.  Should a root change again, that merge asks for a
-- move of its own.
CREATE FUNCTION move_events(p_limit bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_org   text;
    v_move  lead_moves;
    v_left  bigint := p_limit;
    v_moved bigint;
    v_chunk record;
BEGIN
    SELECT org_unit INTO v_org FROM lead_moves ORDER BY seen, id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF v_org IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock_shared(7703, merge_mutex(v_org));
    FOR v_move IN SELECT * FROM lead_moves WHERE org_unit = v_org ORDER BY seen, id FOR UPDATE SKIP LOCKED LOOP
        SELECT * INTO v_chunk FROM move_chunk(v_move, v_left);
        v_moved := coalesce(v_moved, 0) + v_chunk.moved;
        IF v_chunk.seen < v_left THEN
            DELETE FROM lead_moves WHERE id = v_move.id;
        ELSE
            UPDATE lead_moves SET seen = v_move.seen + v_chunk.seen,
                seen_type = v_chunk.last_type, seen_time = v_chunk.last_time, seen_id = v_chunk.last_id
            WHERE id = v_move.id;
        END IF;
        v_left := v_left - v_chunk.seen;
        EXIT WHEN v_left <= 0;
    END LOOP;
    RETURN v_moved;
END $$;
