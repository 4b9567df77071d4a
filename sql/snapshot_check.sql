-- May the rows that this connection reads next be shared with others? (PROTOCOL R13.) It answers one row.
--
-- Who:   kcg_cache, on the very connection that reads the rows, in whatever transaction the caller has open.
-- How:   psql -X -x -f sql/snapshot_check.sql "$DSN"
-- Again: reads only. It assigns no transaction id, touches no table, and works in READ ONLY and SERIALIZABLE
--        transactions and on a hot standby. PostgreSQL 13 or later.
--
--   isolation          above 'read committed', a transaction that was already open may have an old snapshot
--   has_xid            this transaction has written (or locked rows): it sees its own uncommitted changes
--   in_recovery        a standby: it may lag behind
--   system_identifier  which cluster this is (a standby has its primary's); NULL where this role may not ask
--   database           which database of the cluster
--   alone              the transaction began with this very statement: nothing was read before it.
--                      True in autocommit. False after a BEGIN, also for the first statement, and through
--                      the extended protocol, where the parse message begins the transaction. So true can
--                      be relied on, and false says only that nobody knows. (What stands before it in the
--                      same query string has the same time: send this statement by itself.)
--
-- Why ts_stat: EXECUTE on pg_control_system() may be revoked, and the right to call a function is checked
-- when a statement starts, also for a function in a CASE branch that is never taken. The error would abort the
-- caller's transaction. A query that is passed as text is not looked at before its branch is taken. Of the
-- functions that run a text, ts_stat is in every server (query_to_xml fails in one built without libxml); the
-- one "word" of the one tsvector is the identifier.

SELECT
    pg_catalog.current_setting('transaction_isolation') AS isolation,
    pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL AS has_xid,
    pg_catalog.pg_is_in_recovery() AS in_recovery,
    CASE
        WHEN pg_catalog.has_function_privilege(
            pg_catalog.to_regprocedure('pg_catalog.pg_control_system()'), 'EXECUTE'
        )
        THEN (
            SELECT s.word
            FROM pg_catalog.ts_stat($query$
                SELECT pg_catalog.array_to_tsvector(ARRAY[c.system_identifier::text])
                FROM pg_catalog.pg_control_system() AS c
            $query$) AS s
        )
    END AS system_identifier,
    pg_catalog.current_database()::text AS database,
    pg_catalog.now() = pg_catalog.statement_timestamp() AS alone;
