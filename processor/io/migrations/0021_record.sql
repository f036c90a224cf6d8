-- compatible: 5
-- As before (0020_record.sql), but what is told of few events comes in columns too, empty where there is nothing to tell (a whole one
-- where no event has anything): to find it by numbers in JSON costs more than to sort the batch.  It has 20 arguments; workers of the
-- version before call the one that has 15.
CREATE FUNCTION record_rulings(
    p_topic text, p_partition integer, p_rules bigint, p_newest bigint,
    p_separator text, p_org text, p_id text, p_raw text, p_root text, p_type text, p_reason text, p_metadata text, p_by text,
    p_exceeded text, p_occurred bigint[], p_offset bigint[], p_timestamp bigint[], p_epoch bigint[], p_judged bigint[],
    p_counted boolean[]
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
    v_root     text[] := string_to_array(p_root, p_separator, '');
    v_type     text[] := string_to_array(p_type, p_separator);
    v_reason   text[] := string_to_array(p_reason, p_separator, '');
    v_metadata text[] := string_to_array(p_metadata, E'\n');  -- compact JSON holds none
    v_by       text[] := string_to_array(p_by, E'\n', '');
    v_exceeded text[] := string_to_array(p_exceeded, E'\n', '');
    v_bucket   integer;
    v_revision bigint;
    v_wrong    jsonb;
    v_batch    bigint;
    v_now      timestamptz;
    v_numbers  bigint[];
    v_orgs     text[];
    v_ids      text[];
    v_known    known_event[];
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

    SELECT jsonb_agg(jsonb_build_array(org, raw, coalesce(r.to_lead, raw), coalesce(e.epoch, 0))) INTO v_wrong
    FROM (SELECT unnest(v_org) AS org, unnest(v_raw) AS raw, unnest(v_root) AS root, unnest(p_epoch) AS epoch) u
    LEFT JOIN lead_redirects r ON r.org_unit = org AND r.from_lead = raw
    LEFT JOIN lead_epochs e ON e.org_unit = org AND e.lead_id = coalesce(r.to_lead, raw)
    WHERE coalesce(r.to_lead, raw) <> coalesce(root, raw) OR coalesce(e.epoch, 0) <> coalesce(u.epoch, 0);
    IF v_wrong IS NOT NULL THEN
        RAISE EXCEPTION 'leads were merged' USING ERRCODE = 'LR001', DETAIL = jsonb_build_object('roots', v_wrong)::text;
    END IF;

    v_batch := nextval('batches');
    v_now := date_trunc('milliseconds', clock_timestamp());
    WITH stored AS (
        INSERT INTO events (
            org_unit, id, lead_id, original_lead_id, event_type, metadata, suppression_reason, suppressed_by, occurred_at,
            received_at, source_topic, source_partition, source_offset, source_timestamp, batch, rules, counted, exceeded)
        SELECT org, id, coalesce(root, raw), CASE WHEN root <> raw THEN raw END, type, metadata::jsonb, reason, by::jsonb,
            ms_event(occurred), v_now, p_topic, p_partition, o, ts, v_batch,
            coalesce(judged, p_rules), coalesce(counted, true), exceeded::jsonb
        FROM (
            SELECT unnest(v_org) AS org, unnest(v_id) AS id, unnest(v_raw) AS raw, unnest(v_root) AS root, unnest(v_type) AS type,
                unnest(v_metadata) AS metadata, unnest(v_reason) AS reason, unnest(v_by) AS by, unnest(p_occurred) AS occurred,
                unnest(p_offset) AS o, unnest(p_timestamp) AS ts, unnest(p_judged) AS judged, unnest(p_counted) AS counted,
                unnest(v_exceeded) AS exceeded
        ) u
        ORDER BY org COLLATE "C", id COLLATE "C"  -- two lanes with the same ids meet them in the same order: no deadlock
        ON CONFLICT DO NOTHING
        RETURNING org_unit, id
    )
    SELECT array_agg(org_unit), array_agg(id) INTO v_orgs, v_ids FROM stored;

    IF coalesce(cardinality(v_ids), 0) < cardinality(v_id) THEN
        SELECT array_agg(u.n), array_agg(u.org), array_agg(u.id) INTO v_numbers, v_orgs, v_ids
        FROM unnest(v_org, v_id) WITH ORDINALITY AS u (org, id, n)
        WHERE (u.org, u.id) NOT IN (SELECT * FROM unnest(v_orgs, v_ids));
        v_known := known_events(v_numbers, v_orgs, v_ids);

        SELECT jsonb_agg(jsonb_build_array(n, other, counted, rules, exceeded)) FILTER (WHERE other OR differs) INTO v_wrong
        FROM (
            SELECT e.n, e.counted, e.rules, e.exceeded,
                e.lead_id <> v_raw[e.n] OR e.event_type <> v_type[e.n] OR e.occurred_at <> ms_event(p_occurred[e.n]) AS other,
                e.counted <> coalesce(p_counted[e.n], true) OR e.exceeded IS DISTINCT FROM v_exceeded[e.n]::jsonb AS differs
            FROM unnest(v_known) AS e
        ) k;
        IF v_wrong IS NOT NULL THEN
            RAISE EXCEPTION 'ids are known' USING ERRCODE = 'LR001', DETAIL = jsonb_build_object('known', v_wrong)::text;
        END IF;
        IF coalesce(cardinality(v_known), 0) < cardinality(v_numbers) THEN
            RAISE EXCEPTION 'known ids were purged meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;

    IF p_newest IS NOT NULL THEN
        INSERT INTO lanes AS l (topic, partition, newest) VALUES (p_topic, p_partition, p_newest)
        ON CONFLICT (topic, partition) DO UPDATE SET newest = greatest(l.newest, excluded.newest);
    END IF;

    RETURN QUERY SELECT 0::bigint, v_batch, v_now, NULL::text, NULL::jsonb, NULL::boolean, NULL::boolean;
    RETURN QUERY
    SELECT e.n, e.batch, e.received_at, e.suppression_reason, e.suppressed_by,
        e.source_topic = p_topic AND e.source_partition = p_partition AND e.source_offset = p_offset[e.n]
            AND e.source_timestamp IS NOT DISTINCT FROM p_timestamp[e.n],
        e.deleted
    FROM unnest(v_known) AS e;
END $$;
