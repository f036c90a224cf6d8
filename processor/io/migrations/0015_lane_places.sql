-- compatible: 5
-- How far each lane has published, some moments ago: a group whose coordinator forgets what it committed is found out by this.
CREATE TABLE lane_places (
    consumer_group text COLLATE "C" NOT NULL,
    topic          text COLLATE "C" NOT NULL,
    partition      integer NOT NULL,
    topic_identity bytea NOT NULL,   -- a topic that is created again is another one
    next_offset    bigint NOT NULL,  -- everything below is published
    last_offset    bigint,           -- of the record that was published last, and what tells it from any other; null: not known
    last_digest    bytea NOT NULL,
    owner          text NOT NULL,    -- the last lane that began here: what a former one tells comes too late
    PRIMARY KEY (consumer_group, topic, partition)
) WITH (fillfactor = 50);
