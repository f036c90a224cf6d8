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
