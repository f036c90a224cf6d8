-- compatible: 5
-- The audit log is read newest first, by time: a change may have waited for its lock longer than another that came after it.
CREATE INDEX audit_log_by_time ON audit_log (org_unit, at, id);
DROP INDEX audit_log_by_org_unit;
