"""Databases for tests, one after the other: each is as new, and most have served before.

To copy a database costs a few hundred files, most of the processor time of a test that uses one. What a test does to
its database is mostly rows. So a database that a test gives back is looked at: when its catalogs are as they were
in the copy (no row of any of them newer, none missing, however a test may have brought that about), its tables are
truncated and its sequences restarted, and the next test gets it under another name, which no late session of
the test before knows. When anything else is changed, it is dropped, and the next test gets a new copy.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import sql

from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.pg_fixtures import PostgresServer

_CATALOGS = """
SELECT relname FROM pg_class
WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND NOT relisshared
ORDER BY relname
"""

# What of a database stands in the catalogs that all share; and what would keep it from being renamed or dropped.
_SHARED = """
SELECT d.datdba, d.datacl::text, d.datconnlimit, d.datallowconn, d.datistemplate, d.dattablespace,
    shobj_description(d.oid, 'pg_database'),
    (SELECT array_agg(s.setrole::text || s.setconfig::text) FROM pg_db_role_setting s WHERE s.setdatabase = d.oid),
    (SELECT count(*) FROM pg_prepared_xacts WHERE database = d.datname),
    (SELECT count(*) FROM pg_replication_slots WHERE database = d.datname)
FROM pg_database d WHERE d.datname = current_database()
"""

# What tests make for themselves stands in `public`, which the schema leaves empty.
_STRANGERS = """
SELECT format('DROP %s IF EXISTS %s CASCADE',
    CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END, oid::regclass)
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
UNION ALL
SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', oid::regprocedure)
FROM pg_proc WHERE pronamespace = 'public'::regnamespace
"""

_TABLES = """
SELECT oid::regclass::text, pg_relation_size(oid) > 0 FROM pg_class
WHERE relkind = 'r' AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
"""

_ADVANCED_SEQUENCES = "SELECT count(*) FROM pg_sequences WHERE last_value IS NOT NULL"


def new_name(kind: str) -> str:
    """Give a name that nothing on the server has."""
    return f"kcg_{kind}_{secrets.token_hex(6)}"


@contextmanager
def administering(server: "PostgresServer", dbname: str | None = None) -> Iterator[Any]:
    """Give a superuser's cursor, each of whose statements is a transaction."""
    dsn = server.dsn if dbname is None else server.dsn_for(dbname)
    with closing(psycopg2.connect(dsn)) as conn:
        conn.autocommit = True
        with conn.cursor() as cursor:
            yield cursor


def run(server: "PostgresServer", statement: str, *names: str) -> None:
    """Run one statement that no transaction may contain."""
    with administering(server) as cursor:
        _run(cursor, statement, *names)


def _run(cursor: Any, statement: str, *names: str) -> None:
    cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


class Databases:
    """Copies of one template, lent to one test after the other."""

    def __init__(self, server: "PostgresServer", template: str) -> None:
        self._server = server
        self._template = template
        # By name, each with the state of its catalogs: those that are as new, and those that a test has.
        self._clean: dict[str, Mapping[str, Any]] = {}
        self._lent: dict[str, Mapping[str, Any]] = {}
        with administering(server, template) as cursor:
            # It halves the time of a copy: of files, past the log. A server before 15 knows no other.
            self._strategy = "STRATEGY FILE_COPY" if cursor.connection.server_version >= 150_000 else ""
            cursor.execute(_CATALOGS)
            self._states = " UNION ALL ".join(
                # A catalog's name is PostgreSQL's own, and needs no quotes.
                f"SELECT '{name}', count(*), max(xmin::text::bigint) FROM pg_catalog.{name}"
                for (name,) in cursor.fetchall()
            )

    def take(self) -> str:
        """Give the name of a database with no rows and nobody connected."""
        if self._clean:
            name, state = self._clean.popitem()
        else:
            name = new_name("test")
            run(self._server, f"CREATE DATABASE {{}} TEMPLATE {{}} {self._strategy}", name, self._template)
            with administering(self._server, name) as cursor:
                state = self.state(cursor)
        self._lent[name] = state
        return name

    def give_back(self, name: str) -> None:
        """Make it as new for the next, or drop it: whoever is still connected is cut off."""
        state = self._lent.pop(name)
        fresh = new_name("test")
        with administering(self._server) as cursor:
            _cut_off(cursor, name)
            _run(cursor, "ALTER DATABASE {} RENAME TO {}", name, fresh)
            with administering(self._server, fresh) as inside:
                restored = self._restored(inside, state)
            if restored is None:
                _run(cursor, "DROP DATABASE {} WITH (FORCE)", fresh)
            else:
                _cut_off(cursor, fresh)  # our own session may take a moment to end
                self._clean[fresh] = restored

    def close(self) -> None:
        """Drop them all."""
        while self._clean:
            name, _ = self._clean.popitem()
            run(self._server, "DROP DATABASE {} WITH (FORCE)", name)

    def state(self, cursor: Any) -> dict[str, Any]:
        """Give what tells whether anything but rows was changed.

        Of each catalog how many rows it has and the newest transaction that wrote one of them, and what the shared
        catalogs say of this database.
        """
        cursor.execute(self._states)
        state: dict[str, Any] = {name: (count, newest) for name, count, newest in cursor.fetchall()}
        cursor.execute(_SHARED)
        state["shared"] = cursor.fetchone()
        return state

    def _restored(self, cursor: Any, before: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Take away what a test has added; give the catalogs' state then, or None when it cannot be as it was."""
        try:
            return self._emptied(cursor, before)
        except psycopg2.Error:  # what a test has made cannot be dropped: the whole database is then
            return None

    def _emptied(self, cursor: Any, before: Mapping[str, Any]) -> Mapping[str, Any] | None:
        cursor.execute(_STRANGERS)
        for (statement,) in cursor.fetchall():
            cursor.execute(statement)
        if self.state(cursor) != before:
            return None
        cursor.execute(_TABLES)
        tables = cursor.fetchall()
        cursor.execute(_ADVANCED_SEQUENCES)
        if any(used for _, used in tables) or cursor.fetchone() != (0,):
            cursor.execute(f"TRUNCATE {', '.join(name for name, _ in tables)} RESTART IDENTITY")
            # An emptied table is another file, which stands in its row of pg_class.
            cursor.execute("SELECT count(*), max(xmin::text::bigint) FROM pg_class")
            return {**before, "pg_class": cursor.fetchone()}
        return before


def _cut_off(cursor: Any, name: str) -> None:
    """End all sessions of a database, and return when they are gone."""

    def gone() -> bool:
        cursor.execute("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s", (name,))
        return bool(cursor.fetchone() == (0,))

    eventually(gone)
