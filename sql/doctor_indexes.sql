-- The unique and the partial indexes of kcg.detection_model_versions. A row per index.
--
-- Who:   kcg-cache doctor; anyone who may connect: it looks at the catalogue, and at no table's rows.
-- How:   psql -X -f sql/doctor_indexes.sql "$DSN"
-- Again: reads only.
--
--   columns    its key, in order
--   predicate  which rows are in it; NULL for all
--   valid      false for one that was not built to its end

SELECT
    i.relname::text AS name,
    x.indisunique AS is_unique,
    x.indisvalid AS valid,
    ARRAY(
        SELECT pg_catalog.pg_get_indexdef(x.indexrelid, k.place, true)
        FROM pg_catalog.generate_series(1, x.indnkeyatts::int) AS k (place)
        ORDER BY k.place
    ) AS columns,
    pg_catalog.pg_get_expr(x.indpred, x.indrelid) AS predicate
FROM pg_catalog.pg_index AS x
JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_class AS c ON c.oid = x.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'kcg'
  AND c.relname = 'detection_model_versions'
  AND (x.indisunique OR x.indpred IS NOT NULL)
ORDER BY i.relname;
