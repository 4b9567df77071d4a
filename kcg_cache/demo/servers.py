"""The two servers of a demo: private ones, or a database and a namespace of its own on the user's.

On the user's servers, a run that was killed leaves its database and its keys. Each run has a database of its own, and
holds a lock in it for as long as it lives; a database whose lock is free is a leftover, and the next run removes it.
The lock is in that database and no other, for PostgreSQL knows advisory locks by database: two runs that came in by
different databases would not see each other's.
"""

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kcg_cache import postgres, queries
from kcg_cache.datasets import ACTIVE_VERSIONS
from kcg_cache.demo.changes import STAMP
from kcg_cache.embedded import start_postgres, start_valkey
from kcg_cache.errors import ConfigurationError, StoreError
from kcg_cache.settings import Settings
from kcg_cache.store import Store

_PREFIX = "kcg_cache_demo_"
#: The key of the lock in each demo's database. Any number will do: nobody else has business there.
_LOCK = "SELECT pg_try_advisory_lock(1262700804) AS taken"
#: datconnlimit -2: its removal was interrupted; nobody can connect to it, and it can only be removed.
_OURS = """
    SELECT datname AS name, datconnlimit = -2 AS half_removed FROM pg_database
    WHERE datname ~ '^kcg_cache_demo_[0-9a-f]{12}$' AND pg_has_role(datdba, 'USAGE')
    ORDER BY datname
"""
_CREATE = "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
_INSUFFICIENT_PRIVILEGE = "42501"
_TRIES = 5
_REDIS_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a demo plays: two addresses, and the namespace of its keys."""

    redis: str = field(repr=False)
    dsn: str = field(repr=False)
    namespace: str


@contextlib.contextmanager
def private(say: Callable[[str], None]) -> Iterator[Place]:
    """Start both servers, and stop them in the end. They go with this process, however it ends."""
    say("starting Valkey and PostgreSQL")
    with start_valkey() as valkey, start_postgres() as server:
        yield Place(valkey.url, server.dsn, "kcg-demo")


@contextlib.contextmanager
def given(redis: str, dsn: str, say: Callable[[str], None]) -> Iterator[Place]:
    """Make a database and a namespace on the user's servers, and remove them in the end; first, what others left."""
    with postgres.connect(dsn) as connection:
        connection.autocommit = True
        _remove_leftovers(redis, dsn, connection, say)
        with _database(dsn, connection) as name:
            place = Place(redis, postgres.dsn_of_database(dsn, name), name)
            # Before anything is done on a Redis that does not serve.
            _remove_keys(redis, name)
            try:
                yield place
            finally:
                _remove_keys(redis, name)


def fill(place: Place) -> None:
    """Make tables and rows, all of generation 1."""
    with postgres.connect(place.dsn) as connection:
        for script in ("schema", "sample_data"):
            postgres.execute(connection, queries.load(script))
        postgres.execute(connection, STAMP, 1)
        connection.commit()


@contextlib.contextmanager
def _database(dsn: str, connection: Any) -> Iterator[str]:
    """Make a database and hold its lock; give its name, and remove it in the end."""
    for _ in range(_TRIES):
        name = f"{_PREFIX}{secrets.token_hex(6)}"
        try:
            _create(connection, name)
            with _locked(dsn, name) as taken:
                if taken:
                    yield name
                    return
                # Another run saw it before it was locked, takes it for a leftover, and is removing it.
        finally:
            _drop(connection, name)
    raise ConfigurationError(f"{_TRIES} new databases were taken away by another run of the demo; try again")


def _create(connection: Any, name: str) -> None:
    try:
        postgres.execute(connection, _CREATE.format(name))
    except postgres.ERRORS as error:
        if getattr(error, "pgcode", None) != _INSUFFICIENT_PRIVILEGE:
            raise
        raise ConfigurationError(
            "the user of --dsn may not create databases, and the demo wants one of its own: give a user with CREATEDB, "
            "or leave --redis and --dsn out"
        ) from error


@contextlib.contextmanager
def _locked(dsn: str, name: str) -> Iterator[bool]:
    """Tell whether this process got the lock of a demo's database; it holds it until the end of the block."""
    with contextlib.ExitStack() as stack:
        try:
            holder = stack.enter_context(postgres.connect(postgres.dsn_of_database(dsn, name)))
            holder.autocommit = True
            (answer,) = postgres.fetch(holder, _LOCK)
        except postgres.ERRORS:
            yield False
            return
        yield answer["taken"]


def _remove_leftovers(redis: str, dsn: str, connection: Any, say: Callable[[str], None]) -> None:
    """Remove what killed runs left: their keys first, for without the database nobody would look for the keys."""
    for row in postgres.fetch(connection, _OURS):
        name = row["name"]
        with contextlib.ExitStack() as stack:
            if row["half_removed"] or stack.enter_context(_locked(dsn, name)):
                # Two runs may be at the same leftover, and it concerns neither of their plays.
                with contextlib.suppress(StoreError, *postgres.ERRORS):
                    _remove_keys(redis, name)
                    _drop(connection, name)
                    say(f"removed {name}, which a run that was killed had left")


def _drop(connection: Any, name: str) -> None:
    # The name is of our own making, letters and digits, and needs no quotes. FORCE sends its own lock's session away,
    # and those of workers that are still ending.
    postgres.execute(connection, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _remove_keys(redis: str, namespace: str) -> None:
    settings = Settings(redis_url=redis, namespace=namespace, redis_timeout=_REDIS_TIMEOUT)
    store = Store(redis, ACTIVE_VERSIONS.name, settings)
    try:
        store.remove()
    finally:
        store.close()
