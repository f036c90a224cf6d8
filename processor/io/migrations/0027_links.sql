-- compatible: 5
-- Who was ever one with a lead is found from either end of an edge, whether it stands or was taken back.
CREATE INDEX merge_edges_by_target ON merge_edges (org_unit, target_lead);

-- Where rows of raw leads may stand in `lead_id`, of whatever classes these are: under their roots, and where merges and unmerges
-- have left them until their moves are done.
CREATE FUNCTION raw_places(org text, leads text[]) RETURNS text[] LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT ARRAY(
        SELECT DISTINCT unnest(lead_places(org, ARRAY[root])) FROM (
            SELECT DISTINCT coalesce((
                SELECT r.to_lead FROM lead_redirects r WHERE r.org_unit = org AND r.from_lead = lead), lead) AS root
            FROM unnest(leads) AS lead
        ) x
    )
$$;
