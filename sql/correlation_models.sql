-- The active parameter sets of the track correlation: a second dataset for the same cache.
--
-- Who:   a dataset's loader, once per fill.
-- How:   psql -X -f sql/correlation_models.sql "$DSN"
-- Again: reads only.
--
-- params as text and COLLATE "C": see active_versions.sql.

SELECT
    c.id,
    c.name,
    c.is_default,
    c.params::text AS params
FROM kcg.correlation_param_models AS c
WHERE c.is_active
ORDER BY
    c.name COLLATE "C",
    c.id;
