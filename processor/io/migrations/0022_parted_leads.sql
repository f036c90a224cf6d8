-- compatible: 5
-- The edges that an unmerge took away: the engagement service looks at the leads they parted.
CREATE INDEX merge_edges_by_unmerge ON merge_edges (removed_by) WHERE removed_by IS NOT NULL;
