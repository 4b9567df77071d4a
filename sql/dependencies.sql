-- Every dependency between models, also those of disabled ones: the caller knows which models it runs.
--
-- Who:   kcg_cache.load_dependencies, each time anew (not cached).
-- How:   psql -X -f sql/dependencies.sql "$DSN"
-- Again: reads only.
--
-- COLLATE "C": the order is the same in every database, see active_versions.sql.

SELECT
    d.model_id,
    d.depends_on,
    d.input_key
FROM kcg.detection_model_dependencies AS d
ORDER BY
    d.model_id   COLLATE "C",
    d.depends_on COLLATE "C",
    d.input_key  COLLATE "C";
