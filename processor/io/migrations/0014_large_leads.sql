-- compatible: 5
-- Where rows of a class, whose last is its root, may stand in `lead_id`: under the root, and where a merge or unmerge that touched
-- the class has left them, until its move is done.  All that is moved for other leads is passed by, however much it is.
CREATE OR REPLACE FUNCTION lead_places(org text, class text[]) RETURNS text[] LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT class[cardinality(class):] || ARRAY(
        SELECT m.from_lead FROM lead_epochs e JOIN lead_moves m ON m.org_unit = org AND m.merge_id <= e.epoch
        WHERE e.org_unit = org AND e.lead_id = class[cardinality(class)])
$$;

-- What looks up the rows of a move does without hash joins, and so would the trigger that it fires: each row of a chunk would be
-- compared with each other one.
ALTER FUNCTION count_rows_moved() SET enable_hashjoin = on;

-- Exceeding events by lead, type and time: windows of keep-first filters are rebuilt from them alone, however many others there are.
CREATE INDEX events_exceeding ON events (org_unit, lead_id, event_type, occurred_at) WHERE exceeded IS NOT NULL;
