-- compatible: 5
-- The generation of windows that was begun last in each shard, in whatever Redis: another one that is found there has not had all
-- that was committed since.
CREATE TABLE window_generations (
    shard      text COLLATE "C" PRIMARY KEY,
    generation text NOT NULL
);
