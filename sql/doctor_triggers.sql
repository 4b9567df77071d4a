-- The triggers that tell of changes on the channel kcg_changes. A row per trigger.
--
-- Who:   kcg-cache doctor; anyone who may connect: it looks at the catalogue, and at no table's rows.
-- How:   psql -X -f sql/doctor_triggers.sql "$DSN"
-- Again: reads only.
--
--   enabled   A always; O not under session_replication_role = replica; R only then; D never
--   for_each  STATEMENT or ROW
--
-- A trigger counts when its name begins with kcg_notify, or its function is one of kcg's whose name begins with
-- notify_change, or the function's text names the channel.

SELECT
    c.relname::text AS table_name,
    t.tgname::text AS name,
    t.tgenabled::text AS enabled,
    CASE WHEN t.tgtype::int & 1 = 1 THEN 'ROW' ELSE 'STATEMENT' END AS for_each,
    t.tgtype::int & 4 > 0 AS on_insert,
    t.tgtype::int & 16 > 0 AS on_update,
    t.tgtype::int & 8 > 0 AS on_delete,
    t.tgtype::int & 32 > 0 AS on_truncate
FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_namespace AS f ON f.oid = p.pronamespace
WHERE n.nspname = 'kcg'
  AND NOT t.tgisinternal
  AND c.relname IN ('detection_models', 'detection_model_versions', 'detection_model_dependencies')
  AND (
      pg_catalog.starts_with(t.tgname::text, 'kcg_notify')
      OR (f.nspname = 'kcg' AND pg_catalog.starts_with(p.proname::text, 'notify_change'))
      OR pg_catalog.strpos(p.prosrc, 'kcg_changes') > 0
  )
ORDER BY c.relname, t.tgname;
