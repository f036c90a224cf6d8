-- compatible: 5
-- What the engagement service (`processor engagement`) makes of the enriched topic.
--
-- Facts are kept by the raw lead, the one an event named: no merge changes them.  A root is the sum of its class (lead_class), so
-- lead_redirects is all that is known of merges here too.
--
-- Who waits for whom: places ascending, then org units ascending.  A batch holds its org units to itself until its commit.

-- How far a partition of the enriched topic is applied: committed with what it made of the leads, so nothing counts twice.
-- Another topic of that name, which has another id, has other places.
CREATE TABLE engagement_places (
    topic       text COLLATE "C" NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint NOT NULL,
    topic_id    bytea NOT NULL,
    PRIMARY KEY (topic, partition)
);

CREATE TABLE engaged_org_units (
    org_unit text COLLATE "C" PRIMARY KEY,
    leads    bigint NOT NULL DEFAULT 0                -- rows of lead_scores with events
);

-- The organic events counted: an id counts once, and surges are looked for among them.
CREATE TABLE engaged_events (
    org_unit    text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL,
    lead_id     text COLLATE "C" NOT NULL,            -- the raw lead
    event_type  text COLLATE "C" NOT NULL,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (org_unit, id)
);
CREATE INDEX engaged_events_by_lead ON engaged_events (org_unit, lead_id, event_type, occurred_at);

-- A raw lead's organic events.  Its score is total * 2^week in the worth of 1970, where a worth halves each week.
CREATE TABLE engaged_leads (
    org_unit text COLLATE "C" NOT NULL,
    lead_id  text COLLATE "C" NOT NULL,
    events   bigint NOT NULL,
    sessions bigint NOT NULL,
    first_at timestamptz NOT NULL,
    last_at  timestamptz NOT NULL,
    week     integer NOT NULL,
    total    double precision NOT NULL,
    PRIMARY KEY (org_unit, lead_id)
);

-- Sessions of a raw lead: more than 30 minutes apart.
CREATE TABLE lead_sessions (
    org_unit   text COLLATE "C" NOT NULL,
    lead_id    text COLLATE "C" NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz NOT NULL,                  -- its last event
    events     bigint NOT NULL,
    PRIMARY KEY (org_unit, lead_id, started_at)
);

-- The surges told.
CREATE TABLE lead_surges (
    org_unit text COLLATE "C" NOT NULL,
    lead_id  text COLLATE "C" NOT NULL,               -- the raw lead whose event made it
    at       timestamptz NOT NULL,
    PRIMARY KEY (org_unit, lead_id, at)
);

-- Roots as they are listed: the order by rank is the order by score at any time.
CREATE TABLE lead_scores (
    org_unit text COLLATE "C" NOT NULL,
    lead_id  text COLLATE "C" NOT NULL,
    events   bigint NOT NULL,                         -- 0: no root any more, or no events; it was created once all the same
    week     integer NOT NULL,
    total    double precision NOT NULL,
    rank     double precision NOT NULL,               -- week + log2(total)
    PRIMARY KEY (org_unit, lead_id)
);
CREATE INDEX lead_scores_by_rank ON lead_scores (org_unit, rank DESC, lead_id) WHERE events > 0;

-- What is to be published, in this order within an org unit; whoever has published it deletes it.
CREATE TABLE engagement_outbox (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lead_id text COLLATE "C" NOT NULL,
    value   text NOT NULL
);

-- The sessions of raw leads together.
CREATE FUNCTION class_sessions(p_org text, p_leads text[])
RETURNS TABLE (started_at timestamptz, ended_at timestamptz, events bigint) LANGUAGE sql STABLE AS $$
    SELECT min(x.started_at), max(x.ended_at), sum(x.events)::bigint
    FROM (
        SELECT b.*, count(*) FILTER (WHERE b.begins) OVER (ORDER BY b.started_at, b.ended_at, b.lead_id) AS n
        FROM (
            SELECT s.*, coalesce(s.started_at > interval '30 minutes' + max(s.ended_at) OVER (
                ORDER BY s.started_at, s.ended_at, s.lead_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), true) AS begins
            FROM lead_sessions s WHERE s.org_unit = p_org AND s.lead_id = ANY (p_leads)
        ) b
    ) x
    GROUP BY x.n
$$;

DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['engaged_org_units', 'engaged_leads', 'lead_sessions', 'lead_scores'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format(
            'CREATE POLICY own_org_unit ON %I TO processor_api USING (org_unit = (SELECT current_org_unit()))', v_table);
        EXECUTE format('GRANT SELECT ON %I TO processor_api', v_table);
    END LOOP;
END $$;
