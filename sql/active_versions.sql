-- The ACTIVE versions of every enabled model: the rows that the fleet shares.
--
-- Who:   kcg_cache, once per fill; a DBA who wants to see what the next fill will see.
-- How:   psql -X -f sql/active_versions.sql "$DSN"
-- Again: reads only.
--
-- params leaves as text, so that what is shared does not depend on the typecasters of whoever fills the
-- cache. A stored jsonb has one text: every server writes it with the same order of keys and the same digits.
--
-- COLLATE "C" orders by bytes. Where 'a_b' and 'aB' stand under the database's own collation depends on its
-- locale, its operating system and the version of its C library; after an upgrade the same rows would come in
-- another order, have another digest, and be fetched again by every worker that already holds them.

SELECT
    v.id,
    v.model_id,
    v.version,
    v.role,
    v.params::text AS params
FROM kcg.detection_model_versions AS v
JOIN kcg.detection_models AS m ON m.model_id = v.model_id
WHERE v.status = 'ACTIVE'
  AND m.is_enabled
ORDER BY
    v.model_id COLLATE "C",
    CASE v.role
        WHEN 'PRIMARY'    THEN 1
        WHEN 'CHALLENGER' THEN 2
        WHEN 'SHADOW'     THEN 3
        ELSE 4
    END,
    v.id;
