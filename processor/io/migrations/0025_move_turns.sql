-- compatible: 5
-- When moves of an org unit were looked at last: whose turn it is.
CREATE TABLE move_turns (
    org_unit text COLLATE "C" PRIMARY KEY,
    served   timestamptz NOT NULL
);

-- As before (0006_counts.sql), but the rows of all moves that a call looks at are locked at once, in the order of their ids: of chunks
-- locked one after the other, a later one may have ids that come before those of an earlier one, and a delete or purge that waits
-- for the one while it holds the other is a deadlock.  And org units take turns: the one whose moves were looked at longest ago is
-- next.  Before, small moves came first whosever they were, and a large one stood still for as long as others kept merging.  The turn
-- is noted last: whoever serves the same org unit at the same time waits for nothing but the commit.
--
-- The settings make it look at the rows of its chunks alone, by index, however old the statistics are.  move_chunk stays, for calls
-- that have begun.
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
    FOR v_org IN
        SELECT o.org_unit FROM (SELECT DISTINCT org_unit FROM lead_moves) o
        ORDER BY (SELECT t.served FROM move_turns t WHERE t.org_unit = o.org_unit) NULLS FIRST, o.org_unit
    LOOP
        SELECT * INTO v_move FROM lead_moves WHERE org_unit = v_org LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN FOUND;  -- else other workers have all of them
    END LOOP;
    IF v_move.id IS NULL THEN
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
    INSERT INTO move_turns AS t (org_unit, served) VALUES (v_org, clock_timestamp())
    ON CONFLICT (org_unit) DO UPDATE SET served = greatest(t.served, excluded.served);
    RETURN v_moved;
END $$;
