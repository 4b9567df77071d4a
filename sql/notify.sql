-- Tells who listens on the channel kcg_changes that the tables behind the cache were changed: triggers on the three
-- tables of the detection models, and a function that any service may call itself.
--
-- Who:   the role that owns the tables of schema.sql; it needs CREATE on the schema kcg and no more.
-- How:   PGCLIENTENCODING=UTF8 PGOPTIONS="-c lock_timeout=5s" \
--            psql -X -v ON_ERROR_STOP=1 --single-transaction -f sql/notify.sql "$DSN"
-- Again: idempotent. A second run makes functions and triggers anew, also those that somebody has disabled. It waits
--        for an exclusive lock on each table in turn, for as long as lock_timeout says; then nothing is changed.
--        notify_remove.sql takes all of it away. PostgreSQL 13 or later.
--
-- kcg-cache watch listens, compares the rows with the shared ones, and invalidates where they differ. A notification
-- says "look now" and proves nothing: one that is lost costs watch's --interval and no more.
--
-- What fires no trigger, and is found at the next interval: a change that a logical subscription applies (PostgreSQL
-- fires row triggers there, not statement triggers); one written straight into a partition or a child table.
-- What cannot be with it: PREPARE TRANSACTION (XA) is refused by PostgreSQL once a transaction has notified. Where the
-- service that promotes does so, leave this file out and let watch poll.
-- pg_restore --disable-triggers leaves the triggers enabled, but not under session_replication_role = replica: run
-- this file again after it.


-- The public contract: SELECT kcg.notify_change('why'), in the transaction that makes the change. The notification
-- goes out when that commits, and not when it is rolled back. The same reason twice in one transaction goes out once.
--
-- The payload is JSON, {"reason": "…"}. Whoever reads it ignores names that it does not know. NULL becomes ''. A reason
-- is cut at 1000 characters: each is at most 6 bytes as JSON, and PostgreSQL fails from 8000 bytes on.
--
-- It runs as its caller, who needs USAGE on the schema, and nothing else: everybody may NOTIFY. The search path is
-- fixed, so that no function or operator of the caller's stands before PostgreSQL's own.

CREATE OR REPLACE FUNCTION kcg.notify_change(reason text) RETURNS void
    LANGUAGE sql VOLATILE SECURITY INVOKER SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT pg_notify(
            'kcg_changes', json_build_object('reason', coalesce("left"(notify_change.reason, 1000), ''))::text
        )
    $$;

COMMENT ON FUNCTION kcg.notify_change(text)
    IS 'Tell kcg-cache watch, when this transaction commits, that what it caches may have changed';


-- It runs as its owner: whoever may change a row must not fail for want of rights to a schema or a function. That
-- gives nothing away, for it takes nothing from its caller but which table and which statement.

CREATE OR REPLACE FUNCTION kcg.notify_changed() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        PERFORM kcg.notify_change(tg_op || ' ' || tg_table_schema || '.' || tg_table_name);
        RETURN NULL;
    END
    $$;

COMMENT ON FUNCTION kcg.notify_changed()
    IS 'The trigger function of kcg_notify_changed: which statement, on which table';


-- One notification for each statement, however many rows it changes, if it changes any. ALWAYS: also in a session
-- that runs under session_replication_role = replica, as bulk loads do.

DROP TRIGGER IF EXISTS kcg_notify_changed ON kcg.detection_models;
CREATE TRIGGER kcg_notify_changed
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON kcg.detection_models
    FOR EACH STATEMENT EXECUTE FUNCTION kcg.notify_changed();
ALTER TABLE kcg.detection_models ENABLE ALWAYS TRIGGER kcg_notify_changed;

DROP TRIGGER IF EXISTS kcg_notify_changed ON kcg.detection_model_versions;
CREATE TRIGGER kcg_notify_changed
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON kcg.detection_model_versions
    FOR EACH STATEMENT EXECUTE FUNCTION kcg.notify_changed();
ALTER TABLE kcg.detection_model_versions ENABLE ALWAYS TRIGGER kcg_notify_changed;

DROP TRIGGER IF EXISTS kcg_notify_changed ON kcg.detection_model_dependencies;
CREATE TRIGGER kcg_notify_changed
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON kcg.detection_model_dependencies
    FOR EACH STATEMENT EXECUTE FUNCTION kcg.notify_changed();
ALTER TABLE kcg.detection_model_dependencies ENABLE ALWAYS TRIGGER kcg_notify_changed;
