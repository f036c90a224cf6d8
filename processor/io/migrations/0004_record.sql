-- Event times as integers, exact from year 1 to 9999.
CREATE FUNCTION event_ms(at timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (extract(epoch FROM at) * 1000)::bigint
$$;

CREATE FUNCTION ms_event(ms bigint) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT timestamptz 'epoch' + (ms / 86400000) * interval '1 day' + (ms % 86400000) * interval '1 millisecond'
$$;

-- The window-aligned slice of a time: slices are [k·w, (k+1)·w), before 1970 too.
CREATE FUNCTION slice_of(ms bigint, w bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ms - (ms % w + w) % w
$$;

-- A root with all leads that redirect to it: the raw leads of its rows.
CREATE FUNCTION lead_class(org text, root text) RETURNS text[] LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT array_append(array_agg(r.from_lead), root)
    FROM lead_redirects r WHERE r.org_unit = org AND r.to_lead = root
$$;

-- Where rows of a class may stand in `lead_id` while moves are pending.
CREATE FUNCTION lead_places(org text, class text[]) RETURNS text[] LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT class || coalesce((SELECT array_agg(m.from_lead) FROM lead_moves m WHERE m.org_unit = org), '{}')
$$;

-- record_batch stores the rulings on one batch of one lane: everything or nothing, in one call, so that a suspended worker holds
-- no lock.  The first committed row of an id wins.  It returns one row with ordinal 0 (batch number, commit time) and one for
-- each event whose id was known already, with what is stored.  Conditions that would make the rulings wrong raise LR001 with a
-- JSON detail, and the caller decides again:
--   {"rules": revision}                                  the rules in force are newer
--   {"roots": [[ordinal, root, epoch], ...]}             a lead's root or epoch is not the one used
--   {"known": [[ordinal, other, counted, rules, exceeded], ...]}  a known id with another body (other), or with other facts
--
-- Columns come as JSON arrays: a client renders them many times faster than arrays of Postgres.  Most events are plain: no
-- suppression, counted, not merged, judged by these rules.  p_rare tells of the others, by ordinal.
-- Statements are separate on purpose: each sees what was committed while the locks were waited for.
CREATE FUNCTION record_batch(
    p_topic text, p_partition integer, p_rules bigint, p_newest bigint,
    p_org json, p_id json, p_raw json, p_type json, p_metadata json, p_occurred json, p_offset json, p_timestamp json,
    p_rare json
) RETURNS TABLE (
    ordinal bigint, batch bigint, received_at timestamptz, suppression_reason text, suppressed_by jsonb,
    same_message boolean, deleted boolean
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_org      text[] := ARRAY(SELECT json_array_elements_text(p_org));
    v_id       text[] := ARRAY(SELECT json_array_elements_text(p_id));
    v_raw      text[] := ARRAY(SELECT json_array_elements_text(p_raw));
    v_type     text[] := ARRAY(SELECT json_array_elements_text(p_type));
    v_metadata json[] := ARRAY(SELECT json_array_elements(p_metadata));
    v_occurred text[] := ARRAY(SELECT json_array_elements_text(p_occurred));
    v_offset   text[] := ARRAY(SELECT json_array_elements_text(p_offset));
    v_time     text[] := ARRAY(SELECT json_array_elements_text(p_timestamp));
    v_bucket   integer;
    v_revision bigint;
    v_wrong    jsonb;
    v_batch    bigint;
    v_now      timestamptz;
    v_stored   bigint;
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
    LEFT JOIN json_to_recordset(p_rare) AS x (n bigint, root text, epoch bigint) ON x.n = u.n
    LEFT JOIN lead_redirects r ON r.org_unit = org AND r.from_lead = raw
    LEFT JOIN lead_epochs e ON e.org_unit = org AND e.lead_id = coalesce(r.to_lead, raw)
    WHERE coalesce(r.to_lead, raw) <> coalesce(x.root, raw) OR coalesce(e.epoch, 0) <> coalesce(x.epoch, 0);
    IF v_wrong IS NOT NULL THEN
        RAISE EXCEPTION 'leads were merged' USING ERRCODE = 'LR001', DETAIL = jsonb_build_object('roots', v_wrong)::text;
    END IF;

    v_batch := nextval('batches');
    v_now := date_trunc('milliseconds', clock_timestamp());
    INSERT INTO events (
        org_unit, id, lead_id, original_lead_id, event_type, metadata, suppression_reason, suppressed_by, occurred_at,
        received_at, source_topic, source_partition, source_offset, source_timestamp, batch, rules, counted, exceeded)
    SELECT org, id, coalesce(x.root, raw), CASE WHEN x.root <> raw THEN raw END, type, metadata::jsonb, x.reason, x.by,
        ms_event(occurred::bigint), v_now, p_topic, p_partition, o::bigint, ts::bigint, v_batch,
        coalesce(x.judged, p_rules), coalesce(x.counted, true), x.exceeded
    FROM unnest(v_org, v_id, v_raw, v_type, v_metadata, v_occurred, v_offset, v_time) WITH ORDINALITY
        AS u (org, id, raw, type, metadata, occurred, o, ts, n)
    LEFT JOIN json_to_recordset(p_rare)
        AS x (n bigint, root text, reason text, by jsonb, judged bigint, counted boolean, exceeded jsonb) ON x.n = u.n
    ORDER BY org COLLATE "C", id COLLATE "C"  -- two lanes with the same ids meet them in the same order: no deadlock
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_stored = ROW_COUNT;

    IF v_stored < cardinality(v_id) THEN
        SELECT jsonb_agg(jsonb_build_array(n, other, counted, rules, exceeded)) INTO v_wrong
        FROM (
            SELECT u.n, e.counted, e.rules, e.exceeded,
                coalesce(e.original_lead_id, e.lead_id) <> raw OR e.event_type <> type
                    OR e.occurred_at <> ms_event(occurred::bigint) AS other,
                e.counted <> coalesce(x.counted, true) OR e.exceeded IS DISTINCT FROM x.exceeded AS differs
            FROM unnest(v_org, v_id, v_raw, v_type, v_occurred) WITH ORDINALITY AS u (org, id, raw, type, occurred, n)
            JOIN events e ON e.org_unit = org AND e.id = u.id
            LEFT JOIN json_to_recordset(p_rare) AS x (n bigint, counted boolean, exceeded jsonb) ON x.n = u.n
            WHERE e.batch <> v_batch
        ) k
        WHERE other OR differs;
        IF v_wrong IS NOT NULL THEN
            RAISE EXCEPTION 'ids are known' USING ERRCODE = 'LR001', DETAIL = jsonb_build_object('known', v_wrong)::text;
        END IF;
    END IF;

    IF p_newest IS NOT NULL THEN
        INSERT INTO lanes AS l (topic, partition, newest) VALUES (p_topic, p_partition, p_newest)
        ON CONFLICT (topic, partition) DO UPDATE SET newest = greatest(l.newest, excluded.newest);
    END IF;

    RETURN QUERY SELECT 0::bigint, v_batch, v_now, NULL::text, NULL::jsonb, NULL::boolean, NULL::boolean;
    IF v_stored < cardinality(v_id) THEN
        RETURN QUERY
        SELECT u.n, e.batch, e.received_at, e.suppression_reason::text, e.suppressed_by,
            e.source_topic = p_topic AND e.source_partition = p_partition AND e.source_offset = o::bigint
                AND e.source_timestamp IS NOT DISTINCT FROM ts::bigint,
            e.deleted_at IS NOT NULL
        FROM unnest(v_org, v_id, v_offset, v_time) WITH ORDINALITY AS u (org, id, o, ts, n)
        JOIN events e ON e.org_unit = org AND e.id = u.id
        WHERE e.batch <> v_batch;
    END IF;
END $$;
