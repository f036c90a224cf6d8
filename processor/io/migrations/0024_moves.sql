-- compatible: 5
-- One chunk of one move: rows in the order of events_by_lead from where the last chunk ended.  How many it looked at, the last one,
-- and those that are to go elsewhere, with the root of the raw lead of each.
CREATE FUNCTION look_at_move(
    p_move lead_moves, p_limit bigint, OUT seen bigint, OUT last_time timestamptz, OUT last_id text, OUT ids text[], OUT roots text[])
LANGUAGE sql STABLE AS $$
    WITH chunk AS MATERIALIZED (
        SELECT id, occurred_at, coalesce(original_lead_id, lead_id) AS raw FROM events
        WHERE org_unit = p_move.org_unit AND lead_id = p_move.from_lead
            AND (occurred_at, id) > (p_move.seen_time, p_move.seen_id)
        ORDER BY occurred_at, id LIMIT p_limit
    ), due AS MATERIALIZED (
        SELECT c.id, coalesce((
            SELECT r.to_lead FROM lead_redirects r WHERE r.org_unit = p_move.org_unit AND r.from_lead = c.raw), c.raw) AS root
        FROM chunk c
    ), strays AS (
        SELECT array_agg(id) AS ids, array_agg(root) AS roots FROM due WHERE root <> p_move.from_lead
    )
    SELECT (SELECT count(*) FROM chunk), l.occurred_at, l.id, s.ids, s.roots
    FROM strays s LEFT JOIN (
        SELECT occurred_at, id FROM chunk ORDER BY occurred_at DESC, id DESC LIMIT 1) l ON true
$$;

-- As before (0006_counts.sql), but the rows of all moves that a call looks at are locked at once, in the order of their ids: of chunks
-- locked one after the other, a later one may have ids that come before those of an earlier one, and a delete or purge that waits
-- for the one while it holds the other is a deadlock.  The settings make it look at the rows of its chunks alone, by index, however
-- old the statistics are.  move_chunk stays, for calls that have begun.
CREATE OR REPLACE FUNCTION move_events(p_limit bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_org   text;
    v_move  lead_moves;
    v_left  bigint := p_limit;
    v_moved bigint;
    v_chunk record;
    v_ids   text[] := '{}';
    v_roots text[] := '{}';
BEGIN
    SELECT org_unit INTO v_org FROM lead_moves ORDER BY seen, id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF v_org IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock_shared(7703, merge_mutex(v_org));
    FOR v_move IN SELECT * FROM lead_moves WHERE org_unit = v_org ORDER BY seen, id FOR UPDATE SKIP LOCKED LOOP
        SELECT * INTO v_chunk FROM look_at_move(v_move, v_left);
        v_ids := v_ids || v_chunk.ids;
        v_roots := v_roots || v_chunk.roots;
        IF v_chunk.seen < v_left THEN
            DELETE FROM lead_moves WHERE id = v_move.id;
        ELSE
            UPDATE lead_moves SET seen = v_move.seen + v_chunk.seen, seen_time = v_chunk.last_time, seen_id = v_chunk.last_id
            WHERE id = v_move.id;
        END IF;
        v_left := v_left - v_chunk.seen;
        EXIT WHEN v_left <= 0;
    END LOOP;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    WITH strays AS MATERIALIZED (
        SELECT e.id, d.root FROM unnest(v_ids, v_roots) AS d (id, root) JOIN events e ON e.org_unit = v_org AND e.id = d.id
        WHERE e.lead_id <> d.root  -- another worker may have moved it meanwhile
        ORDER BY e.id FOR UPDATE OF e  -- the same order as in every other call, in deletes and purges
    )
    UPDATE events e SET lead_id = s.root, original_lead_id = nullif(coalesce(e.original_lead_id, e.lead_id), s.root)
    FROM strays s WHERE e.org_unit = v_org AND e.id = s.id;
    GET DIAGNOSTICS v_moved = ROW_COUNT;
    RETURN v_moved;
END $$;
