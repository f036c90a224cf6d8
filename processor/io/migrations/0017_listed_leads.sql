-- compatible: 5
-- A root is listed with what was counted, all of it in one row.  Its class is another one from the commit of a merge on, before the
-- engagement service has read of it; an unmerge may leave nothing of it.
--
-- Programs of a version that has been released know nothing of this table.
ALTER TABLE lead_scores
    ADD COLUMN first_at timestamptz,
    ADD COLUMN last_at timestamptz,
    ADD COLUMN sessions bigint;

UPDATE lead_scores s SET first_at = f.first_at, last_at = f.last_at, sessions = f.sessions
FROM (
    SELECT r.org_unit, r.lead_id, min(l.first_at) AS first_at, max(l.last_at) AS last_at,
        (SELECT count(*) FROM class_sessions(r.org_unit, r.leads)) AS sessions
    FROM (SELECT org_unit, lead_id, lead_class(org_unit, lead_id) AS leads FROM lead_scores WHERE events > 0) r
    JOIN engaged_leads l ON l.org_unit = r.org_unit AND l.lead_id = ANY (r.leads)
    GROUP BY r.org_unit, r.lead_id, r.leads
) f
WHERE s.org_unit = f.org_unit AND s.lead_id = f.lead_id;

-- What an unmerge has left nothing of is not listed until the service reads of it.
WITH gone AS (
    UPDATE lead_scores SET events = 0 WHERE events > 0 AND first_at IS NULL RETURNING org_unit
)
UPDATE engaged_org_units o SET leads = o.leads - g.number
FROM (SELECT org_unit, count(*) AS number FROM gone GROUP BY org_unit) g
WHERE o.org_unit = g.org_unit;

ALTER TABLE lead_scores ADD CONSTRAINT lead_scores_listed
    CHECK (events = 0 OR num_nulls(first_at, last_at, sessions) = 0);
