-- Takes away what notify.sql installed: the triggers on the three tables, and both functions.
--
-- Who:   the role that ran notify.sql.
-- How:   PGOPTIONS="-c lock_timeout=5s" \
--            psql -X -v ON_ERROR_STOP=1 --single-transaction -f sql/notify_remove.sql "$DSN"
-- Again: idempotent. What is not there is left so. It waits for an exclusive lock on each table in turn, for as long
--        as lock_timeout says; then nothing is changed.
--
-- First see to it that nobody calls kcg.notify_change any more: its callers' transactions would fail. kcg-cache watch
-- goes on without triggers: it polls.

DROP TRIGGER IF EXISTS kcg_notify_changed ON kcg.detection_models;
DROP TRIGGER IF EXISTS kcg_notify_changed ON kcg.detection_model_versions;
DROP TRIGGER IF EXISTS kcg_notify_changed ON kcg.detection_model_dependencies;

DROP FUNCTION IF EXISTS kcg.notify_changed();
DROP FUNCTION IF EXISTS kcg.notify_change(text);
