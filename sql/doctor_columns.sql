-- Is every column that the queries read there, of a kind that they can work with, and may this role read it?
-- A row per column.
--
-- Who:   kcg-cache doctor; anyone who may connect: it looks at the catalogue, and at no table's rows.
-- How:   psql -X -f sql/doctor_columns.sql "$DSN"
-- Again: reads only.
--
--   wanted       the kind: number, text (or an enum), json, boolean
--   found, kind  its type, and PostgreSQL's category of it (N, S, E, U, B); NULL where there is no such column
--   may_use      USAGE on the schema; may_read: SELECT on the column, or on its table
--   table_bytes  the size of the table itself

SELECT
    w.table_name,
    w.column_name,
    w.wanted,
    n.oid IS NOT NULL AS has_schema,
    c.oid IS NOT NULL AS has_table,
    pg_catalog.format_type(a.atttypid, a.atttypmod) AS found,
    t.typcategory::text AS kind,
    n.oid IS NOT NULL AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS may_use,
    a.attnum IS NOT NULL AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT') AS may_read,
    CASE WHEN c.relkind = 'r' THEN pg_catalog.pg_relation_size(c.oid) END AS table_bytes
FROM (
    VALUES
        ('detection_models',             'model_id',   'text'),
        ('detection_models',             'is_enabled', 'boolean'),
        ('detection_model_versions',     'id',         'number'),
        ('detection_model_versions',     'model_id',   'text'),
        ('detection_model_versions',     'version',    'text'),
        ('detection_model_versions',     'role',       'text'),
        ('detection_model_versions',     'status',     'text'),
        ('detection_model_versions',     'params',     'json'),
        ('detection_model_dependencies', 'model_id',   'text'),
        ('detection_model_dependencies', 'depends_on', 'text'),
        ('detection_model_dependencies', 'input_key',  'text')
) AS w (table_name, column_name, wanted)
LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = 'kcg'
LEFT JOIN pg_catalog.pg_class AS c
    ON c.relnamespace = n.oid AND c.relname = w.table_name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
LEFT JOIN pg_catalog.pg_attribute AS a
    ON a.attrelid = c.oid AND a.attname = w.column_name AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
ORDER BY w.table_name, w.column_name;
