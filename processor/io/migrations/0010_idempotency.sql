-- compatible: 5
-- Who is publishing what a claimed key stands for, and until when it is believed to be alive: from then on whoever asks with the
-- key publishes in its place, with the same ids.
ALTER TABLE idempotency_keys
    ADD COLUMN lease text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN leased_until timestamptz NOT NULL DEFAULT '-infinity';
