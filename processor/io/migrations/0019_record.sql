-- compatible: 5
-- What is stored of some ids, each with its place among them.  The settings make it look for them by key, however old the statistics are.
CREATE FUNCTION known_events(p_org text[], p_id text[]) RETURNS TABLE (n bigint, e events)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT u.n, e FROM unnest(p_org, p_id) WITH ORDINALITY AS u (org, id, n) JOIN events e ON e.org_unit = u.org AND e.id = u.id;
END $$;

-- As before (0012_record.sql), but known ids are looked for first, and what is inserted then are new rows alone: an insert that may meet
-- a row writes twice.  Where another lane stores one of the ids in between, it begins again.
CREATE OR REPLACE FUNCTION record_rulings(
    p_topic text, p_partition integer, p_rules bigint, p_newest bigint,
    p_separator text, p_org text, p_id text, p_raw text, p_type text, p_metadata text,
    p_occurred bigint[], p_offset bigint[], p_timestamp bigint[], p_merged json, p_rare json
) RETURNS TABLE (
    ordinal bigint, batch bigint, received_at timestamptz, suppression_reason text, suppressed_by jsonb,
    same_message boolean, deleted boolean
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_org      text[] := string_to_array(p_org, p_separator);
    v_id       text[] := string_to_array(p_id, p_separator);
    v_raw      text[] := string_to_array(p_raw, p_separator);
    v_type     text[] := string_to_array(p_type, p_separator);
    v_metadata text[] := string_to_array(p_metadata, E'\n');  -- compact JSON holds none
    v_bucket   integer;
    v_revision bigint;
    v_wrong    jsonb;
    v_batch    bigint;
    v_now      timestamptz;
    v_known    bigint[];
    v_rows     events[];
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7701, 0);
    FOR v_bucket IN
        SELECT DISTINCT lead_bucket(o, l) FROM unnest(v_org, v_raw) AS u (o, l) ORDER BY 1
    LOOP
        PERFORM pg_advisory_xact_lock_shared(7702, v_bucket);
    END LOOP;

    SELECT revision INTO v_revision FROM rule_state;
    IF v_revision <> p_rules THEN
        RAISE EXCEPTION 'the rules have changed'
            USING ERRCODE = 'LR001', DETAIL = jsonb_build_object('rules', v_revision)::text;
    END IF;

    SELECT jsonb_agg(jsonb_build_array(u.n, coalesce(r.to_lead, raw), coalesce(e.epoch, 0))) INTO v_wrong
    FROM unnest(v_org, v_raw) WITH ORDINALITY AS u (org, raw, n)
    LEFT JOIN json_to_recordset(p_merged) AS m (n bigint, root text, epoch bigint) ON m.n = u.n
    LEFT JOIN lead_redirects r ON r.org_unit = org AND r.from_lead = raw
    LEFT JOIN lead_epochs e ON e.org_unit = org AND e.lead_id = coalesce(r.to_lead, raw)
    WHERE coalesce(r.to_lead, raw) <> coalesce(m.root, raw) OR coalesce(e.epoch, 0) <> coalesce(m.epoch, 0);
    IF v_wrong IS NOT NULL THEN
        RAISE EXCEPTION 'leads were merged' USING ERRCODE = 'LR001', DETAIL = jsonb_build_object('roots', v_wrong)::text;
    END IF;

    v_batch := nextval('batches');
    v_now := date_trunc('milliseconds', clock_timestamp());
    LOOP
        SELECT array_agg(k.n), array_agg(k.e) INTO v_known, v_rows FROM known_events(v_org, v_id) AS k;

        SELECT jsonb_agg(jsonb_build_array(n, other, counted, rules, exceeded)) FILTER (WHERE other OR differs) INTO v_wrong
        FROM (
            SELECT e.n, e.counted, e.rules, e.exceeded,
                coalesce(e.original_lead_id, e.lead_id) <> v_raw[e.n] OR e.event_type <> v_type[e.n]
                    OR e.occurred_at <> ms_event(p_occurred[e.n]) AS other,
                e.counted <> coalesce(x.counted, true) OR e.exceeded IS DISTINCT FROM x.exceeded AS differs
            FROM ROWS FROM (unnest(v_known), unnest(v_rows)) AS e (n)
            LEFT JOIN json_to_recordset(p_rare) AS x (n bigint, counted boolean, exceeded jsonb) ON x.n = e.n
        ) k;
        IF v_wrong IS NOT NULL THEN
            RAISE EXCEPTION 'ids are known' USING ERRCODE = 'LR001', DETAIL = jsonb_build_object('known', v_wrong)::text;
        END IF;
        EXIT WHEN cardinality(v_known) = cardinality(v_id);

        BEGIN
            INSERT INTO events (
                org_unit, id, lead_id, original_lead_id, event_type, metadata, suppression_reason, suppressed_by, occurred_at,
                received_at, source_topic, source_partition, source_offset, source_timestamp, batch, rules, counted, exceeded)
            SELECT org, id, coalesce(root, raw), CASE WHEN root <> raw THEN raw END, type, metadata::jsonb, reason, by,
                ms_event(occurred), v_now, p_topic, p_partition, o, ts, v_batch,
                coalesce(judged, p_rules), coalesce(counted, true), exceeded
            FROM (
                SELECT u.*, m.root, x.reason, x.by, x.judged, x.counted, x.exceeded
                FROM unnest(v_org, v_id, v_raw, v_type, v_metadata, p_occurred, p_offset, p_timestamp) WITH ORDINALITY
                    AS u (org, id, raw, type, metadata, occurred, o, ts, n)
                LEFT JOIN json_to_recordset(p_merged) AS m (n bigint, root text) ON m.n = u.n
                LEFT JOIN json_to_recordset(p_rare)
                    AS x (n bigint, reason text, by jsonb, judged bigint, counted boolean, exceeded jsonb) ON x.n = u.n
                OFFSET 0  -- joined as many as there are, not as few as may be left
            ) r
            WHERE r.n NOT IN (SELECT unnest(v_known))
            ORDER BY org COLLATE "C", id COLLATE "C";  -- two lanes with the same ids meet them in the same order: no deadlock
            EXIT;
        EXCEPTION WHEN unique_violation THEN
            NULL;  -- another lane has stored one of them just now: it is known
        END;
    END LOOP;

    IF p_newest IS NOT NULL THEN
        INSERT INTO lanes AS l (topic, partition, newest) VALUES (p_topic, p_partition, p_newest)
        ON CONFLICT (topic, partition) DO UPDATE SET newest = greatest(l.newest, excluded.newest);
    END IF;

    RETURN QUERY SELECT 0::bigint, v_batch, v_now, NULL::text, NULL::jsonb, NULL::boolean, NULL::boolean;
    RETURN QUERY
    SELECT e.n, e.batch, e.received_at, e.suppression_reason::text, e.suppressed_by,
        e.source_topic = p_topic AND e.source_partition = p_partition AND e.source_offset = p_offset[e.n]
            AND e.source_timestamp IS NOT DISTINCT FROM p_timestamp[e.n],
        e.deleted_at IS NOT NULL
    FROM ROWS FROM (unnest(v_known), unnest(v_rows)) AS e (n);
END $$;
