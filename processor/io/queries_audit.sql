-- ---------------------------------------------------------------------------------------------------------------------
-- The audit log (audit.py)

-- name: audit_page
-- Number 0 has the total alone.  $2 action, $3 actor (empty: any), $4 since, $5 until, $6 offset, $7 limit.
WITH chosen AS (
    SELECT id, at FROM audit_log
    WHERE org_unit = $1 AND ($2::text = '' OR action = $2) AND ($3::text = '' OR actor = $3)
        AND ($4::timestamptz IS NULL OR at >= $4) AND ($5::timestamptz IS NULL OR at < $5)
), page AS (
    SELECT id FROM chosen ORDER BY at DESC, id DESC LIMIT $7 OFFSET $6
)
SELECT (SELECT count(*) FROM chosen) AS total, a.id, a.at, a.actor, a.action, a.subject, a.details,
    octet_length(a.details::text) AS size
FROM (VALUES (1)) AS one
LEFT JOIN (SELECT l.* FROM page p JOIN audit_log l ON l.org_unit = $1 AND l.id = p.id) a ON true
ORDER BY a.at DESC, a.id DESC
