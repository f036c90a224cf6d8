-- compatible: 5
-- Folds up to p_limit changes, the oldest of those up to p_last, of all org units together, and no more than some 500,000 events of
-- them.  As before, for a fraction of the work: a node is looked up by everything that both indexes of event_counts begin with, since
-- which of them a plan takes is anyone's guess while tables are small, and one of them names the level last; what is of no lead is not
-- looked for among counted leads; and nothing is sorted to be grouped.  How many changes there were; null where there are none, or
-- another worker is at it.
CREATE OR REPLACE FUNCTION fold_counts(p_limit bigint, p_last bigint DEFAULT 9223372036854775807) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off
SET enable_sort = off AS $$
-- Counts are looked up one by one: a plan that was made while there were few of them would compare each change with each count.
DECLARE
    v_changes bigint;
    v_orgs    text[];
    v_leads   text[];
    v_types   text[];
    v_reasons smallint[];
    v_slots   bigint[];
    v_counts  bigint[];
    v_dense   record;
    v_split   record;
    v_in      text[] := '{}';
    v_of      text[] := '{}';
    v_levels  integer[] := '{}';
    v_nodes   bigint[] := '{}';
BEGIN
    IF NOT pg_try_advisory_xact_lock(7704, 0) THEN
        RETURN NULL;
    END IF;
    WITH gone AS (
        DELETE FROM event_count_changes WHERE id IN (
            SELECT id FROM (
                SELECT id, sum(cardinality(slots)) OVER (ORDER BY id) - cardinality(slots) AS before FROM (
                    SELECT id, slots FROM event_count_changes WHERE id <= p_last ORDER BY id LIMIT p_limit) oldest
            ) x
            WHERE before < 500000)
        RETURNING *
    ), entries AS MATERIALIZED (
        SELECT org_unit AS org, moved, u.lead, u.type, u.reason, u.filter_id, u.slot, sum(u.n)::bigint AS n
        FROM gone CROSS JOIN LATERAL unnest(leads, event_types, reasons, filter_ids, slots, counts)
            AS u (lead, type, reason, filter_id, slot, n)
        GROUP BY 1, 2, 3, 4, 5, 6, 7
    ), hours AS (
        INSERT INTO suppression_counts AS s (org_unit, hour, event_type, reason, filter_id, count)
        SELECT org, (slot - (slot % 28125 + 28125) % 28125) / 28125, type, reason, filter_id, sum(n)  -- an hour has 28,125 slots
        FROM entries WHERE NOT moved
        GROUP BY 1, 2, 3, 4, 5
        ON CONFLICT (org_unit, hour, event_type, reason, filter_id) DO UPDATE SET count = s.count + excluded.count
    ), tries AS (
        SELECT org, ''::text COLLATE "C" AS lead, type, reason, slot, n FROM entries WHERE NOT moved
        UNION ALL
        SELECT org, lead, type, reason, slot, n FROM entries JOIN counted_leads l ON l.org_unit = org AND l.lead_id = lead AND l.ready
        WHERE lead <> ''
    ), grouped AS (
        SELECT org, lead, type, reason, slot >> 24 AS head, array_agg(slot) AS slots, array_agg(n) AS counts FROM tries GROUP BY 1, 2, 3, 4, 5
    ), coarse AS (  -- slots that no leaf tells apart need not be either: a backfill has as many slots as events
        SELECT g.org, g.lead, g.type, g.reason, u.slot >> 3 * r.lowest << 3 * r.lowest AS slot, sum(u.n)::bigint AS n
        FROM grouped g
        CROSS JOIN LATERAL (
            SELECT coalesce((
                SELECT c.lowest FROM event_counts c
                WHERE c.org_unit = g.org AND c.lead_id = g.lead AND c.event_type = '' AND c.level = 8 AND c.slot = g.head
                    AND c.slot << 3 * c.level = g.head << 24), 8) AS lowest
            OFFSET 0
        ) r
        CROSS JOIN LATERAL unnest(g.slots, g.counts) AS u (slot, n)
        GROUP BY 1, 2, 3, 4, 5
    )
    SELECT (SELECT count(*) FROM gone), array_agg(org), array_agg(lead), array_agg(type), array_agg(reason), array_agg(slot), array_agg(n)
    INTO v_changes, v_orgs, v_leads, v_types, v_reasons, v_slots, v_counts FROM coarse;

    FOR v_level IN REVERSE 8..0 LOOP
        -- Of what is left, each level keeps what lies under a node that was split before.
        IF v_level < 8 THEN
            SELECT array_agg(org), array_agg(lead), array_agg(type), array_agg(reason), array_agg(u.slot), array_agg(n)
            INTO v_orgs, v_leads, v_types, v_reasons, v_slots, v_counts
            FROM unnest(v_orgs, v_leads, v_types, v_reasons, v_slots, v_counts) AS u (org, lead, type, reason, slot, n)
            WHERE (
                SELECT c.split FROM event_counts c
                WHERE c.org_unit = org AND c.lead_id = lead AND c.event_type = '' AND c.level = v_level + 1
                    AND c.slot = u.slot >> 3 * v_level + 3
                    AND c.slot << 3 * c.level = u.slot >> 3 * v_level + 3 << 3 * v_level + 3);
        END IF;
        EXIT WHEN v_slots IS NULL;
        WITH written AS (
            INSERT INTO event_counts AS c (
                org_unit, lead_id, event_type, level, slot, organic, inorganic, inorganic_grouped, metadata_filter)
            SELECT u.org, u.lead, t.type, v_level, u.slot >> 3 * v_level,
                coalesce(sum(n) FILTER (WHERE reason = 0), 0), coalesce(sum(n) FILTER (WHERE reason = 1), 0),
                coalesce(sum(n) FILTER (WHERE reason = 2), 0), coalesce(sum(n) FILTER (WHERE reason = 3), 0)
            FROM unnest(v_orgs, v_leads, v_types, v_reasons, v_slots, v_counts) AS u (org, lead, type, reason, slot, n)
            CROSS JOIN LATERAL (VALUES (u.type), ('')) AS t (type)
            GROUP BY 1, 2, 3, 5
            ON CONFLICT (org_unit, lead_id, event_type, level, slot) DO UPDATE SET
                organic = c.organic + excluded.organic, inorganic = c.inorganic + excluded.inorganic,
                inorganic_grouped = c.inorganic_grouped + excluded.inorganic_grouped,
                metadata_filter = c.metadata_filter + excluded.metadata_filter
            RETURNING c.org_unit, c.lead_id, c.event_type, c.slot, c.split, chosen(c, 15) AS held
        )
        SELECT array_agg(org_unit) AS orgs, array_agg(lead_id) AS leads, array_agg(slot) AS slots INTO v_dense
        FROM written WHERE event_type = '' AND NOT split AND held > 2048;
        IF v_level > 0 AND v_dense.slots IS NOT NULL THEN
            v_in := v_in || v_dense.orgs;
            v_of := v_of || v_dense.leads;
            v_nodes := v_nodes || v_dense.slots;
            v_levels := v_levels || array_fill(v_level, ARRAY[cardinality(v_dense.slots)]);
        END IF;
    END LOOP;
    PERFORM split_node(org, lead, level, slot) FROM unnest(v_in, v_of, v_levels, v_nodes) AS u (org, lead, level, slot);
    FOR v_split IN SELECT DISTINCT org, lead FROM unnest(v_in, v_of) AS u (org, lead) LOOP
        PERFORM split_counts(v_split.org, v_split.lead);  -- children may hold too much already
    END LOOP;
    RETURN nullif(v_changes, 0);
END $$;
