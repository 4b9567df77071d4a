"""Fixtures with a real PostgreSQL: a server per session, a database with the schema loaded and no rows per test.

The server is `kcg_cache.embedded`'s. To run the same tests against a server of your own, give a superuser's
address of it in `KCG_TEST_DSN`; they leave nothing behind in it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name
from psycopg2.extensions import make_dsn

from kcg_cache import queries
from tests.pg_databases import Databases, new_name, run
from tests.secret_words import know


class PostgresServer(Protocol):
    """What the tests need to know of a server."""

    @property
    def dsn(self) -> str:
        """A superuser's address, with a database that is always there."""

    def dsn_for(self, dbname: str) -> str:
        """Give the same address with another database."""


@dataclass(frozen=True)
class GivenServer:
    """A server that somebody else started."""

    dsn: str

    def dsn_for(self, dbname: str) -> str:
        """Give the same address with another database."""
        return make_dsn(self.dsn, dbname=dbname)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Give the server of `KCG_TEST_DSN`, or one of our own for this session."""
    given = os.environ.get("KCG_TEST_DSN")
    if given:
        yield GivenServer(given)
        return
    # Not above: with a server of one's own the embedded one need not be installed.
    from kcg_cache.embedded import start_postgres  # noqa: PLC0415

    with start_postgres() as server:
        know(server.password)
        yield server


@pytest.fixture(scope="session")
def pg_template(postgres_server: PostgresServer) -> Iterator[str]:
    """Give the name of a database with the schema loaded, to copy from; nobody may stay connected to it."""
    name = new_name("template")
    # From template0 and in the locale that every system has, so that any server can make it.
    run(
        postgres_server,
        "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'",
        name,
    )
    try:
        with closing(psycopg2.connect(postgres_server.dsn_for(name))) as conn, conn, conn.cursor() as cursor:
            cursor.execute(queries.load("schema"))
        yield name
    finally:
        run(postgres_server, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture(scope="session")
def pg_role(postgres_server: PostgresServer) -> Iterator[str]:
    """Give the name of a role with no rights but PUBLIC's, to `SET ROLE` to."""
    name = new_name("role")
    run(postgres_server, "CREATE ROLE {}", name)
    yield name
    # What it was granted or owned went with the databases of the tests.
    run(postgres_server, "DROP ROLE {}", name)


@pytest.fixture(scope="session")
def pg_databases(postgres_server: PostgresServer, pg_template: str) -> Iterator[Databases]:
    """Give the databases that tests use one after the other."""
    databases = Databases(postgres_server, pg_template)
    yield databases
    databases.close()


@pytest.fixture
def pg_dsn(postgres_server: PostgresServer, pg_databases: Databases) -> Iterator[str]:
    """Give a superuser's address of a database as new, with the schema loaded and no rows."""
    name = pg_databases.take()
    yield postgres_server.dsn_for(name)
    pg_databases.give_back(name)


@pytest.fixture
def pg_connect(pg_dsn: str) -> Iterator[Callable[[], Connection]]:
    """Give a function that opens one more connection to the test's database."""
    opened: list[Connection] = []

    def connect() -> Connection:
        opened.append(psycopg2.connect(pg_dsn))
        return opened[-1]

    yield connect
    for conn in opened:
        conn.close()


@pytest.fixture
def pg(pg_connect: Callable[[], Connection]) -> Connection:
    """Give a connection to a new database with the schema loaded and no rows."""
    return pg_connect()
