-- compatible: 5
-- As before (0006_counts.sql), but of the leads that are to be counted a call counts one, any of those that can be: nobody folds
-- meanwhile, and all of them together may take longer than a call may, and then again the next time.  How many it was; 0: none is
-- left for now, or another worker is at it.
CREATE OR REPLACE FUNCTION count_leads() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_lead record;
    v_done bigint := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7704, 0) THEN
        RETURN 0;
    END IF;
    SELECT org_unit, lead_id INTO v_lead FROM counted_leads
    WHERE NOT ready AND barrier <= pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY random() LIMIT 1;  -- one that cannot be counted in time is not always the first
    IF FOUND THEN
        PERFORM count_anew(v_lead.org_unit, v_lead.lead_id);
        UPDATE counted_leads SET ready = true WHERE org_unit = v_lead.org_unit AND lead_id = v_lead.lead_id;
        v_done := 1;
    END IF;
    -- Whoever began to write before this has not seen the lead here, and has ended once no transaction before it is left.
    UPDATE counted_leads SET barrier = pg_snapshot_xmax(pg_current_snapshot()) WHERE barrier IS NULL;
    RETURN v_done;
END $$;
