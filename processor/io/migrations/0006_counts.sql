-- compatible: 5
-- How many events there are, so that any page of any listing is found without passing over what comes before it.
--
-- Time is cut into slots of 128 ms, and slots into a trie: a node of level k covers 8^k slots, aligned; those of level 8 (24.9
-- days) are its roots.  A node that holds more than 2,048 events is split: its eight children are counted too.  So each time has
-- one leaf, with few events in it unless it is a single slot, and the path to it is short.
--
-- Whoever adds, removes or deletes events says so in event_count_changes, in the same transaction; it only adds a row, so nobody
-- waits.  One worker at a time folds changes into the trie.  In every snapshot, trie + changes = events not deleted.
--
-- A lead with many events has a trie of its own (counted_leads), which is made once somebody lists it.
LOCK TABLE events IN ACCESS EXCLUSIVE MODE;

-- Stable, as the date_part of a timestamptz is said to be: only so is the function expanded where it is called, a tenth of the
-- time.  A double holds the milliseconds of every year up to 9999.
CREATE OR REPLACE FUNCTION event_ms(at timestamptz) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (date_part('epoch', at) * 1000)::bigint
$$;

CREATE FUNCTION slot_of(at timestamptz) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT event_ms(at) >> 7
$$;

CREATE FUNCTION slot_time(slot bigint) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT ms_event(slot << 7)
$$;

-- Reasons as numbers, and sets of reasons as bits: 1 organic, 2 inorganic, 4 inorganic_grouped, 8 metadata_filter.
CREATE FUNCTION reason_number(reason text) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (CASE WHEN reason IS NULL THEN 0 WHEN reason = 'inorganic' THEN 1 WHEN reason = 'inorganic_grouped' THEN 2 ELSE 3 END)::smallint
$$;

CREATE FUNCTION counts(reason smallint, reasons integer) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT reasons >> reason & 1 = 1
$$;

CREATE TABLE event_counts (
    org_unit          text COLLATE "C" NOT NULL,
    lead_id           text COLLATE "C" NOT NULL,      -- empty: of every lead
    event_type        text COLLATE "C" NOT NULL,      -- empty: of every type
    level             smallint NOT NULL,
    slot              bigint NOT NULL,                -- first slot >> 3 * level
    organic           bigint NOT NULL DEFAULT 0,
    inorganic         bigint NOT NULL DEFAULT 0,
    inorganic_grouped bigint NOT NULL DEFAULT 0,
    metadata_filter   bigint NOT NULL DEFAULT 0,
    split             boolean NOT NULL DEFAULT false, -- its children are counted too; only where event_type is empty
    lowest            smallint NOT NULL DEFAULT 8,    -- the lowest level below a root; only there and where event_type is empty
    PRIMARY KEY (org_unit, lead_id, event_type, level, slot)
) WITH (fillfactor = 70);
-- Leaves in the order of time, whatever their level.
CREATE INDEX event_counts_by_time ON event_counts (org_unit, lead_id, event_type, (slot << 3 * level));

CREATE FUNCTION chosen(c event_counts, reasons integer) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT c.organic * (reasons & 1) + c.inorganic * (reasons >> 1 & 1)
        + c.inorganic_grouped * (reasons >> 2 & 1) + c.metadata_filter * (reasons >> 3 & 1)
$$;

-- Leads with a trie of their own, by lead_id of their rows.  Since when a lead is here nobody may store events of it without saying
-- so; its trie is made from what is stored once every transaction that may not have known has ended (barrier).
CREATE TABLE counted_leads (
    org_unit text COLLATE "C" NOT NULL,
    lead_id  text COLLATE "C" NOT NULL,
    barrier  xid8,
    ready    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (org_unit, lead_id)
);

-- By hour, for whoever looks at what is suppressed and why.  filter_id is empty for organic events.
CREATE TABLE suppression_counts (
    org_unit   text COLLATE "C" NOT NULL,
    hour       bigint NOT NULL,                       -- since 1970
    event_type text COLLATE "C" NOT NULL,
    reason     smallint NOT NULL,
    filter_id  text COLLATE "C" NOT NULL,
    count      bigint NOT NULL,
    PRIMARY KEY (org_unit, hour, event_type, reason, filter_id)
) WITH (fillfactor = 70);

-- What is not folded yet: of each statement and org unit a row, its arrays side by side.
CREATE TABLE event_count_changes (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org_unit    text COLLATE "C" NOT NULL,
    moved       boolean NOT NULL DEFAULT false,       -- from lead to lead: nothing to the org unit
    leads       text[] COLLATE "C" NOT NULL,          -- empty: of a lead that is not counted
    event_types text[] COLLATE "C" NOT NULL,
    reasons     smallint[] NOT NULL,
    filter_ids  text[] COLLATE "C" NOT NULL,
    slots       bigint[] NOT NULL,
    counts      bigint[] NOT NULL                     -- negative: removed or deleted
) WITH (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);
CREATE INDEX event_count_changes_by_org_unit ON event_count_changes (org_unit, id);

CREATE FUNCTION count_rows_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_count_changes (org_unit, leads, event_types, reasons, filter_ids, slots, counts)
    SELECT org_unit, array_agg(lead), array_agg(event_type), array_agg(reason), array_agg(filter_id), array_agg(slot),
        array_agg(CASE TG_OP WHEN 'INSERT' THEN n ELSE -n END)
    FROM (
        SELECT c.org_unit, coalesce(l.lead_id, '') AS lead, event_type, reason_number(suppression_reason) AS reason,
            CASE WHEN suppressed_by IS NULL THEN '' ELSE suppressed_by ->> 'filter_id' END AS filter_id,
            slot_of(occurred_at) AS slot, count(*) AS n
        FROM changed c LEFT JOIN counted_leads l ON l.org_unit = c.org_unit AND l.lead_id = c.lead_id
        WHERE deleted_at IS NULL GROUP BY 1, 2, 3, 4, 5, 6
    ) g
    GROUP BY org_unit;
    RETURN NULL;
END $$;

CREATE FUNCTION count_tombstone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_count_changes (org_unit, leads, event_types, reasons, filter_ids, slots, counts)
    VALUES (NEW.org_unit,
        ARRAY[coalesce((SELECT lead_id FROM counted_leads WHERE org_unit = NEW.org_unit AND lead_id = NEW.lead_id), '')],
        ARRAY[NEW.event_type], ARRAY[reason_number(NEW.suppression_reason)],
        ARRAY[coalesce(NEW.suppressed_by ->> 'filter_id', '')], ARRAY[slot_of(NEW.occurred_at)],
        ARRAY[CASE WHEN NEW.deleted_at IS NULL THEN 1 ELSE -1 END]);
    RETURN NULL;
END $$;

CREATE FUNCTION count_rows_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM counted_leads) THEN
        RETURN NULL;
    END IF;
    INSERT INTO event_count_changes (org_unit, moved, leads, event_types, reasons, filter_ids, slots, counts)
    SELECT org_unit, true, array_agg(lead), array_agg(event_type), array_agg(reason), array_agg(''::text), array_agg(slot), array_agg(n)
    FROM (
        SELECT c.org_unit, l.lead_id AS lead, c.event_type, reason_number(c.suppression_reason) AS reason,
            slot_of(c.occurred_at) AS slot, sum(CASE l.lead_id WHEN c.lead_id THEN 1 ELSE -1 END)::bigint AS n
        FROM was JOIN changed c ON c.org_unit = was.org_unit AND c.id = was.id AND c.lead_id <> was.lead_id
        JOIN counted_leads l ON l.org_unit = c.org_unit AND l.lead_id IN (c.lead_id, was.lead_id)
        WHERE c.deleted_at IS NULL
        GROUP BY 1, 2, 3, 4, 5
    ) g
    GROUP BY org_unit;
    RETURN NULL;
END $$;

-- Listings.  The types stand last in the keys: there they are compared without a look at the row.
CREATE INDEX events_by_time ON events (org_unit, occurred_at, id, event_type) INCLUDE (suppression_reason)
    WHERE deleted_at IS NULL;
-- A lead's events in the order they are listed; windows are rebuilt from here too, and a merge moves rows by it.
DROP INDEX events_by_lead;
CREATE INDEX events_by_lead ON events (org_unit, lead_id, occurred_at, id, event_type) INCLUDE (suppression_reason, deleted_at);

-- What is chosen of the changes that are not folded yet.  Here and below an empty lead stands for all of them.
CREATE FUNCTION pending_counts(p_org text, p_lead text, p_type text, p_reasons integer) RETURNS TABLE (slot bigint, n bigint)
LANGUAGE sql STABLE AS $$
    SELECT u.slot, u.n
    FROM event_count_changes c
    CROSS JOIN LATERAL unnest(c.leads, c.event_types, c.reasons, c.slots, c.counts) AS u (lead, type, reason, slot, n)
    WHERE c.org_unit = p_org AND CASE p_lead WHEN '' THEN NOT c.moved ELSE u.lead = p_lead END
        AND (p_type = '' OR u.type = p_type) AND counts(u.reason, p_reasons)
$$;

-- How many chosen events lie in slots before the leaf of a slot, and the first slot of that leaf.
CREATE FUNCTION counted_before(
    p_org text, p_lead text, p_type text, p_reasons integer, p_slot bigint, OUT before bigint, OUT first bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_level integer := 8;
BEGIN
    SELECT coalesce(sum(chosen(c, p_reasons)), 0) INTO before FROM event_counts c
    WHERE org_unit = p_org AND lead_id = p_lead AND event_type = p_type AND level = 8 AND slot < p_slot >> 24;
    WHILE v_level > 0 AND EXISTS (
        SELECT FROM event_counts
        WHERE org_unit = p_org AND lead_id = p_lead AND event_type = '' AND level = v_level AND slot = p_slot >> 3 * v_level AND split)
    LOOP
        v_level := v_level - 1;
        before := before + (
            SELECT coalesce(sum(chosen(c, p_reasons)), 0) FROM event_counts c
            WHERE org_unit = p_org AND lead_id = p_lead AND event_type = p_type AND level = v_level
                AND slot >= p_slot >> 3 * v_level + 3 << 3 AND slot < p_slot >> 3 * v_level);
    END LOOP;
    first := p_slot >> 3 * v_level << 3 * v_level;
    before := before + (
        SELECT coalesce(sum(n), 0) FROM pending_counts(p_org, p_lead, p_type, p_reasons) WHERE slot < counted_before.first);
END $$;

-- How many chosen events of an org unit occurred before a time; null: how many there are.
CREATE FUNCTION event_rank(p_org text, p_type text, p_reasons integer, p_at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_leaf record;
BEGIN
    v_leaf := counted_before(p_org, '', p_type, p_reasons, coalesce(slot_of(p_at), 1::bigint << 60));
    IF p_at IS NULL THEN
        RETURN v_leaf.before;
    END IF;
    RETURN v_leaf.before + (
        SELECT count(*) FROM events
        WHERE org_unit = p_org AND occurred_at >= slot_time(v_leaf.first) AND occurred_at < p_at AND deleted_at IS NULL
            AND (p_type = '' OR event_type = p_type) AND (p_reasons = 15 OR counts(reason_number(suppression_reason), p_reasons)));
END $$;

-- The same of the rows of a counted lead.
CREATE FUNCTION lead_rank(p_org text, p_lead text, p_type text, p_reasons integer, p_at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_leaf record;
BEGIN
    v_leaf := counted_before(p_org, p_lead, p_type, p_reasons, coalesce(slot_of(p_at), 1::bigint << 60));
    IF p_at IS NULL THEN
        RETURN v_leaf.before;
    END IF;
    RETURN v_leaf.before + (
        SELECT count(*) FROM events
        WHERE org_unit = p_org AND lead_id = p_lead AND occurred_at >= slot_time(v_leaf.first) AND occurred_at < p_at
            AND deleted_at IS NULL AND (p_type = '' OR event_type = p_type)
            AND (p_reasons = 15 OR counts(reason_number(suppression_reason), p_reasons)));
END $$;

-- The leaf in which the chosen event of a rank lies: its slots from first to before last, how many chosen events it holds, and
-- how many come before it.  p_slots and p_counts are what pending_counts says: looked up once for all leaves of a page.
CREATE FUNCTION event_leaf(
    p_org text, p_lead text, p_type text, p_reasons integer, p_rank bigint, p_slots bigint[], p_counts bigint[],
    OUT first bigint, OUT last bigint, OUT held bigint, OUT before bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_level integer := 8;
    v_low   bigint := -(1::bigint << 60);
    v_high  bigint := 1::bigint << 60;
    v_node  record;
BEGIN
    before := 0;
    LOOP
        SELECT s.slot, s.n, s.before, coalesce((
            SELECT c.split FROM event_counts c
            WHERE c.org_unit = p_org AND c.lead_id = p_lead AND c.event_type = '' AND c.level = v_level AND c.slot = s.slot), false) AS split
        INTO v_node FROM (
            SELECT x.slot, sum(x.n) AS n, sum(sum(x.n)) OVER (ORDER BY x.slot) - sum(x.n) AS before FROM (
                SELECT c.slot, chosen(c, p_reasons) AS n FROM event_counts c
                WHERE c.org_unit = p_org AND c.lead_id = p_lead AND c.event_type = p_type AND c.level = v_level
                    AND c.slot BETWEEN v_low AND v_high
                UNION ALL
                SELECT p.slot >> 3 * v_level, p.n FROM unnest(p_slots, p_counts) AS p (slot, n)
                WHERE p.slot >> 3 * v_level BETWEEN v_low AND v_high
            ) x
            GROUP BY x.slot
        ) s
        WHERE s.before <= p_rank - event_leaf.before AND p_rank - event_leaf.before < s.before + s.n
        ORDER BY s.slot LIMIT 1;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the counts of events do not add up for rank %', p_rank;
        END IF;
        before := before + v_node.before;
        held := v_node.n;
        EXIT WHEN v_level = 0 OR NOT v_node.split;
        v_low := v_node.slot << 3;
        v_high := v_low + 7;
        v_level := v_level - 1;
    END LOOP;
    first := v_node.slot << 3 * v_level;
    last := v_node.slot + 1 << 3 * v_level;
END $$;

-- A page of an org unit's events, newest first: occurred in [p_from, p_to), either null where it does not bound.  One row at least:
-- n 0 has the total alone.
CREATE FUNCTION event_page(
    p_org text, p_type text, p_reasons integer, p_from timestamptz, p_to timestamptz, p_offset bigint, p_limit bigint
) RETURNS TABLE (n bigint, total bigint, id text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
    v_low   bigint := CASE WHEN p_from IS NULL THEN 0 ELSE event_rank(p_org, p_type, p_reasons, p_from) END;
    v_next  bigint := event_rank(p_org, p_type, p_reasons, p_to) - 1;
    v_left  bigint := p_limit;
    v_leaf  record;
    v_take  bigint;
    v_slots  bigint[];
    v_counts bigint[];
BEGIN
    n := 0;
    total := v_next + 1 - v_low;
    RETURN NEXT;
    v_next := v_next - p_offset;
    SELECT array_agg(p.slot), array_agg(p.n) INTO v_slots, v_counts FROM pending_counts(p_org, '', p_type, p_reasons) p;
    LOOP
        IF v_left = 0 OR v_next < v_low THEN
            RETURN;
        END IF;
        v_leaf := event_leaf(p_org, '', p_type, p_reasons, v_next, v_slots, v_counts);
        v_take := least(v_left, v_next + 1 - greatest(v_leaf.before, v_low));
        RETURN QUERY
        SELECT event_page.n + row_number() OVER (), event_page.total, x.id FROM (
            SELECT e.id FROM events e
            WHERE e.org_unit = p_org AND e.occurred_at >= slot_time(v_leaf.first) AND e.occurred_at < slot_time(v_leaf.last)
                AND e.deleted_at IS NULL AND (p_type = '' OR e.event_type = p_type)
                AND (p_reasons = 15 OR counts(reason_number(e.suppression_reason), p_reasons))
            ORDER BY e.occurred_at DESC, e.id DESC
            OFFSET v_leaf.before + v_leaf.held - 1 - v_next LIMIT v_take
        ) x;
        n := n + v_take;
        v_left := v_left - v_take;
        v_next := v_next - v_take;
        -- The leaves before it: all at once, where the trie alone tells of them.
        EXIT WHEN NOT EXISTS (SELECT FROM unnest(v_slots) AS slot WHERE slot < v_leaf.first);
    END LOOP;
    RETURN QUERY
    SELECT event_page.n + row_number() OVER (), event_page.total, x.id FROM (
        SELECT e.id
        FROM (
            SELECT c.slot << 3 * c.level AS first, c.slot + 1 << 3 * c.level AS last FROM event_counts c
            WHERE c.org_unit = p_org AND c.lead_id = '' AND c.event_type = p_type AND c.slot << 3 * c.level < v_leaf.first
                AND chosen(c, p_reasons) > 0 AND NOT EXISTS (
                    SELECT FROM event_counts s
                    WHERE s.org_unit = p_org AND s.lead_id = '' AND s.event_type = '' AND s.level = c.level AND s.slot = c.slot
                        AND s.split)
            ORDER BY c.slot << 3 * c.level DESC LIMIT v_left
        ) leaf
        CROSS JOIN LATERAL (
            SELECT e.id FROM events e
            WHERE e.org_unit = p_org AND e.occurred_at >= slot_time(leaf.first) AND e.occurred_at < slot_time(leaf.last)
                AND e.deleted_at IS NULL AND (p_type = '' OR e.event_type = p_type)
                AND (p_reasons = 15 OR counts(reason_number(e.suppression_reason), p_reasons))
            ORDER BY e.occurred_at DESC, e.id DESC LIMIT v_left
        ) e
        LIMIT greatest(0, least(v_left, v_next + 1 - v_low))
    ) x;
END $$;

-- A page of a counted lead's rows.
CREATE FUNCTION counted_lead_page(
    p_org text, p_lead text, p_type text, p_reasons integer, p_from timestamptz, p_to timestamptz, p_offset bigint, p_limit bigint
) RETURNS TABLE (n bigint, total bigint, id text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_low  bigint := CASE WHEN p_from IS NULL THEN 0 ELSE lead_rank(p_org, p_lead, p_type, p_reasons, p_from) END;
    v_next bigint := lead_rank(p_org, p_lead, p_type, p_reasons, p_to) - 1;
    v_left bigint := p_limit;
    v_leaf record;
    v_take bigint;
    v_slots  bigint[];
    v_counts bigint[];
BEGIN
    n := 0;
    total := v_next + 1 - v_low;
    RETURN NEXT;
    v_next := v_next - p_offset;
    SELECT array_agg(p.slot), array_agg(p.n) INTO v_slots, v_counts FROM pending_counts(p_org, p_lead, p_type, p_reasons) p;
    WHILE v_left > 0 AND v_next >= v_low LOOP
        v_leaf := event_leaf(p_org, p_lead, p_type, p_reasons, v_next, v_slots, v_counts);
        v_take := least(v_left, v_next + 1 - greatest(v_leaf.before, v_low));
        RETURN QUERY
        SELECT counted_lead_page.n + row_number() OVER (), counted_lead_page.total, x.id FROM (
            SELECT e.id FROM events e
            WHERE e.org_unit = p_org AND e.lead_id = p_lead AND e.occurred_at >= slot_time(v_leaf.first)
                AND e.occurred_at < slot_time(v_leaf.last) AND e.deleted_at IS NULL AND (p_type = '' OR e.event_type = p_type)
                AND (p_reasons = 15 OR counts(reason_number(e.suppression_reason), p_reasons))
            ORDER BY e.occurred_at DESC, e.id DESC
            OFFSET v_leaf.before + v_leaf.held - 1 - v_next LIMIT v_take
        ) x;
        n := n + v_take;
        v_left := v_left - v_take;
        v_next := v_next - v_take;
    END LOOP;
END $$;

-- A page of one lead's events, as event_page.  Rows stand under their root, and while moves are pending also under other leads;
-- those of a lead that no merge has touched (epoch 0) never do.
CREATE FUNCTION lead_page(
    p_org text, p_lead text, p_type text, p_reasons integer, p_from timestamptz, p_to timestamptz, p_offset bigint, p_limit bigint
) RETURNS TABLE (n bigint, total bigint, id text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_root   text := coalesce((SELECT to_lead FROM lead_redirects WHERE org_unit = p_org AND from_lead = p_lead), p_lead);
    v_from   timestamptz := coalesce(p_from, '-infinity');
    v_to     timestamptz := coalesce(p_to, 'infinity');
    v_class  text[];
    v_places text[];
    v_after  bigint;
BEGIN
    n := 0;
    IF EXISTS (SELECT FROM lead_moves WHERE org_unit = p_org)
        AND EXISTS (SELECT FROM lead_epochs WHERE org_unit = p_org AND lead_id = v_root) THEN
        v_class := lead_class(p_org, v_root);
        v_places := ARRAY(SELECT DISTINCT unnest(lead_places(p_org, v_class)));
        RETURN QUERY
        SELECT coalesce(x.n, 0), t.total, x.id
        FROM (
            SELECT count(*) AS total FROM events e
            WHERE e.org_unit = p_org AND e.lead_id = ANY (v_places) AND coalesce(e.original_lead_id, e.lead_id) = ANY (v_class)
                AND e.occurred_at >= v_from AND e.occurred_at < v_to AND e.deleted_at IS NULL
                AND (p_type = '' OR e.event_type = p_type)
                AND (p_reasons = 15 OR counts(reason_number(e.suppression_reason), p_reasons))
        ) t
        LEFT JOIN (
            SELECT row_number() OVER (ORDER BY e.occurred_at DESC, e.id DESC) AS n, e.id FROM events e
            WHERE e.org_unit = p_org AND e.lead_id = ANY (v_places) AND coalesce(e.original_lead_id, e.lead_id) = ANY (v_class)
                AND e.occurred_at >= v_from AND e.occurred_at < v_to AND e.deleted_at IS NULL
                AND (p_type = '' OR e.event_type = p_type)
                AND (p_reasons = 15 OR counts(reason_number(e.suppression_reason), p_reasons))
            ORDER BY e.occurred_at DESC, e.id DESC OFFSET p_offset LIMIT p_limit
        ) x ON true;
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM counted_leads WHERE org_unit = p_org AND lead_id = v_root AND ready) THEN
        RETURN QUERY SELECT * FROM counted_lead_page(p_org, v_root, p_type, p_reasons, p_from, p_to, p_offset, p_limit);
        RETURN;
    END IF;
    SELECT count(*) INTO total FROM events e
    WHERE e.org_unit = p_org AND e.lead_id = v_root AND e.occurred_at >= v_from AND e.occurred_at < v_to
        AND e.deleted_at IS NULL AND (p_type = '' OR e.event_type = p_type)
                AND (p_reasons = 15 OR counts(reason_number(e.suppression_reason), p_reasons));
    RETURN NEXT;
    v_after := total - p_offset - p_limit;  -- how many come after the page: it is read from the nearer end
    IF v_after > p_offset THEN
        RETURN QUERY
        SELECT row_number() OVER (), lead_page.total, x.id FROM (
            SELECT e.id FROM events e
            WHERE e.org_unit = p_org AND e.lead_id = v_root AND e.occurred_at >= v_from AND e.occurred_at < v_to
                AND e.deleted_at IS NULL AND (p_type = '' OR e.event_type = p_type)
                AND (p_reasons = 15 OR counts(reason_number(e.suppression_reason), p_reasons))
            ORDER BY e.occurred_at DESC, e.id DESC OFFSET p_offset LIMIT p_limit
        ) x;
    ELSIF total > p_offset THEN
        RETURN QUERY
        SELECT lead_page.total - p_offset - greatest(v_after, 0) + 1 - row_number() OVER (), lead_page.total, x.id FROM (
            SELECT e.id FROM events e
            WHERE e.org_unit = p_org AND e.lead_id = v_root AND e.occurred_at >= v_from AND e.occurred_at < v_to
                AND e.deleted_at IS NULL AND (p_type = '' OR e.event_type = p_type)
                AND (p_reasons = 15 OR counts(reason_number(e.suppression_reason), p_reasons))
            ORDER BY e.occurred_at, e.id OFFSET greatest(v_after, 0) LIMIT p_limit + least(v_after, 0)
        ) x;
    END IF;
END $$;

-- What the trie is to hold of a lead (empty: of all) in [p_first, p_last), by nodes of a level: the events that are stored, less what
-- is still to be folded.  Null bounds nothing.
CREATE FUNCTION node_counts(p_org text, p_lead text, p_first bigint, p_last bigint, p_level integer)
RETURNS TABLE (type text, reason smallint, slot bigint, n bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_from timestamptz := coalesce(slot_time(p_first), '-infinity');
    v_to   timestamptz := coalesce(slot_time(p_last), 'infinity');
BEGIN
    IF p_lead = '' THEN
        RETURN QUERY
        SELECT event_type, reason_number(suppression_reason), slot_of(occurred_at) >> 3 * p_level, count(*) FROM events
        WHERE org_unit = p_org AND occurred_at >= v_from AND occurred_at < v_to AND deleted_at IS NULL
        GROUP BY 1, 2, 3;
    ELSE
        RETURN QUERY
        SELECT event_type, reason_number(suppression_reason), slot_of(occurred_at) >> 3 * p_level, count(*) FROM events
        WHERE org_unit = p_org AND lead_id = p_lead AND occurred_at >= v_from AND occurred_at < v_to AND deleted_at IS NULL
        GROUP BY 1, 2, 3;
    END IF;
    RETURN QUERY
    SELECT u.type, u.reason, u.slot >> 3 * p_level, -sum(u.n)::bigint
    FROM event_count_changes c
    CROSS JOIN LATERAL unnest(c.leads, c.event_types, c.reasons, c.slots, c.counts) AS u (lead, type, reason, slot, n)
    WHERE c.org_unit = p_org AND CASE p_lead WHEN '' THEN NOT c.moved ELSE u.lead = p_lead END
        AND (p_first IS NULL OR u.slot >= p_first) AND (p_last IS NULL OR u.slot < p_last)
    GROUP BY 1, 2, 3;
END $$;

-- Counts the children of a node.  Of a large node it goes three levels down at once: what is read costs more than what is written.
CREATE FUNCTION split_node(p_org text, p_lead text, p_level integer, p_slot bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_held  bigint := (
        SELECT chosen(c, 15) FROM event_counts c
        WHERE org_unit = p_org AND lead_id = p_lead AND event_type = '' AND level = p_level AND slot = p_slot);
    v_depth integer := CASE WHEN v_held > 2048 * 64 THEN least(p_level, 3) ELSE 1 END;
BEGIN
    INSERT INTO event_counts (
        org_unit, lead_id, event_type, level, slot, organic, inorganic, inorganic_grouped, metadata_filter, split)
    SELECT p_org, p_lead, t.type, p_level - v_depth + up, slot >> 3 * up,
        coalesce(sum(n) FILTER (WHERE reason = 0), 0), coalesce(sum(n) FILTER (WHERE reason = 1), 0),
        coalesce(sum(n) FILTER (WHERE reason = 2), 0), coalesce(sum(n) FILTER (WHERE reason = 3), 0), up > 0 AND t.type = ''
    FROM node_counts(p_org, p_lead, p_slot << 3 * p_level, p_slot + 1 << 3 * p_level, p_level - v_depth) AS lowest
    CROSS JOIN LATERAL (VALUES (lowest.type), ('')) AS t (type) CROSS JOIN generate_series(0, v_depth - 1) AS up
    GROUP BY t.type, up, slot >> 3 * up;
    UPDATE event_counts SET split = true
    WHERE org_unit = p_org AND lead_id = p_lead AND event_type = '' AND level = p_level AND slot = p_slot;
    UPDATE event_counts SET lowest = least(lowest, p_level - v_depth)
    WHERE org_unit = p_org AND lead_id = p_lead AND event_type = '' AND level = 8 AND slot = p_slot >> 24 - 3 * p_level;
END $$;

-- Splits every node of a trie that holds too much, as far down as it takes.
CREATE FUNCTION split_counts(p_org text, p_lead text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_node record;
BEGIN
    FOR v_level IN REVERSE 8..1 LOOP
        FOR v_node IN
            SELECT slot FROM event_counts c
            WHERE org_unit = p_org AND lead_id = p_lead AND event_type = '' AND level = v_level AND NOT split AND chosen(c, 15) > 2048
        LOOP
            PERFORM split_node(p_org, p_lead, v_level, v_node.slot);
        END LOOP;
    END LOOP;
END $$;

-- Makes a trie from what is stored.
CREATE FUNCTION count_anew(p_org text, p_lead text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO event_counts (
        org_unit, lead_id, event_type, level, slot, organic, inorganic, inorganic_grouped, metadata_filter)
    SELECT p_org, p_lead, t.type, 8, slot,
        coalesce(sum(n) FILTER (WHERE reason = 0), 0), coalesce(sum(n) FILTER (WHERE reason = 1), 0),
        coalesce(sum(n) FILTER (WHERE reason = 2), 0), coalesce(sum(n) FILTER (WHERE reason = 3), 0)
    FROM node_counts(p_org, p_lead, NULL, NULL, 8) AS root CROSS JOIN LATERAL (VALUES (root.type), ('')) AS t (type)
    GROUP BY t.type, slot;
    PERFORM split_counts(p_org, p_lead);
END $$;

-- Folds up to p_limit changes of one org unit, of those up to p_last.  How many there were; null where there are none, or another
-- worker is at it.
CREATE FUNCTION fold_counts(p_limit bigint, p_last bigint DEFAULT 9223372036854775807) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_org     text;
    v_changes bigint;
    v_leads   text[];
    v_types   text[];
    v_reasons smallint[];
    v_slots   bigint[];
    v_counts  bigint[];
    v_dense   record;
    v_split   record;
    v_of      text[] := '{}';
    v_levels  integer[] := '{}';
    v_nodes   bigint[] := '{}';
BEGIN
    IF NOT pg_try_advisory_xact_lock(7704, 0) THEN
        RETURN NULL;
    END IF;
    SELECT org_unit INTO v_org FROM event_count_changes WHERE id <= p_last ORDER BY id LIMIT 1;
    IF v_org IS NULL THEN
        RETURN NULL;
    END IF;
    WITH gone AS (
        DELETE FROM event_count_changes WHERE id IN (
            SELECT id FROM event_count_changes WHERE org_unit = v_org AND id <= p_last ORDER BY id LIMIT p_limit)
        RETURNING *
    ), entries AS MATERIALIZED (
        SELECT moved, u.lead, u.type, u.reason, u.filter_id, u.slot, sum(u.n)::bigint AS n
        FROM gone CROSS JOIN LATERAL unnest(leads, event_types, reasons, filter_ids, slots, counts)
            AS u (lead, type, reason, filter_id, slot, n)
        GROUP BY 1, 2, 3, 4, 5, 6
    ), hours AS (
        INSERT INTO suppression_counts AS s (org_unit, hour, event_type, reason, filter_id, count)
        SELECT v_org, floor(slot / 28125.0)::bigint, type, reason, filter_id, sum(n)  -- 28,125 slots are an hour
        FROM entries WHERE NOT moved
        GROUP BY 2, 3, 4, 5
        ON CONFLICT (org_unit, hour, event_type, reason, filter_id) DO UPDATE SET count = s.count + excluded.count
    ), tries AS (
        SELECT ''::text COLLATE "C" AS lead, type, reason, slot, n FROM entries WHERE NOT moved
        UNION ALL
        SELECT lead, type, reason, slot, n FROM entries JOIN counted_leads l ON l.org_unit = v_org AND l.lead_id = lead AND l.ready
    ), coarse AS (  -- slots that no leaf tells apart need not be either: a backfill has as many slots as events
        SELECT t.lead, t.type, t.reason, t.slot >> 3 * coalesce(c.lowest, 8) << 3 * coalesce(c.lowest, 8) AS slot, sum(t.n)::bigint AS n
        FROM tries t
        LEFT JOIN event_counts c ON c.org_unit = v_org AND c.lead_id = t.lead AND c.event_type = '' AND c.level = 8
            AND c.slot = t.slot >> 24
        GROUP BY 1, 2, 3, 4
    )
    SELECT (SELECT count(*) FROM gone), array_agg(lead), array_agg(type), array_agg(reason), array_agg(slot), array_agg(n)
    INTO v_changes, v_leads, v_types, v_reasons, v_slots, v_counts FROM coarse;

    FOR v_level IN REVERSE 8..0 LOOP
        -- Of what is left, each level keeps what lies under a node that was split before.
        IF v_level < 8 THEN
            SELECT array_agg(lead), array_agg(type), array_agg(reason), array_agg(u.slot), array_agg(n)
            INTO v_leads, v_types, v_reasons, v_slots, v_counts
            FROM unnest(v_leads, v_types, v_reasons, v_slots, v_counts) AS u (lead, type, reason, slot, n)
            JOIN event_counts c ON c.org_unit = v_org AND c.lead_id = lead AND c.event_type = '' AND c.level = v_level + 1
                AND c.slot = u.slot >> 3 * v_level + 3 AND c.split;
        END IF;
        EXIT WHEN v_slots IS NULL;
        WITH written AS (
            INSERT INTO event_counts AS c (
                org_unit, lead_id, event_type, level, slot, organic, inorganic, inorganic_grouped, metadata_filter)
            SELECT v_org, u.lead, t.type, v_level, u.slot >> 3 * v_level,
                coalesce(sum(n) FILTER (WHERE reason = 0), 0), coalesce(sum(n) FILTER (WHERE reason = 1), 0),
                coalesce(sum(n) FILTER (WHERE reason = 2), 0), coalesce(sum(n) FILTER (WHERE reason = 3), 0)
            FROM unnest(v_leads, v_types, v_reasons, v_slots, v_counts) AS u (lead, type, reason, slot, n)
            CROSS JOIN LATERAL (VALUES (u.type), ('')) AS t (type)
            GROUP BY 2, 3, 5
            ON CONFLICT (org_unit, lead_id, event_type, level, slot) DO UPDATE SET
                organic = c.organic + excluded.organic, inorganic = c.inorganic + excluded.inorganic,
                inorganic_grouped = c.inorganic_grouped + excluded.inorganic_grouped,
                metadata_filter = c.metadata_filter + excluded.metadata_filter
            RETURNING c.lead_id, c.event_type, c.slot, c.split, chosen(c, 15) AS held
        )
        SELECT array_agg(lead_id) AS leads, array_agg(slot) AS slots INTO v_dense
        FROM written WHERE event_type = '' AND NOT split AND held > 2048;
        IF v_level > 0 AND v_dense.slots IS NOT NULL THEN
            v_of := v_of || v_dense.leads;
            v_nodes := v_nodes || v_dense.slots;
            v_levels := v_levels || array_fill(v_level, ARRAY[cardinality(v_dense.slots)]);
        END IF;
    END LOOP;
    PERFORM split_node(v_org, lead, level, slot) FROM unnest(v_of, v_levels, v_nodes) AS u (lead, level, slot);
    FOR v_split IN SELECT DISTINCT lead FROM unnest(v_of) AS lead LOOP
        PERFORM split_counts(v_org, v_split.lead);  -- children may hold too much already
    END LOOP;
    RETURN v_changes;
END $$;

-- Leads that are to be counted are, as soon as they can be; called again and again.  How many have become so.
CREATE FUNCTION count_leads() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_lead record;
    v_done bigint := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7704, 0) THEN
        RETURN 0;
    END IF;
    FOR v_lead IN
        SELECT org_unit, lead_id FROM counted_leads WHERE NOT ready AND barrier <= pg_snapshot_xmin(pg_current_snapshot())
    LOOP
        PERFORM count_anew(v_lead.org_unit, v_lead.lead_id);
        UPDATE counted_leads SET ready = true WHERE org_unit = v_lead.org_unit AND lead_id = v_lead.lead_id;
        v_done := v_done + 1;
    END LOOP;
    -- Whoever began to write before this has not seen the lead here, and has ended once no transaction before it is left.
    UPDATE counted_leads SET barrier = pg_snapshot_xmax(pg_current_snapshot()) WHERE barrier IS NULL;
    RETURN v_done;
END $$;

-- Asks for the counts of leads that ANALYZE has found to have many rows, in org units that are large enough.
CREATE FUNCTION find_large_leads(p_large bigint) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO counted_leads (org_unit, lead_id)
    SELECT o.org_unit, v.lead
    FROM (
        SELECT org_unit FROM event_counts c WHERE lead_id = '' AND event_type = '' AND level = 8
        GROUP BY org_unit HAVING sum(chosen(c, 15)) > p_large
    ) o
    CROSS JOIN (
        SELECT unnest(most_common_vals::text::text[]) AS lead FROM pg_stats
        WHERE schemaname = current_schema() AND tablename = 'events' AND attname = 'lead_id'
    ) v
    WHERE NOT EXISTS (SELECT FROM counted_leads l WHERE l.org_unit = o.org_unit AND l.lead_id = v.lead)
        AND (SELECT count(*) FROM (
            SELECT FROM events e WHERE e.org_unit = o.org_unit AND e.lead_id = v.lead LIMIT p_large + 1) x) > p_large
    ON CONFLICT DO NOTHING
$$;

-- What is stored already.  From here on the triggers tell.
CREATE TRIGGER count_added AFTER INSERT ON events
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_rows_changed();
CREATE TRIGGER count_removed AFTER DELETE ON events
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_rows_changed();
CREATE TRIGGER count_deleted AFTER UPDATE ON events
    FOR EACH ROW WHEN ((OLD.deleted_at IS NULL) <> (NEW.deleted_at IS NULL)) EXECUTE FUNCTION count_tombstone();
CREATE TRIGGER count_moved AFTER UPDATE ON events
    REFERENCING OLD TABLE AS was NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_rows_moved();
SELECT count_anew(org_unit, '') FROM (SELECT DISTINCT org_unit FROM events) o;
INSERT INTO suppression_counts (org_unit, hour, event_type, reason, filter_id, count)
SELECT org_unit, floor(event_ms(occurred_at) / 3600000.0)::bigint, event_type, reason_number(suppression_reason),
    coalesce(suppressed_by ->> 'filter_id', ''), count(*)
FROM events WHERE deleted_at IS NULL
GROUP BY 1, 2, 3, 4, 5;

-- Moves go through rows in the order of the new index; pending ones begin again.
ALTER TABLE lead_moves DROP COLUMN seen_type;
UPDATE lead_moves SET seen = 0, seen_time = '-infinity', seen_id = '';
DROP FUNCTION move_chunk;
CREATE FUNCTION move_chunk(
    p_move lead_moves, p_limit bigint, OUT seen bigint, OUT moved bigint, OUT last_time timestamptz, OUT last_id text)
LANGUAGE sql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    WITH chunk AS MATERIALIZED (
        SELECT id, occurred_at, coalesce(original_lead_id, lead_id) AS raw FROM events
        WHERE org_unit = p_move.org_unit AND lead_id = p_move.from_lead
            AND (occurred_at, id) > (p_move.seen_time, p_move.seen_id)
        ORDER BY occurred_at, id LIMIT p_limit
    ), due AS MATERIALIZED (
        SELECT c.id, c.raw, coalesce((
            SELECT r.to_lead FROM lead_redirects r WHERE r.org_unit = p_move.org_unit AND r.from_lead = c.raw), c.raw) AS root
        FROM chunk c
    ), strays AS MATERIALIZED (
        SELECT d.* FROM due d JOIN events e ON e.org_unit = p_move.org_unit AND e.id = d.id
        WHERE e.lead_id <> d.root  -- nothing on from_lead: the rows are to be found by their ids
        ORDER BY e.id FOR UPDATE OF e  -- the same order as in every other chunk and in deletes: no deadlock
    ), moved AS (
        UPDATE events e SET lead_id = s.root, original_lead_id = nullif(s.raw, s.root) FROM strays s
        WHERE e.org_unit = p_move.org_unit AND e.id = s.id
        RETURNING e.id
    )
    SELECT (SELECT count(*) FROM chunk), (SELECT count(*) FROM moved), l.occurred_at, l.id
    FROM (VALUES (1)) AS one LEFT JOIN (
        SELECT occurred_at, id FROM chunk ORDER BY occurred_at DESC, id DESC LIMIT 1) l ON true
$$;

CREATE OR REPLACE FUNCTION move_events(p_limit bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_org   text;
    v_move  lead_moves;
    v_left  bigint := p_limit;
    v_moved bigint;
    v_chunk record;
BEGIN
    SELECT org_unit INTO v_org FROM lead_moves ORDER BY seen, id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF v_org IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock_shared(7703, merge_mutex(v_org));
    FOR v_move IN SELECT * FROM lead_moves WHERE org_unit = v_org ORDER BY seen, id FOR UPDATE SKIP LOCKED LOOP
        SELECT * INTO v_chunk FROM move_chunk(v_move, v_left);
        v_moved := coalesce(v_moved, 0) + v_chunk.moved;
        IF v_chunk.seen < v_left THEN
            DELETE FROM lead_moves WHERE id = v_move.id;
        ELSE
            UPDATE lead_moves SET seen = v_move.seen + v_chunk.seen, seen_time = v_chunk.last_time, seen_id = v_chunk.last_id
            WHERE id = v_move.id;
        END IF;
        v_left := v_left - v_chunk.seen;
        EXIT WHEN v_left <= 0;
    END LOOP;
    RETURN v_moved;
END $$;
