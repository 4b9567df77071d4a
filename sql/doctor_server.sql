-- Which PostgreSQL is this, and how does a session of this role begin? It answers one row.
--
-- Who:   kcg-cache doctor; anyone who may connect.
-- How:   psql -X -x -f sql/doctor_server.sql "$DSN"
-- Again: reads only.
--
--   default_isolation  what a transaction of this role begins with, unless it says otherwise
--   may_identify       whether this role may ask which cluster this is; without it two clusters whose databases
--                      have one name look the same to the cache

SELECT
    pg_catalog.current_setting('server_version') AS version,
    pg_catalog.current_setting('server_version_num')::int AS version_number,
    pg_catalog.current_database()::text AS database,
    current_user::text AS role,
    pg_catalog.pg_is_in_recovery() AS in_recovery,
    pg_catalog.current_setting('default_transaction_isolation') AS default_isolation,
    pg_catalog.has_function_privilege(
        pg_catalog.to_regprocedure('pg_catalog.pg_control_system()'), 'EXECUTE'
    ) AS may_identify,
    (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint AS time_us;
