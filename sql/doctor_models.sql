-- Every model, and how many of its versions are ACTIVE. A row per model.
--
-- Who:   kcg-cache doctor; whoever may read the two tables.
-- How:   psql -X -f sql/doctor_models.sql "$DSN"
-- Again: reads only.
--
-- COLLATE "C": the order is the same in every database, see active_versions.sql.

SELECT
    m.model_id,
    m.is_enabled,
    count(v.id) AS active,
    count(v.id) FILTER (WHERE v.role = 'PRIMARY') AS primaries
FROM kcg.detection_models AS m
LEFT JOIN kcg.detection_model_versions AS v ON v.model_id = m.model_id AND v.status = 'ACTIVE'
GROUP BY m.model_id, m.is_enabled
ORDER BY m.model_id COLLATE "C";
