-- Who waits for whom.  Order: rules, merge mutex, lead buckets ascending, rows.
--   (7701, 0)       the rules: shared while a batch is recorded, exclusive while filters change
--   (7702, bucket)  the leads of a bucket: shared while their events are recorded, exclusive while they are merged
--   (7703, org)     the merges of an org unit: exclusive while one is recorded, shared while rows are moved, so that roots hold still
CREATE FUNCTION lead_bucket(org_unit text, lead_id text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (hashtextextended(lead_id, hashtextextended(org_unit, 0)) & 255)::integer
$$;

CREATE FUNCTION merge_mutex(org_unit text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT hashtextextended(org_unit, 7703)::bit(32)::integer
$$;
