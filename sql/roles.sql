-- Group roles of least privilege for what reads and changes the tables of schema.sql: kcg_worker, kcg_operator,
-- kcg_watcher and kcg_viewer.
--
-- Who:   the owner of the tables, who also needs CREATEROLE (or a superuser).
-- How:   psql -X -v ON_ERROR_STOP=1 --single-transaction -f sql/roles.sql "$DSN"
--        then GRANT kcg_worker TO the role that a worker logs in as, and so on.
-- Again: idempotent. A second run makes what is missing, and takes from these four, in this schema, whatever else they
--        were granted on tables and sequences. PostgreSQL 13 or later.
--
-- None of them can log in, and none owns anything. Roles belong to the whole cluster of databases; what they may do is
-- granted in this database. Beside that they need what everybody has, unless it was revoked from PUBLIC: CONNECT on
-- the database, and EXECUTE on pg_control_system(), without which the cache tells databases apart by their name alone
-- (where it was revoked: GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO kcg_worker, kcg_operator,
-- kcg_watcher, kcg_viewer, as a superuser, in each database). LISTEN and NOTIFY are everybody's.
--
-- The counterpart in Redis: kcg-cache acl.


-- A role that somebody has made with the right to log in keeps it: what it may do in this schema is set below.

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['kcg_worker', 'kcg_operator', 'kcg_watcher', 'kcg_viewer'] LOOP
        BEGIN
            IF pg_catalog.to_regrole(wanted) IS NULL THEN
                EXECUTE 'CREATE ROLE ' || pg_catalog.quote_ident(wanted) || ' NOLOGIN';
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- another session has made it in between
        END;
    END LOOP;
END
$$;

REVOKE ALL ON ALL TABLES IN SCHEMA kcg FROM kcg_worker, kcg_operator, kcg_watcher, kcg_viewer;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA kcg FROM kcg_worker, kcg_operator, kcg_watcher, kcg_viewer;
REVOKE ALL ON SCHEMA kcg FROM kcg_worker, kcg_operator, kcg_watcher, kcg_viewer;
GRANT USAGE ON SCHEMA kcg TO kcg_worker, kcg_operator, kcg_watcher, kcg_viewer;

-- Everyone reads. A worker loads the rows; a watcher and a viewer compare them with the shared ones.

GRANT SELECT
    ON kcg.detection_models, kcg.detection_model_versions, kcg.detection_model_dependencies,
       kcg.correlation_param_models
    TO kcg_worker, kcg_operator, kcg_watcher, kcg_viewer;

-- What promote, archive, enable and disable write, and no other column. It is enough to lock the rows, too.

GRANT UPDATE (role, status, updated_at) ON kcg.detection_model_versions TO kcg_operator;
GRANT UPDATE (is_enabled) ON kcg.detection_models TO kcg_operator;
