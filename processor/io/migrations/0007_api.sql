-- compatible: 5
-- What the API keeps, and the role it works as.
--
-- Row-level security is the second line: every statement of the API names its org unit, and the role could not see another one
-- if it did not.  Whoever the API logs in as, it goes on as processor_api, which owns nothing.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_api') THEN
        CREATE ROLE processor_api NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;  -- roles are of the whole server: another database was faster
END $$;
DO $$
BEGIN
    IF NOT pg_has_role(current_user, 'processor_api', 'SET') THEN
        EXECUTE format('GRANT processor_api TO %I', current_user);
    END IF;
END $$;

-- Bearer tokens: the prefix is public and finds the row, the hash (SHA-256 of the whole token) decides.
CREATE TABLE tokens (
    prefix     text COLLATE "C" PRIMARY KEY,
    org_unit   text COLLATE "C" NOT NULL,
    name       text NOT NULL,
    hash       bytea NOT NULL,
    scopes     text[] COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    used_at    timestamptz                            -- last use, to the minute or so
);
CREATE INDEX tokens_by_org_unit ON tokens (org_unit, created_at);

-- Who did what, when.  Kept as long as the database.
CREATE TABLE audit_log (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org_unit text COLLATE "C" NOT NULL,
    at       timestamptz NOT NULL,
    actor    text NOT NULL,
    action   text COLLATE "C" NOT NULL,               -- filter.create, filter.change, filter.delete, event.delete, lead.merge, ...
    subject  text NOT NULL,                           -- what it was done to
    details  jsonb NOT NULL
);
CREATE INDEX audit_log_by_org_unit ON audit_log (org_unit, id);

CREATE FUNCTION audit_filter() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_log (org_unit, at, actor, action, subject, details)
    SELECT c.org_unit, date_trunc('milliseconds', c.changed_at), c.changed_by,
        CASE WHEN c.definition IS NULL THEN 'filter.delete'
            WHEN EXISTS (
                SELECT FROM filter_versions v WHERE v.org_unit = c.org_unit AND v.id = c.id AND v.revision < c.revision
                    AND v.definition IS NOT NULL AND NOT EXISTS (
                        SELECT FROM filter_versions d WHERE d.org_unit = c.org_unit AND d.id = c.id
                            AND d.revision > v.revision AND d.revision < c.revision AND d.definition IS NULL))
            THEN 'filter.change' ELSE 'filter.create' END,
        c.id, jsonb_build_object('kind', c.kind, 'version', c.version, 'definition', c.definition)
    FROM changed c ORDER BY c.revision, c.id;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_filter AFTER INSERT ON filter_versions
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION audit_filter();

CREATE FUNCTION audit_merge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_log (org_unit, at, actor, action, subject, details)
    VALUES (NEW.org_unit, NEW.committed_at, coalesce(NEW.requested_by, 'upstream'), 'lead.' || NEW.kind, NEW.target_lead_id,
        jsonb_build_object('merge_id', NEW.message_id, 'source_lead_ids', NEW.merged_lead_ids, 'survivor_lead_id', NEW.survivor_lead_id));
    RETURN NULL;
END $$;
CREATE TRIGGER audit_merge AFTER INSERT ON merges
    FOR EACH ROW WHEN (cardinality(NEW.merged_lead_ids) > 0) EXECUTE FUNCTION audit_merge();

-- Answers of POST /ingest by Idempotency-Key, for 24 h.  A row is claimed before anything is published, with the ids it will
-- have, and done once Kafka has acknowledged: whoever finds it claimed and abandoned publishes again, with the same ids.
CREATE TABLE idempotency_keys (
    org_unit   text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    body_hash  bytea NOT NULL,
    ids        text[] COLLATE "C" NOT NULL,
    claimed_at timestamptz NOT NULL,                  -- the record timestamp of what is published, too
    done       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (org_unit, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (claimed_at);

-- Merges that the API has handed to Kafka: until the worker has recorded one, it is known from here.
CREATE TABLE merge_requests (
    org_unit        text COLLATE "C" NOT NULL,
    message_id      text COLLATE "C" NOT NULL,
    kind            text COLLATE "C" NOT NULL,
    target_lead_id  text COLLATE "C" NOT NULL,
    source_lead_ids text[] COLLATE "C" NOT NULL,
    requested_by    text NOT NULL,
    requested_at    timestamptz NOT NULL,
    PRIMARY KEY (org_unit, message_id)
);

-- The workers there are, and the rule revision each decides with.
CREATE TABLE workers (
    id             text COLLATE "C" PRIMARY KEY,
    started_at     timestamptz NOT NULL,
    seen_at        timestamptz NOT NULL,
    rules_revision bigint NOT NULL
);

-- The org unit a transaction of the API works for; empty: none.
CREATE FUNCTION current_org_unit() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT current_setting('processor.org_unit', true)
$$;

DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY[
        'events', 'event_counts', 'event_count_changes', 'counted_leads', 'suppression_counts', 'filters', 'filter_versions', 'lead_redirects',
        'lead_epochs', 'lead_moves', 'merges', 'merge_edges', 'audit_log', 'idempotency_keys', 'merge_requests']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format(
            'CREATE POLICY own_org_unit ON %I TO processor_api USING (org_unit = (SELECT current_org_unit()))', v_table);
        EXECUTE format('GRANT SELECT ON %I TO processor_api', v_table);
    END LOOP;
END $$;
GRANT SELECT ON rule_state, lanes, workers, schema_migrations TO processor_api;
-- Deletes.
GRANT UPDATE (metadata, deleted_at) ON events TO processor_api;
GRANT INSERT ON event_count_changes TO processor_api;
-- Listings of large leads.
GRANT INSERT ON counted_leads TO processor_api;
-- Changes of filters.
GRANT UPDATE ON rule_state TO processor_api;
GRANT INSERT, UPDATE ON filters TO processor_api;
GRANT INSERT ON filter_versions, audit_log, merge_requests TO processor_api;
GRANT INSERT, UPDATE, DELETE ON idempotency_keys TO processor_api;

-- A token is looked up before anybody knows whose it is; nothing else of the table is open to the API.
CREATE FUNCTION find_token(p_prefix text) RETURNS SETOF tokens
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT * FROM tokens WHERE prefix = p_prefix
$$;
CREATE FUNCTION use_tokens(p_prefixes text[]) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    UPDATE tokens SET used_at = date_trunc('milliseconds', clock_timestamp()) WHERE prefix = ANY (p_prefixes)
$$;
CREATE FUNCTION forget_idempotency_keys() RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    DELETE FROM idempotency_keys WHERE claimed_at < clock_timestamp() - interval '24 hours'
$$;
REVOKE EXECUTE ON FUNCTION find_token, use_tokens, forget_idempotency_keys FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_token, use_tokens, forget_idempotency_keys TO processor_api;

-- A page of the events of an org unit, or of a lead where one is named, in one call: it enters the org unit for its own length, so
-- that the client need not say anything else.  A row's lead is the root of its raw lead, wherever a pending move has left it.
-- Number 0 has the total alone; there is none where a lead has no events at all, chosen or not.  A lead with more than p_large gets
-- counts of its own.
CREATE FUNCTION list_events(
    p_org text, p_lead text, p_type text, p_reasons integer, p_from timestamptz, p_to timestamptz, p_offset bigint, p_limit bigint,
    p_large bigint
) RETURNS TABLE (
    n bigint, total bigint, id text, lead_id text, event_type text, metadata jsonb, suppression_reason text, original_lead_id text,
    occurred_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('processor.org_unit', p_org, true);
    FOR n, total, id, lead_id, event_type, metadata, suppression_reason, original_lead_id, occurred_at IN
        SELECT p.n, p.total, e.id, coalesce(r.to_lead, raw.lead), e.event_type, e.metadata, e.suppression_reason,
            CASE WHEN r.to_lead IS NOT NULL THEN raw.lead END, e.occurred_at
        FROM (
            SELECT * FROM event_page(p_org, p_type, p_reasons, p_from, p_to, p_offset, p_limit) WHERE p_lead = ''
            UNION ALL
            SELECT * FROM lead_page(p_org, p_lead, p_type, p_reasons, p_from, p_to, p_offset, p_limit) WHERE p_lead <> ''
        ) p
        LEFT JOIN events e ON e.org_unit = p_org AND e.id = p.id
        LEFT JOIN LATERAL (SELECT coalesce(e.original_lead_id, e.lead_id) AS lead) raw ON true
        LEFT JOIN lead_redirects r ON r.org_unit = p_org AND r.from_lead = raw.lead
        ORDER BY p.n
    LOOP
        IF n = 0 AND p_lead <> '' THEN
            IF total = 0 AND NOT lead_has_events(p_org, p_lead) THEN
                RETURN;
            END IF;
            IF total > p_large THEN
                PERFORM want_counts(p_org, p_lead);
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

CREATE FUNCTION lead_has_events(p_org text, p_lead text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM (SELECT lead_class(p_org, coalesce((
            SELECT to_lead FROM lead_redirects WHERE org_unit = p_org AND from_lead = p_lead), p_lead)) AS leads OFFSET 0) c
        CROSS JOIN LATERAL (SELECT lead_places(p_org, c.leads) AS places OFFSET 0) p
        JOIN events e ON e.org_unit = p_org AND e.lead_id = ANY (p.places) AND e.deleted_at IS NULL
            AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads))
$$;

-- Asks for the counts of the surviving lead.
CREATE FUNCTION want_counts(p_org text, p_lead text) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO counted_leads (org_unit, lead_id)
    SELECT p_org, root.lead
    FROM (
        SELECT coalesce((SELECT to_lead FROM lead_redirects WHERE org_unit = p_org AND from_lead = p_lead), p_lead) AS lead
    ) root
    WHERE NOT EXISTS (SELECT FROM counted_leads WHERE org_unit = p_org AND lead_id = root.lead)
    ON CONFLICT DO NOTHING
$$;
