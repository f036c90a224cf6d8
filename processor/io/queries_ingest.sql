-- ---------------------------------------------------------------------------------------------------------------------
-- Idempotency keys (idempotency.py).  Leases are by the clock of Postgres, which all API processes share.

-- name: claim_key
-- A row where the key is ours to publish: it is new or older than 24 h, or nobody publishes the same body under it any more.
-- Then ids and time are those of the first claim.
INSERT INTO idempotency_keys AS k (org_unit, key, body_hash, ids, claimed_at, lease, leased_until)
VALUES ($1, $2, $3, $5, $4, $6, clock_timestamp() + $7::bigint * interval '1 millisecond')
ON CONFLICT (org_unit, key) DO UPDATE SET
    body_hash = excluded.body_hash,
    ids = CASE WHEN k.claimed_at <= $4::timestamptz - interval '24 hours' THEN excluded.ids ELSE k.ids END,
    claimed_at = CASE WHEN k.claimed_at <= $4::timestamptz - interval '24 hours' THEN excluded.claimed_at ELSE k.claimed_at END,
    done = false,
    lease = excluded.lease,
    leased_until = excluded.leased_until
WHERE k.claimed_at <= $4::timestamptz - interval '24 hours'
    OR (NOT k.done AND k.body_hash = excluded.body_hash AND k.leased_until <= clock_timestamp())
RETURNING ids, claimed_at

-- name: find_key
-- Nothing where it is older than 24 h.  After a claim that found it taken it sees what that has waited for.
SELECT body_hash = $3 AS same_body, done, ids FROM idempotency_keys
WHERE org_unit = $1 AND key = $2 AND claimed_at > $4::timestamptz - interval '24 hours'

-- name: renew_key
UPDATE idempotency_keys SET leased_until = clock_timestamp() + $4::bigint * interval '1 millisecond'
WHERE org_unit = $1 AND key = $2 AND lease = $3 AND NOT done

-- name: finish_key
-- Where another one has taken over, it is about to say so itself.
UPDATE idempotency_keys SET done = true WHERE org_unit = $1 AND key = $2 AND lease = $3

-- name: release_key
UPDATE idempotency_keys SET leased_until = '-infinity' WHERE org_unit = $1 AND key = $2 AND lease = $3

-- name: forget_keys
SELECT forget_idempotency_keys()
