"""Commit, then invalidate, never otherwise: on a real PostgreSQL, and with both Redis backends."""

import contextlib
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from psycopg2 import errors
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INTRANS
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name

import kcg_cache
from kcg_cache import (
    CommittedNotInvalidated,
    ConfigurationError,
    Dataset,
    InvalidateError,
    Invalidation,
    SharedCache,
    api,
    postgres,
    testing,
)
from kcg_cache.cli import app, failures
from kcg_cache.cli.exits import ExitCode
from kcg_cache.errors import StoreUnreachable
from tests.conftest import Backend
from tests.doubles import TickedSystem

NUMBERS = Dataset("numbers", lambda conn: postgres.fetch(conn, "SELECT n FROM kcg_number"))

#: A number that is checked when the transaction ends: 13 is refused, and at 666 the server hangs up.
SCHEMA = """
CREATE TABLE kcg_number (n int);
INSERT INTO kcg_number VALUES (1);
CREATE FUNCTION kcg_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.n = 13 THEN RAISE EXCEPTION 'no 13 here'; END IF;
    IF NEW.n = 666 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON kcg_number DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION kcg_at_commit();
"""

#: The two ways to say it: a call after the change, and a block around it.
Change = Callable[[SharedCache, Any, int], Invalidation]


def by_call(cache: SharedCache, conn: Any, number: int) -> Invalidation:
    set_number(conn, number)
    return cache.commit_and_invalidate(conn, reason="promoted")


def by_block(cache: SharedCache, conn: Any, number: int) -> Invalidation:
    with cache.invalidating(conn, reason="promoted") as change:
        assert change.receipt is None
        set_number(conn, number)
    assert change.receipt is not None
    return change.receipt


both_ways = pytest.mark.parametrize("change", [by_call, by_block])


@pytest.fixture
def conn(pg: Connection) -> Connection:
    """Give a connection to a database that holds one number, 1."""
    with pg, pg.cursor() as cursor:
        cursor.execute(SCHEMA)
    return pg


@pytest.fixture
def committed(conn: Connection, pg_connect: Callable[[], Connection]) -> Callable[[], int]:  # noqa: ARG001 - made first
    """Give a function that reads the number as another session sees it."""
    other = pg_connect()
    other.autocommit = True
    return lambda: int(postgres.fetch(other, "SELECT n FROM kcg_number")[0]["n"])


@pytest.fixture
def cache(backend: Backend, conn: Connection) -> SharedCache:
    """Give an operator's cache, with the rows of before the change in Redis."""
    worker = backend.worker(NUMBERS)
    worker.read(conn)
    return worker


def set_number(conn: Any, value: int) -> None:
    with contextlib.closing(conn.cursor()) as cursor:
        cursor.execute("UPDATE kcg_number SET n = %s", (value,))


def break_transaction(conn: Any) -> None:
    with contextlib.closing(conn.cursor()) as cursor, pytest.raises(errors.DivisionByZero):
        cursor.execute("SELECT 1/0")


def invalidations(cache: SharedCache) -> list[str]:
    return [event["reason"] for event in cache.inspect().invalidations]


def assert_nothing_invalidated(cache: SharedCache) -> None:
    assert invalidations(cache) == []
    assert cache.inspect().entry


def notes(error: BaseException) -> str:
    return " ".join(getattr(error, "__notes__", ()))


def command_in(text: str) -> list[str]:
    """Give the words of the one command that a message tells to run."""
    (command,) = [part for part in text.split("`") if part.startswith("kcg-cache invalidate")]
    return shlex.split(command)


# --- it goes well ---------------------------------------------------------------------------------------------------


@both_ways
def test_the_change_is_committed_then_invalidated_and_in_force(
    backend: Backend, cache: SharedCache, conn: Connection, committed: Callable[[], int], change: Change
) -> None:
    """The receipt is that of an invalidate, and every reader has the new rows."""
    reader = backend.worker(NUMBERS)
    assert reader.read(conn).rows == ({"n": 1},)
    conn.rollback()
    receipt = change(cache, conn, 2)
    assert (receipt.dataset, receipt.reason, receipt.existed, receipt.in_force) == ("numbers", "promoted", True, True)
    assert (committed(), invalidations(cache)) == (2, ["promoted"])
    assert conn.get_transaction_status() == TRANSACTION_STATUS_IDLE
    assert reader.read(conn).rows == ({"n": 2},)


def test_without_wait_the_receipt_says_from_when(backend: Backend, cache: SharedCache, conn: Connection) -> None:
    """Both ways take `wait`."""
    receipt = cache.commit_and_invalidate(conn, wait=False)
    assert not receipt.in_force
    with cache.invalidating(conn, wait=False) as change:
        set_number(conn, 2)
    assert change.receipt is not None
    assert not change.receipt.in_force
    assert backend.system.slept == []
    assert invalidations(cache) == ["", ""]


def test_nothing_is_invalidated_before_the_commit(cache: SharedCache, conn: Connection) -> None:
    """A reader that asked in between would load the old rows again."""
    order: list[str] = []

    class Watched(Proxy):
        def commit(self) -> None:
            order.append(f"invalidations before the commit: {len(invalidations(cache))}")
            super().commit()
            order.append(f"and right after it: {len(invalidations(cache))}")

    by_call(cache, Watched(conn), 2)
    assert order == ["invalidations before the commit: 0", "and right after it: 0"]
    assert invalidations(cache) == ["promoted"]


@both_ways
def test_what_autocommit_has_committed_is_invalidated(
    cache: SharedCache, conn: Connection, committed: Callable[[], int], change: Change
) -> None:
    """There is nothing left to commit."""
    conn.rollback()
    conn.autocommit = True
    change(cache, conn, 2)
    assert (committed(), invalidations(cache)) == (2, ["promoted"])


@both_ways
def test_a_transaction_begun_by_hand_in_autocommit_is_committed(
    cache: SharedCache, conn: Connection, committed: Callable[[], int], change: Change
) -> None:
    """psycopg2's commit() does nothing then, and says nothing."""
    conn.rollback()
    conn.autocommit = True
    postgres.execute(conn, "BEGIN")
    change(cache, conn, 2)
    assert (committed(), invalidations(cache)) == (2, ["promoted"])
    assert conn.get_transaction_status() == TRANSACTION_STATUS_IDLE


class Proxy:
    """What a pool hands out: a connection behind another object."""

    def __init__(self, inner: Any) -> None:
        self._connection = inner

    def cursor(self) -> Any:
        return self._connection.cursor()

    def commit(self) -> None:
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()


class Opaque:
    """A wrapper that shows nothing of what it wraps."""

    def __init__(self, inner: Any) -> None:
        self.cursor = inner.cursor
        self.commit = inner.commit
        self.rollback = inner.rollback


wrapped = pytest.mark.parametrize("wrap", [Proxy, lambda conn: Proxy(Proxy(conn)), Opaque], ids=["one", "two", "opaque"])


@both_ways
@wrapped
def test_wrapped_connections_work(
    cache: SharedCache, conn: Connection, committed: Callable[[], int], change: Change, wrap: Callable[[Any], Any]
) -> None:
    """A pool's proxy commits as the connection does."""
    change(cache, wrap(conn), 2)
    assert (committed(), invalidations(cache)) == (2, ["promoted"])


def test_a_proxy_that_lets_go_of_its_connection_at_the_commit_works(
    cache: SharedCache, conn: Connection, committed: Callable[[], int]
) -> None:
    """A connection that is closed by then has no transaction open."""

    class Returning(Proxy):
        def commit(self) -> None:
            super().commit()
            self._connection.close()

    by_call(cache, Returning(conn), 2)
    assert (committed(), invalidations(cache)) == (2, ["promoted"])
