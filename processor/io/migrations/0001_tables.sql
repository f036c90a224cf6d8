-- Identifiers compare by bytes (COLLATE "C"): the order of ids is part of the contract.
-- Times are event times unless a name says otherwise; every timestamp has milliseconds.

-- Every event ever accepted: the first committed row of an id is its verdict for ever.
CREATE TABLE events (
    org_unit           text COLLATE "C" NOT NULL,
    id                 text COLLATE "C" NOT NULL,
    lead_id            text COLLATE "C" NOT NULL,     -- the surviving lead
    original_lead_id   text COLLATE "C",              -- the lead the event named, where that is another one
    event_type         text COLLATE "C" NOT NULL,
    metadata           jsonb NOT NULL,
    suppression_reason text COLLATE "C"
        CHECK (suppression_reason IN ('inorganic', 'inorganic_grouped', 'metadata_filter')),
    suppressed_by      jsonb,
    occurred_at        timestamptz NOT NULL,
    received_at        timestamptz NOT NULL,          -- first commit
    source_topic       text COLLATE "C" NOT NULL,
    source_partition   integer NOT NULL,
    source_offset      bigint NOT NULL,
    source_timestamp   bigint,                        -- the record's, in ms; null where it has none
    deleted_at         timestamptz,                   -- a tombstone: metadata is {}, the id stays taken
    batch              bigint NOT NULL,               -- processing order, with source_offset
    rules              bigint NOT NULL,               -- the rule revision it was judged by
    counted            boolean NOT NULL,              -- it entered the windows of its type
    exceeded           jsonb,                         -- keep-first filters it exceeded: filter revision -> burst id
    PRIMARY KEY (org_unit, id)
);
-- Windows are rebuilt from here, and a merge moves rows by it.
CREATE INDEX events_by_lead ON events (org_unit, lead_id, event_type, occurred_at);
CREATE SEQUENCE batches;

-- The newest event time each lane has committed: an absent window is trusted to be empty only past all of these.
CREATE TABLE lanes (
    topic     text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    newest    bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);

-- One row.  A change of any filter takes the next revision, under the exclusive rules lock.
CREATE TABLE rule_state (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint NOT NULL
);
INSERT INTO rule_state (revision) VALUES (1);

-- Filters of both kinds: an id is unique in its org unit over both.  A deleted filter keeps its row, so that its version goes on.
CREATE TABLE filters (
    org_unit        text COLLATE "C" NOT NULL,
    id              text COLLATE "C" NOT NULL,
    kind            text COLLATE "C" NOT NULL CHECK (kind IN ('velocity', 'metadata')),
    name            text NOT NULL,
    event_type      text COLLATE "C" NOT NULL,        -- normalised; empty (metadata filters only): every type
    threshold       integer,                          -- velocity
    window_ms       bigint,                           -- velocity
    keep_first      boolean,                          -- velocity
    conditions      json,                             -- metadata; json keeps 1.0 and -0.0 as they are written
    enabled         boolean NOT NULL,
    version         integer NOT NULL,
    revision        bigint NOT NULL,                  -- rule revision of the last change of any kind
    window_revision bigint,                           -- velocity: rule revision that last changed what its windows mean
    newest          bigint,                           -- velocity: newest stored event time (ms) when window_revision was committed
    deleted         boolean NOT NULL DEFAULT false,
    changed_at      timestamptz NOT NULL,
    changed_by      text NOT NULL,
    PRIMARY KEY (org_unit, id)
);
CREATE INDEX filters_by_revision ON filters (revision);

-- What every version of a filter said, who changed it and when.  A deletion has the version it deleted.
CREATE TABLE filter_versions (
    org_unit   text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    version    integer NOT NULL,
    kind       text COLLATE "C" NOT NULL,
    definition json,                                  -- null: deleted
    revision   bigint NOT NULL,
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL,
    PRIMARY KEY (org_unit, id, revision)
);

-- The root of every merged-away lead; flat: to_lead is always a root.
CREATE TABLE lead_redirects (
    org_unit  text COLLATE "C" NOT NULL,
    from_lead text COLLATE "C" NOT NULL,
    to_lead   text COLLATE "C" NOT NULL,
    PRIMARY KEY (org_unit, from_lead)
);
CREATE INDEX lead_redirects_by_root ON lead_redirects (org_unit, to_lead);

-- The epoch of a root: the id of the last merge or unmerge that touched its class.  Absent: 0.
CREATE TABLE lead_epochs (
    org_unit text COLLATE "C" NOT NULL,
    lead_id  text COLLATE "C" NOT NULL,
    epoch    bigint NOT NULL,
    PRIMARY KEY (org_unit, lead_id)
);

-- Merge log, keyed by the message's derived id: a redelivered message finds its row.  Its id is the epoch it gives.
CREATE TABLE merges (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org_unit         text COLLATE "C" NOT NULL,
    message_id       text COLLATE "C" NOT NULL UNIQUE,
    kind             text COLLATE "C" NOT NULL CHECK (kind IN ('merge', 'unmerge')),
    target_lead_id   text COLLATE "C" NOT NULL,       -- as asked
    source_lead_ids  text[] COLLATE "C" NOT NULL,     -- as asked
    requested_by     text,
    survivor_lead_id text COLLATE "C" NOT NULL,
    merged_lead_ids  text[] COLLATE "C" NOT NULL,     -- the sources that were no no-ops, as asked; empty: a no-op
    batch            bigint NOT NULL,                 -- rows of its leads that were there at its commit have a smaller one
    counting         text[] COLLATE "C",              -- leads whose rows are still to be counted; null: its event is decided
    events_moved     bigint NOT NULL DEFAULT 0,       -- once counted
    event_id         text COLLATE "C",                -- its event on the survivor's timeline; null: a no-op, or the id was taken
    committed_at     timestamptz NOT NULL
);
CREATE INDEX merges_by_org_unit ON merges (org_unit, id);  -- the newest is the version of the org unit's forest

-- The forest of merges: one edge for each root that was joined to another.  Redirects are the roots of what remains.
CREATE TABLE merge_edges (
    org_unit    text COLLATE "C" NOT NULL,
    source_lead text COLLATE "C" NOT NULL,            -- a root until this edge
    target_lead text COLLATE "C" NOT NULL,            -- the root it was joined to
    merge_id    bigint NOT NULL REFERENCES merges,
    named       text[] COLLATE "C" NOT NULL,          -- the sources as the message named them
    removed_by  bigint REFERENCES merges,             -- the unmerge that took it back
    PRIMARY KEY (org_unit, source_lead, merge_id)
);
-- A forest: a lead is joined to one other at most.
CREATE UNIQUE INDEX merge_edges_live ON merge_edges (org_unit, source_lead) WHERE removed_by IS NULL;

-- Rows that may still stand under another lead than the root of their raw lead: looked at in chunks, in the order of
-- events_by_lead, by whichever worker gets to it.
CREATE TABLE lead_moves (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org_unit   text COLLATE "C" NOT NULL,
    from_lead  text COLLATE "C" NOT NULL,             -- rows with this lead_id are looked at
    merge_id   bigint NOT NULL REFERENCES merges,
    seen       bigint NOT NULL DEFAULT 0,             -- rows looked at so far, up to and with this one:
    seen_type  text COLLATE "C" NOT NULL DEFAULT '',
    seen_time  timestamptz NOT NULL DEFAULT '-infinity',
    seen_id    text COLLATE "C" NOT NULL DEFAULT ''
);
CREATE INDEX lead_moves_by_lead ON lead_moves (org_unit, from_lead);
