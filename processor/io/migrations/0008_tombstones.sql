-- compatible: 5
-- Previews of velocity filters pass over the events of a time.  events_by_time has those that are not deleted; these count too.
CREATE INDEX events_deleted_by_time ON events (org_unit, event_type, occurred_at) WHERE deleted_at IS NOT NULL;
