-- ---------------------------------------------------------------------------------------------------------------------
-- What `processor doctor` asks (checkup_postgres.py)

-- name: checkup_server
SELECT current_setting('server_version_num')::integer / 10000 AS version, current_setting('server_encoding') AS encoding,
    pg_is_in_recovery() AS replica, current_setting('transaction_read_only') = 'on' AS read_only,
    current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
    current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer AS most_connections,
    current_setting('max_locks_per_transaction')::bigint
        * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint) AS locks,
    clock_timestamp() AS now

-- name: checkup_rights
-- $1: the tables of the schema; $2: milliseconds within which a worker was seen that runs.
SELECT current_user::text AS "user",
    ARRAY(
        SELECT t.name FROM unnest($1::text[]) AS t (name) CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS needed
        GROUP BY t.name HAVING NOT bool_and(has_table_privilege(t.name, needed)) ORDER BY t.name) AS lacking,
    row_security_active('events') AS hidden, pg_has_role('processor_api', 'SET') AS api_role,
    (SELECT count(*) FROM workers WHERE seen_at > clock_timestamp() - $2::bigint * interval '1 millisecond') AS workers
